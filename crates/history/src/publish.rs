//! Publishes the parts as an Iceberg table: makes the documents of the next snapshot with the commit engine of
//! `floe_iceberg`, puts them, and moves the table's record in the map.
//!
//! A round publishes after each step, so that a step that wrote a part is an `append` and one that merged parts is a
//! `replace`. After a failure several steps may come in one snapshot, an `overwrite`. Rows of commits never change.
//!
//! Snapshots expire by number and by age. A part that was replaced stays in the store while a snapshot has it
//! ([`Table::oldest`]). Documents that are damaged are left behind: the table begins anew from the parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use floe_env::{Env, Timestamp};
use floe_iceberg::engine::{self, Added, After, Before, Change, DocumentKind, Documents, Kept, Sums};
use floe_iceberg::limits::MANIFEST_ENTRIES_MAX;
use floe_iceberg::{ManifestEntry, ManifestFile, TableMetadata, read_entries, read_manifest_list};
use floe_meta::{Lsn, Snapshot};
use floe_store::Store;

use crate::command::{BegunDocuments, Published};
use crate::error::HistoryError;
use crate::map::{self, Document, FOLDER, Form, PlacedPart, State, Table, document_key};
use crate::table;

/// What is due of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A snapshot with the parts as they are.
    Snapshot,
    /// Old snapshots are too old.
    Expiry,
}

/// What the table keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeps {
    pub(crate) snapshots: usize,
    pub(crate) age_ms: u64,
}

impl Keeps {
    fn since_ms(self, now: Timestamp) -> i64 {
        now.0.saturating_sub_unsigned(self.age_ms)
    }
}

/// What is due of a table, given the parts.
pub(crate) fn due(table: Option<&Table>, parts: &[PlacedPart], keeps: Keeps, now: Timestamp) -> Option<Due> {
    let end = parts.last().map_or(Lsn(0), |last| last.part.last);
    match table {
        None => (!parts.is_empty()).then_some(Due::Snapshot),
        // A part that is written moves the end. If only parts were merged, there are fewer.
        Some(table) if (table.end, table.files) != (end, parts.len() as u64) => Some(Due::Snapshot),
        Some(table) => {
            let is_old = table.oldest_time.0 < keeps.since_ms(now);
            (is_old && table.kept > 1).then_some(Due::Expiry)
        }
    }
}

/// How many manifests and manifest lists a commit of the engine may make.
pub(crate) fn documents_max(table: Option<&Table>, parts: &[PlacedPart]) -> u64 {
    let entries = table.map_or(0, |table| table.files) + parts.len() as u64;
    // A list, a manifest for each power of the fan-out, and those that begin where another is full.
    8 + entries / MANIFEST_ENTRIES_MAX
}

/// The newest state of the table, as the process that writes it knows it.
#[derive(Debug)]
pub(crate) struct Known {
    number: u64,
    metadata: TableMetadata,
    manifests: Vec<ManifestFile>,
    /// URLs of live data files, by manifest.
    live: BTreeMap<String, BTreeSet<String>>,
}

/// Reads the table as its record points to it.
pub(crate) async fn read(
    store: &Arc<dyn Store>,
    snapshot: &Snapshot,
    table: &Table,
) -> Result<Known, HistoryError> {
    let document = |number: u64| snapshot.get::<Document>(&number);
    let metadata = table::read_metadata(store, table.metadata, document(table.metadata)?).await?;
    let (key, bytes) = table::read(store, table.list, document(table.list)?).await?;
    let manifests = read_manifest_list(&bytes).map_err(|error| table::damaged(&key, error.to_string()))?;
    let numbers = Numbers::of(snapshot)?;
    let mut live = BTreeMap::new();
    for manifest in &manifests {
        let entries = numbers.entries(store, manifest).await?;
        live.insert(manifest.manifest_path.clone(), living(&entries));
    }
    Ok(Known { number: table.metadata, metadata, manifests, live })
}

impl Known {
    /// Whether this is the state that a record points to.
    pub(crate) fn is_of(&self, table: &Table) -> bool {
        self.number == table.metadata
    }
}

fn living(entries: &[ManifestEntry]) -> BTreeSet<String> {
    let live = entries.iter().filter(|entry| entry.is_alive());
    live.map(|entry| entry.data_file.file_path.clone()).collect()
}

/// The documents that the map knows, by key.
struct Numbers(BTreeMap<String, (u64, Document)>);

impl Numbers {
    fn of(snapshot: &Snapshot) -> Result<Numbers, HistoryError> {
        let all = map::documents(snapshot)?.into_iter();
        Ok(Numbers(all.map(|(number, of)| (document_key(of.form, number), (number, of))).collect()))
    }

    async fn read(&self, store: &Arc<dyn Store>, url: &str) -> Result<Bytes, HistoryError> {
        let found = table::key_of_url(url).and_then(|key| self.0.get(key));
        let (number, document) =
            found.ok_or_else(|| table::damaged(url, "it is no document of the table".to_owned()))?;
        Ok(table::read(store, *number, Some(*document)).await?.1)
    }

    async fn entries(
        &self,
        store: &Arc<dyn Store>,
        manifest: &ManifestFile,
    ) -> Result<Vec<ManifestEntry>, HistoryError> {
        let bytes = self.read(store, &manifest.manifest_path).await?;
        read_entries(&bytes, manifest)
            .map_err(|error| table::damaged(&manifest.manifest_path, error.to_string()))
    }
}

/// The folder of the documents, as the engine sees it.
struct Folder<'a> {
    store: &'a Arc<dyn Store>,
    numbers: Numbers,
    begun: &'a mut BegunDocuments,
    live: BTreeMap<String, BTreeSet<String>>,
}

impl Folder<'_> {
    fn url(&self, form: Form, number: u64) -> String {
        self.store.url(&document_key(form, number))
    }
}

impl Documents for Folder<'_> {
    type Error = HistoryError;

    fn name(&mut self, kind: DocumentKind) -> Result<String, HistoryError> {
        let (form, numbers) = match kind {
            DocumentKind::Metadata => (Form::Metadata, &mut self.begun.metadata),
            DocumentKind::Manifest | DocumentKind::ManifestList => (Form::Avro, &mut self.begun.avro),
        };
        let number = numbers.pop().ok_or(HistoryError::OutOfNumbers)?;
        self.begun.used.push((form, number));
        Ok(self.url(form, number))
    }

    fn short_name(&self, manifest: &str) -> Option<String> {
        let name = manifest.rsplit('/').next()?.strip_suffix(".avro")?;
        Some(name.to_owned())
    }

    fn of_short_name(&self, name: &str) -> Option<String> {
        Some(self.url(Form::Avro, u64::from_str_radix(name, 16).ok()?))
    }

    async fn entries(&self, manifest: &ManifestFile) -> Result<Vec<ManifestEntry>, HistoryError> {
        self.numbers.entries(self.store, manifest).await
    }

    async fn manifests(&self, list: &str) -> Result<Vec<ManifestFile>, HistoryError> {
        let bytes = self.numbers.read(self.store, list).await?;
        read_manifest_list(&bytes).map_err(|error| table::damaged(list, error.to_string()))
    }

    fn made(&mut self, manifest: &str, entries: &[ManifestEntry], _: i64) {
        self.live.insert(manifest.to_owned(), living(entries));
    }
}

/// The next state of a table: what is put, the command that publishes it, and what the process knows then.
pub(crate) struct Next {
    /// Keys and bytes.
    pub(crate) files: Vec<(String, Bytes)>,
    pub(crate) published: Published,
    pub(crate) known: Known,
}

/// What a snapshot is made of.
pub(crate) struct Of<'a> {
    pub(crate) env: &'a Env,
    pub(crate) store: &'a Arc<dyn Store>,
    /// The map as of which the parts are.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) parts: &'a [PlacedPart],
    pub(crate) table: Option<Table>,
    pub(crate) keeps: Keeps,
}

/// The next state of the table. None if nothing is due after all.
pub(crate) async fn prepare(
    of: Of<'_>,
    due: Due,
    known: Option<&Known>,
    begun: &mut BegunDocuments,
) -> Result<Option<Next>, HistoryError> {
    let (location, now) = (of.store.url(FOLDER), of.env.now());
    // No two snapshots have the same metadata document, so its number is the id of both. It is positive.
    let id = begun.metadata.last().copied().ok_or(HistoryError::OutOfNumbers)?;
    let numbers = Numbers::of(of.snapshot)?;
    let live = known.map_or_else(BTreeMap::new, |known| known.live.clone());
    let mut folder = Folder { store: of.store, numbers, begun, live };
    let properties = table::properties(of.keeps.snapshots, of.keeps.age_ms);
    let mut first = None;
    let (metadata, metadata_file, manifests, totals) = match (known, of.table) {
        (Some(known), Some(table)) => {
            let totals = Sums { files: table.files, rows: table.rows, bytes: table.bytes };
            let url = folder.url(Form::Metadata, table.metadata);
            (known.metadata.clone(), url, known.manifests.clone(), totals)
        }
        _ => {
            let uuid = uuid::Builder::from_custom_bytes((1 << 64 | u128::from(id)).to_be_bytes()).into_uuid();
            let metadata =
                TableMetadata::new(uuid, &location, table::schema()?, 0, properties.clone(), now.0);
            let url = folder.name(DocumentKind::Metadata)?;
            first = Some((url.clone(), metadata.file()?));
            (metadata, url, Vec::new(), Sums::default())
        }
    };
    let before = Before { metadata: &metadata, metadata_file: &metadata_file, manifests: &manifests, totals };
    let kept = Kept { snapshots: of.keeps.snapshots, since_ms: of.keeps.since_ms(now) };
    let after = match due {
        Due::Expiry => engine::expire(&mut folder, before, kept.since_ms, now.0, properties).await?,
        Due::Snapshot => Some(snapshot(&of, &mut folder, before, kept, properties, id).await?),
    };
    let Some(after) = after else { return Ok(None) };
    let Folder { numbers, live, .. } = folder;
    Ok(Some(ended(&of, due, known.is_some(), (numbers, live, begun), first, after)))
}

/// The table with the parts as they are.
async fn snapshot(
    of: &Of<'_>,
    folder: &mut Folder<'_>,
    before: Before<'_>,
    kept: Kept,
    properties: BTreeMap<String, String>,
    id: u64,
) -> Result<After, HistoryError> {
    let wanted: BTreeMap<String, &PlacedPart> =
        of.parts.iter().map(|placed| (of.store.url(&placed.key()), placed)).collect();
    let had: BTreeSet<&String> = folder.live.values().flatten().collect();
    let added: Vec<Added> = wanted
        .iter()
        .filter(|(url, _)| !had.contains(url))
        .map(|(url, placed)| {
            let file = table::data_file(placed, url.clone());
            Added { file, sequence_number: None }
        })
        .collect();
    let removed: BTreeSet<String> =
        had.into_iter().filter(|url| !wanted.contains_key(*url)).cloned().collect();
    let names_none = |files: &BTreeSet<String>| files.is_disjoint(&removed);
    let untouched = folder.live.iter().filter(|(_, files)| names_none(files));
    let untouched: BTreeSet<String> = untouched.map(|(manifest, _)| manifest.clone()).collect();
    let rows: u64 = added.iter().map(|one| one.file.record_count).sum();
    let end = of.parts.last().map_or(Lsn(0), |last| last.part.last);
    let before_rows = before.totals.rows;
    let all_rows: u64 = of.parts.iter().map(|placed| placed.part.rows).sum();
    let same_rows = !removed.is_empty() && rows > 0 && all_rows == before_rows;
    // Merged rows are as old as they were: a reader that takes what is new since a snapshot need not read them again.
    let sequence_number = same_rows.then(|| before.metadata.next_sequence_number() - 1);
    let added: Vec<Added> = added.into_iter().map(|one| Added { sequence_number, ..one }).collect();
    let change = Change {
        schema: table::schema()?,
        added: &added,
        removed: &removed,
        untouched: &untouched,
        same_rows,
        summary: table::summary(of.snapshot.lsn(), end),
        properties,
        snapshot_id: id.cast_signed(),
        time_ms: of.env.now().0,
        kept,
    };
    engine::commit(folder, before, change).await
}

fn ended(
    of: &Of<'_>,
    due: Due,
    had: bool,
    (numbers, mut live, begun): (Numbers, BTreeMap<String, BTreeSet<String>>, &BegunDocuments),
    first: Option<(String, Vec<u8>)>,
    after: After,
) -> Next {
    let key = |url: &str| table::key_of_url(url).expect("the engine names what it was given").to_owned();
    let files: Vec<(String, Bytes)> =
        first.into_iter().chain(after.files).map(|(url, bytes)| (key(&url), bytes.into())).collect();
    let used: BTreeMap<String, (u64, Form)> =
        begun.used.iter().map(|(form, number)| (document_key(*form, *number), (*number, *form))).collect();
    let put = files.iter().map(|(key, bytes)| {
        let (number, form) = used[key];
        let document =
            Document { form, bytes: bytes.len() as u64, crc: crc32c::crc32c(bytes), state: State::Live };
        (number, document)
    });
    let garbage: BTreeSet<String> =
        after.garbage.iter().filter_map(|url| table::key_of_url(url)).map(str::to_owned).collect();
    let is_live = |document: &Document| document.state == State::Live;
    // A table that begins anew leaves all documents behind.
    let waste =
        numbers.0.iter().filter(|(key, (_, document))| is_live(document) && (garbage.contains(*key) || !had));
    let number = |url: &str| {
        let key = key(url);
        used.get(&key).map(|found| found.0).or_else(|| numbers.0.get(&key).map(|found| found.0))
    };
    let metadata = number(&after.metadata_file).expect("it was just named");
    let (oldest, oldest_time) = table::oldest(&after.metadata);
    let before = of.table.filter(|_| had);
    let table = Table {
        uuid: after.metadata.uuid().as_u128(),
        metadata,
        list: number(&after.manifest_list).expect("the map knows the current manifest list"),
        kept: after.metadata.snapshots().len() as u64,
        snapshots: before.map_or(0, |table| table.snapshots) + u64::from(due == Due::Snapshot),
        end: of.parts.last().map_or(Lsn(0), |last| last.part.last),
        files: after.totals.files,
        rows: after.totals.rows,
        bytes: after.totals.bytes,
        oldest,
        // That of the commit.
        moved: Timestamp(0),
        oldest_time: Timestamp(oldest_time),
    };
    let published = Published {
        from: of.table.map(|table| table.metadata),
        parts: of.parts.len(),
        table,
        put: put.collect(),
        waste: waste.map(|(_, (number, _))| *number).collect(),
    };
    let kept: BTreeSet<&String> = after.manifests.iter().map(|manifest| &manifest.manifest_path).collect();
    live.retain(|manifest, _| kept.contains(manifest));
    let (metadata_document, manifests) = (after.metadata, after.manifests);
    let known = Known { number: metadata, metadata: metadata_document, manifests, live };
    Next { files, published, known }
}
