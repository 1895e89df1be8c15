//! A commit of a topic's table: its changes in the terms of the commit engine ([`floe_iceberg::engine`]), and what the
//! engine made in those of the table's folder. It writes nothing: the caller puts the files, then moves the pointer in
//! the journal.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use floe_env::Timestamp;
use floe_iceberg::engine::{self, Added, Before, Change, DocumentKind, Documents, Kept, Sums};
use floe_iceberg::{ManifestEntry, ManifestFile, TableMetadata, limits::MANIFEST_MERGE};
use floe_log::Offset;
use floe_schema::TableSchema;
use floe_view::ReadRanges;
use serde_json::json;
use uuid::Uuid;

use crate::{
    convert::{self, Old},
    error::TableError,
    files::{Base, Files},
    layout::{self, FileKind},
    limits,
    map::Table,
    small::SmallFiles,
};

/// What a commit changes.
pub(crate) struct Delta<'a> {
    pub(crate) schema: &'a TableSchema,
    pub(crate) added: Vec<Added>,
    /// Columns that the schema replaces and that live data files still hold after the commit.
    pub(crate) old: Old,
    /// URLs of data files to remove. The added ones hold their rows.
    pub(crate) removed: BTreeSet<String>,
    /// Paths of manifests that are known to name none of the removed files.
    pub(crate) untouched: &'a BTreeSet<String>,
    /// Whether the added files have the rows of the removed ones and nothing else.
    pub(crate) same_rows: bool,
    /// The small files of the table before the commit.
    pub(crate) small: SmallFiles,
    /// The range of offsets of each partition that has rows in this commit.
    pub(crate) read: &'a ReadRanges,
    /// The progress of every partition after the commit.
    pub(crate) progress: &'a BTreeMap<u32, Offset>,
    pub(crate) bad_records: u64,
    pub(crate) snapshot_id: i64,
    pub(crate) time: Timestamp,
    /// How many snapshots the table keeps, this one included.
    pub(crate) snapshots_kept: usize,
}

/// The next state of a table, and the files that must be in the store before it is committed.
pub(crate) struct Next {
    pub(crate) base: Base,
    /// The small files of the table after the commit.
    pub(crate) small: SmallFiles,
    pub(crate) files: Vec<(String, Bytes)>,
    /// Keys of files that become garbage with the commit.
    pub(crate) garbage: Vec<String>,
    /// Keys of manifests that name data files which become garbage with the commit.
    pub(crate) removed: Vec<String>,
}

/// The file numbers that the owner has left.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) next: u64,
    pub(crate) end: u64,
}

impl Numbers {
    pub(crate) fn take(&mut self) -> Result<u64, TableError> {
        if self.next >= self.end {
            return Err(TableError::OutOfNumbers);
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// The first state of the table of a topic, without a snapshot. Its folder has the name `name`.
pub(crate) fn create(
    files: &Files,
    numbers: &mut Numbers,
    uuid: u128,
    (topic, name): (&str, &str),
    schema: &TableSchema,
    time: Timestamp,
) -> Result<Next, TableError> {
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let properties =
        BTreeMap::from([set("write.parquet.compression-codec", "zstd"), set("floe.topic", topic)]);
    let metadata = TableMetadata::new(
        Uuid::from_u128(uuid),
        &files.location(),
        convert::schema(schema)?,
        schema.last_column_id(),
        properties,
        time.0,
    );
    let key = files.key(FileKind::Metadata, numbers.take()?);
    let bytes = Bytes::from(metadata.file()?);
    let table = Table {
        uuid,
        name: name.to_owned(),
        metadata: key.clone(),
        manifest_list: None,
        snapshot_id: None,
        snapshots: 0,
        next_file: numbers.next,
        files: 0,
        rows: 0,
        bytes: 0,
        bad_records: 0,
    };
    let base = Base { table, metadata, manifests: Vec::new() };
    let (files, small) = (vec![(key, bytes)], SmallFiles::default());
    Ok(Next { base, small, files, garbage: Vec::new(), removed: Vec::new() })
}

/// The next state of a table.
pub(crate) async fn prepare(
    files: &Files,
    numbers: &mut Numbers,
    base: &Base,
    mut delta: Delta<'_>,
) -> Result<Next, TableError> {
    let table = &base.table;
    let metadata_file = files.url(&table.metadata);
    let before = Before {
        metadata: &base.metadata,
        metadata_file: &metadata_file,
        manifests: &base.manifests,
        totals: Sums { files: table.files, rows: table.rows, bytes: table.bytes },
    };
    let small = std::mem::take(&mut delta.small);
    let change = Change {
        schema: convert::schema_with(delta.schema, &delta.old)?,
        added: &delta.added,
        removed: &delta.removed,
        untouched: delta.untouched,
        same_rows: delta.same_rows,
        summary: summary(&delta),
        properties: properties(&delta),
        snapshot_id: delta.snapshot_id,
        time_ms: delta.time.0,
        kept: Kept { snapshots: delta.snapshots_kept, since_ms: i64::MIN },
    };
    let mut documents = Folded { files, numbers, small };
    let after = engine::commit(&mut documents, before, change).await?;
    let Folded { mut small, .. } = documents;
    small.keep(&after.manifests);
    let key = |url: &String| files.key_of_url(url).expect("the engine names what it was given");
    let table = Table {
        metadata: key(&after.metadata_file),
        manifest_list: Some(key(&after.manifest_list)),
        snapshot_id: Some(delta.snapshot_id),
        snapshots: table.snapshots + 1,
        next_file: numbers.next,
        files: after.totals.files,
        rows: after.totals.rows,
        bytes: after.totals.bytes,
        bad_records: table.bad_records + delta.bad_records,
        ..table.clone()
    };
    let ours = |urls: Vec<String>| urls.iter().filter_map(|url| files.key_of_url(url)).collect();
    Ok(Next {
        base: Base { table, metadata: after.metadata, manifests: after.manifests },
        small,
        files: after.files.into_iter().map(|(url, bytes)| (key(&url), Bytes::from(bytes))).collect(),
        garbage: ours(after.garbage),
        removed: ours(after.removed),
    })
}

/// The folder of a table, as the engine sees it.
struct Folded<'a> {
    files: &'a Files,
    numbers: &'a mut Numbers,
    small: SmallFiles,
}

impl Documents for Folded<'_> {
    type Error = TableError;

    fn name(&mut self, kind: DocumentKind) -> Result<String, TableError> {
        let kind = match kind {
            DocumentKind::Manifest => FileKind::Manifest,
            DocumentKind::ManifestList => FileKind::ManifestList,
            DocumentKind::Metadata => FileKind::Metadata,
        };
        Ok(self.files.url(&self.files.key(kind, self.numbers.take()?)))
    }

    fn short_name(&self, manifest: &str) -> Option<String> {
        let key = self.files.key_of_url(manifest).expect("a table's manifests are in its folder");
        let name = key.rsplit('/').next().unwrap_or_default();
        layout::number_of_manifest(name).map(|number| number.to_string())
    }

    fn of_short_name(&self, name: &str) -> Option<String> {
        let number = name.parse().ok()?;
        Some(self.files.url(&self.files.key(FileKind::Manifest, number)))
    }

    async fn entries(&self, manifest: &ManifestFile) -> Result<Vec<ManifestEntry>, TableError> {
        self.files.manifest(manifest).await
    }

    async fn manifests(&self, list: &str) -> Result<Vec<ManifestFile>, TableError> {
        self.files.list_of_url(list).await
    }

    fn made(&mut self, manifest: &str, entries: &[ManifestEntry], sequence_number: i64) {
        self.small.note(manifest, entries, sequence_number);
    }
}

/// The properties that every commit sets: how far the log is in the table, and what the table keeps. The names of the
/// latter are Iceberg's.
fn properties(delta: &Delta<'_>) -> BTreeMap<String, String> {
    let set = |key: &str, value: String| (key.to_owned(), value);
    BTreeMap::from([
        set("floe.committed-offsets", offsets(delta.progress)),
        set("write.metadata.previous-versions-max", limits::METADATA_KEPT.to_string()),
        set("write.metadata.delete-after-commit.enabled", true.to_string()),
        set("history.expire.min-snapshots-to-keep", delta.snapshots_kept.max(2).to_string()),
        // A snapshot beyond that number expires with the next commit, however young it is.
        set("history.expire.max-snapshot-age-ms", 1.to_string()),
        set("commit.manifest.min-count-to-merge", MANIFEST_MERGE.to_string()),
    ])
}

/// The offsets of partitions as JSON.
fn offsets(progress: &BTreeMap<u32, Offset>) -> String {
    let offsets: BTreeMap<String, i64> =
        progress.iter().map(|(p, offset)| (p.to_string(), offset.0)).collect();
    json!(offsets).to_string()
}

/// Which offsets a commit has, and how many of its records do not fit.
fn summary(delta: &Delta<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |key: &str, value: String| properties.insert(key.to_owned(), value);
    let moved: BTreeMap<u32, Offset> = delta.read.iter().map(|(p, (_, to))| (*p, *to)).collect();
    let from: BTreeMap<u32, Offset> = delta.read.iter().map(|(p, (from, _))| (*p, *from)).collect();
    if moved.len() <= limits::SUMMARY_PARTITIONS_MAX {
        set("floe.offsets-from", offsets(&from));
        set("floe.offsets-to", offsets(&moved));
    }
    if delta.bad_records > 0 {
        set("floe.bad-records", delta.bad_records.to_string());
    }
    properties
}
