//! The commit engine makes the documents of a table's next snapshot from its current state and new data files. It
//! writes nothing: the caller puts the files, then moves the pointer in the journal.
//!
//! An `append` adds one manifest and carries the others over; it merges some of them ([`crate::manifest`]). A
//! `replace` puts data files in the place of others that have the same rows, and an `overwrite` does so with rows that
//! changed, or with new rows besides. Both write the manifests of the removed files anew, all of them into one. Each
//! commit expires the oldest snapshots and names the files that no snapshot needs any more:
//!
//! - the manifest list of each expired snapshot;
//! - the manifests that its child replaced (the child's summary lists their numbers as `floe.dropped`);
//! - the data files that its child removed (the child's own manifests have them as deleted entries, and are named in
//!   their stead);
//! - the metadata documents that fell out of the metadata log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use floe_env::Timestamp;
use floe_iceberg::{
    Commit, DataFile, ManifestEntry, ManifestFile, Operation, Schema, Snapshot, Summary, TableMetadata,
    read_manifest_list, write_manifest, write_manifest_list,
};
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
    limits, manifest,
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

/// A data file that a commit adds.
pub(crate) struct Added {
    pub(crate) file: DataFile,
    /// The sequence number of its youngest rows, if the table had them before.
    pub(crate) sequence_number: Option<i64>,
}

impl Added {
    fn entry(&self, snapshot_id: i64) -> ManifestEntry {
        let file = self.file.clone();
        match self.sequence_number {
            Some(number) => ManifestEntry::replacing(file, snapshot_id, number),
            None => ManifestEntry::added(file, snapshot_id),
        }
    }
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
    let parent = base.metadata.current_snapshot().map(|parent| parent.snapshot_id);
    let schema = base.metadata.number(convert::schema_with(delta.schema, &delta.old)?);
    let sequence_number = base.metadata.next_sequence_number();
    let next = At { snapshot_id: delta.snapshot_id, sequence_number, schema: &schema };
    let small = std::mem::take(&mut delta.small);
    let mut work = Work { files, numbers, next, written: Vec::new(), dropped: Vec::new(), small };
    // Engines that travel by time tell snapshots by it, so each has a time of its own. The wall clock may be behind the
    // last commit, when it was ahead and was put right.
    let timestamp_ms = delta.time.0.max(base.metadata.last_updated_ms() + 1);

    let mut totals = Totals::of(&base.table);
    totals.add(&delta.added);
    let manifests = work.carry(base, &delta, &mut totals).await?;
    if delta.same_rows {
        assert_eq!(totals.added[ROWS], totals.removed[ROWS], "a replacement changes no row");
    }
    let list_key = files.key(FileKind::ManifestList, work.numbers.take()?);
    let list = write_manifest_list(next.snapshot_id, parent, sequence_number, &manifests)?;
    work.written.push((list_key.clone(), list.into()));

    let snapshot = Snapshot {
        snapshot_id: next.snapshot_id,
        parent_snapshot_id: parent,
        sequence_number,
        timestamp_ms,
        manifest_list: files.url(&list_key),
        summary: summary(&delta, &totals, &work.dropped),
        schema_id: Some(schema.schema_id()),
    };
    let expired = expired(&base.metadata, delta.snapshots_kept);
    let (mut garbage, removed) = work.garbage_of(&base.metadata, expired).await?;
    let (metadata, forgotten) = base.metadata.commit(Commit {
        snapshot,
        schema: schema.clone(),
        expired: expired.iter().map(|snapshot| snapshot.snapshot_id).collect(),
        properties: properties(&delta),
        metadata_file: files.url(&base.table.metadata),
    })?;
    garbage.extend(forgotten.iter().filter_map(|log| files.key_of_url(&log.metadata_file)));

    let metadata_key = files.key(FileKind::Metadata, work.numbers.take()?);
    work.written.push((metadata_key.clone(), Bytes::from(metadata.file()?)));
    let table = Table {
        metadata: metadata_key,
        manifest_list: Some(list_key),
        snapshot_id: Some(delta.snapshot_id),
        snapshots: base.table.snapshots + 1,
        next_file: work.numbers.next,
        files: totals.files,
        rows: totals.rows,
        bytes: totals.bytes,
        bad_records: base.table.bad_records + delta.bad_records,
        ..base.table.clone()
    };
    let (mut small, files) = (work.small, work.written);
    small.keep(&manifests);
    Ok(Next { base: Base { table, metadata, manifests }, small, files, garbage, removed })
}

/// The snapshots that expire when a commit adds one, oldest first.
fn expired(metadata: &TableMetadata, kept: usize) -> &[Snapshot] {
    let snapshots = metadata.snapshots();
    // What a snapshot removed becomes garbage when its parent expires, and the snapshot has to be there to name it.
    let others = kept.max(2) - 1;
    &snapshots[..snapshots.len().saturating_sub(others)]
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
        set("commit.manifest.min-count-to-merge", limits::MANIFEST_MERGE.to_string()),
    ])
}

/// The offsets of partitions as JSON.
fn offsets(progress: &BTreeMap<u32, Offset>) -> String {
    let offsets: BTreeMap<String, i64> =
        progress.iter().map(|(p, offset)| (p.to_string(), offset.0)).collect();
    json!(offsets).to_string()
}

/// Where rows are in the sums of [`Totals`].
const ROWS: usize = 1;

/// Sums over the live data files, and what this commit adds and removes: files, rows, bytes.
struct Totals {
    files: u64,
    rows: u64,
    bytes: u64,
    added: [u64; 3],
    removed: [u64; 3],
}

impl Totals {
    fn of(table: &Table) -> Totals {
        Totals { files: table.files, rows: table.rows, bytes: table.bytes, added: [0; 3], removed: [0; 3] }
    }

    fn add(&mut self, files: &[Added]) {
        for Added { file, .. } in files {
            let one = [1, file.record_count, file.file_size_in_bytes];
            self.added = [0, 1, 2].map(|at| self.added[at] + one[at]);
            (self.files, self.rows, self.bytes) = (self.files + 1, self.rows + one[1], self.bytes + one[2]);
        }
    }

    fn remove(&mut self, file: &DataFile) {
        let one = [1, file.record_count, file.file_size_in_bytes];
        self.removed = [0, 1, 2].map(|at| self.removed[at] + one[at]);
        let less = |total: u64, part: u64| total.checked_sub(part).expect("only live files are taken out");
        (self.files, self.rows, self.bytes) =
            (less(self.files, 1), less(self.rows, one[1]), less(self.bytes, one[2]));
    }
}

fn summary(delta: &Delta<'_>, totals: &Totals, dropped: &[String]) -> Summary {
    let mut properties = BTreeMap::new();
    let mut set = |key: &str, value: String| properties.insert(key.to_owned(), value);
    for (at, name) in ["data-files", "records", "files-size"].into_iter().enumerate() {
        if totals.added[at] > 0 {
            set(&format!("added-{name}"), totals.added[at].to_string());
        }
        if totals.removed[at] > 0 {
            let name = if name == "files-size" {
                "removed-files-size".to_owned()
            } else {
                format!("deleted-{name}")
            };
            set(&name, totals.removed[at].to_string());
        }
    }
    set("total-data-files", totals.files.to_string());
    set("total-records", totals.rows.to_string());
    set("total-files-size", totals.bytes.to_string());
    for name in ["total-delete-files", "total-position-deletes", "total-equality-deletes"] {
        set(name, "0".to_owned());
    }
    let moved: BTreeMap<u32, Offset> = delta.read.iter().map(|(p, (_, to))| (*p, *to)).collect();
    let from: BTreeMap<u32, Offset> = delta.read.iter().map(|(p, (from, _))| (*p, *from)).collect();
    if moved.len() <= limits::SUMMARY_PARTITIONS_MAX {
        set("floe.offsets-from", offsets(&from));
        set("floe.offsets-to", offsets(&moved));
    }
    if delta.bad_records > 0 {
        set("floe.bad-records", delta.bad_records.to_string());
    }
    if !dropped.is_empty() {
        set("floe.dropped", dropped.join(","));
    }
    let operation = match delta.removed.is_empty() {
        true => Operation::Append,
        false if delta.same_rows => Operation::Replace,
        false => Operation::Overwrite,
    };
    Summary { operation, additional_properties: properties }
}

/// Where the next snapshot is in the history of the table.
#[derive(Clone, Copy)]
struct At<'a> {
    snapshot_id: i64,
    sequence_number: i64,
    schema: &'a Schema,
}

/// A commit in the making.
struct Work<'a> {
    files: &'a Files,
    numbers: &'a mut Numbers,
    next: At<'a>,
    written: Vec<(String, Bytes)>,
    /// Numbers of the manifests that the new snapshot does without, for its summary.
    dropped: Vec<String>,
    small: SmallFiles,
}

impl Work<'_> {
    fn manifest(&mut self, entries: &[ManifestEntry]) -> Result<ManifestFile, TableError> {
        let key = self.files.key(FileKind::Manifest, self.numbers.take()?);
        let At { snapshot_id, sequence_number, schema } = self.next;
        let url = self.files.url(&key);
        let (manifest, bytes) = write_manifest(&url, snapshot_id, sequence_number, schema, entries)?;
        self.small.note(&url, entries, sequence_number);
        self.written.push((key, bytes.into()));
        Ok(manifest)
    }

    /// The manifests of the new snapshot: those of the base, some of them merged and without the removed files, and one
    /// of the added files.
    async fn carry(
        &mut self,
        base: &Base,
        delta: &Delta<'_>,
        totals: &mut Totals,
    ) -> Result<Vec<ManifestFile>, TableError> {
        let (live, empty): (Vec<_>, Vec<_>) = base.manifests.iter().partition(|m| manifest::live(m) > 0);
        empty.iter().for_each(|manifest| self.drop_manifest(manifest));
        let added: Vec<ManifestEntry> =
            delta.added.iter().map(|added| added.entry(self.next.snapshot_id)).collect();
        if !delta.removed.is_empty() {
            return self.carry_without(&live, delta, added, totals).await;
        }
        let sizes: Vec<u64> = live.iter().map(|manifest| manifest::live(manifest)).collect();
        let groups = manifest::plan(&sizes);
        let merged: BTreeSet<usize> = groups.iter().flatten().copied().collect();
        let mut carried: Vec<ManifestFile> =
            (0..live.len()).filter(|at| !merged.contains(at)).map(|at| live[at].clone()).collect();
        for group in groups {
            let mut kept = Vec::new();
            for at in group {
                let entries = self.files.manifest(live[at]).await?;
                kept.extend(entries.into_iter().filter(ManifestEntry::is_alive).map(ManifestEntry::kept));
                self.drop_manifest(live[at]);
            }
            carried.push(self.manifest(&kept)?);
        }
        if !added.is_empty() {
            carried.push(self.manifest(&added)?);
        }
        Ok(carried)
    }

    /// The manifests that name removed files become one, with what is left of them and the added files. So a manifest
    /// goes soon after most of its files have gone.
    async fn carry_without(
        &mut self,
        live: &[&ManifestFile],
        delta: &Delta<'_>,
        mut changes: Vec<ManifestEntry>,
        totals: &mut Totals,
    ) -> Result<Vec<ManifestFile>, TableError> {
        let mut carried = Vec::new();
        let mut left = delta.removed.len();
        for manifest in live {
            if delta.untouched.contains(&manifest.manifest_path) {
                carried.push((*manifest).clone());
                continue;
            }
            let entries = self.files.manifest(manifest).await?;
            let gone = |entry: &ManifestEntry| delta.removed.contains(&entry.data_file.file_path);
            if !entries.iter().any(|entry| entry.is_alive() && gone(entry)) {
                carried.push((*manifest).clone());
                continue;
            }
            for entry in entries.into_iter().filter(ManifestEntry::is_alive) {
                if gone(&entry) {
                    totals.remove(&entry.data_file);
                    left -= 1;
                    changes.push(entry.removed(self.next.snapshot_id));
                } else {
                    changes.push(entry.kept());
                }
            }
            self.drop_manifest(manifest);
        }
        for part in changes.chunks(limits::MANIFEST_ENTRIES_MAX as usize) {
            carried.push(self.manifest(part)?);
        }
        if left > 0 { Err(TableError::NotLive(left)) } else { Ok(carried) }
    }

    fn drop_manifest(&mut self, manifest: &ManifestFile) {
        let key = self.files.key_of_url(&manifest.manifest_path);
        let key = key.expect("a table's manifests are in its folder");
        let name = key.rsplit('/').next().unwrap_or_default();
        self.dropped.extend(layout::number_of_manifest(name).map(|number| number.to_string()));
    }

    /// What no snapshot needs when the `expired` ones, the oldest, are gone: keys of files, and keys of manifests that
    /// name more files.
    async fn garbage_of(
        &self,
        metadata: &TableMetadata,
        expired: &[Snapshot],
    ) -> Result<(Vec<String>, Vec<String>), TableError> {
        let (mut garbage, mut removed) = (Vec::new(), Vec::new());
        for snapshot in expired {
            garbage.extend(self.files.key_of_url(&snapshot.manifest_list));
            let id = Some(snapshot.snapshot_id);
            let child = metadata.snapshots().iter().find(|child| child.parent_snapshot_id == id);
            let Some(child) = child else { continue };
            let properties = &child.summary.additional_properties;
            let dropped = properties.get("floe.dropped").map_or("", String::as_str).split(',');
            for number in dropped.filter_map(|number| number.parse().ok()) {
                garbage.push(self.files.key(FileKind::Manifest, number));
            }
            if properties.contains_key("deleted-data-files") {
                removed.extend(self.removed_by(child).await?);
            }
        }
        Ok((garbage, removed))
    }

    /// The snapshot's manifests that say which data files it removed.
    async fn removed_by(&self, snapshot: &Snapshot) -> Result<Vec<String>, TableError> {
        let list = self.files.get_url(&snapshot.manifest_list).await?;
        let manifests = read_manifest_list(&list)?.into_iter();
        let own =
            manifests.filter(|m| m.added_snapshot_id == snapshot.snapshot_id && m.deleted_files_count > 0);
        Ok(own.filter_map(|manifest| self.files.key_of_url(&manifest.manifest_path)).collect())
    }
}
