//! The commit engine makes the documents of a table's next snapshot from its current state and new data files. It
//! writes nothing: the caller puts the files, then moves the pointer to the metadata document.
//!
//! An `append` adds one manifest and carries the others over; it merges some of them ([`plan`]). A `replace` puts data
//! files in the place of others that have the same rows, and an `overwrite` does so with rows that changed, or with new
//! rows besides. Both write the manifests of the removed files anew, all of them into one. Each commit expires the
//! oldest snapshots and names the files that no snapshot needs any more:
//!
//! - the manifest list of each expired snapshot;
//! - the manifests that its child replaced (the child's summary lists their numbers as `floe.dropped`);
//! - the data files that its child removed (the child's own manifests have them as deleted entries, and are named in
//!   their stead);
//! - the metadata documents that fell out of the metadata log.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    commit::Commit,
    error::Error,
    limits::{MANIFEST_ENTRIES_MAX, MANIFEST_MERGE},
    manifest::{DataFile, ManifestEntry, write_manifest},
    manifest_list::{ManifestFile, write_manifest_list},
    metadata::{MetadataLog, TableMetadata},
    schema::Schema,
    snapshot::{Operation, Snapshot, Summary},
};

/// The property of a summary with the numbers of the manifests that the snapshot does without.
const DROPPED: &str = "floe.dropped";

/// The kinds of documents that a commit makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// A manifest.
    Manifest,
    /// The manifests of a snapshot.
    ManifestList,
    /// A metadata document.
    Metadata,
}

/// The documents of one table, wherever they are. They are named by URLs.
pub trait Documents: Send + Sync {
    /// Why a document cannot be read or named.
    type Error: From<Error> + Send;

    /// The URL of a document that is about to be made. No two have the same.
    ///
    /// # Errors
    /// There are no names left.
    fn name(&mut self, kind: DocumentKind) -> Result<String, Self::Error>;

    /// A short name of a manifest, for summaries; none if it has none. It has no comma.
    fn short_name(&self, manifest: &str) -> Option<String>;

    /// The URL of the manifest with this short name; none if it is not one.
    fn of_short_name(&self, name: &str) -> Option<String>;

    /// The entries of a manifest, with what they inherit.
    fn entries(
        &self,
        manifest: &ManifestFile,
    ) -> impl Future<Output = Result<Vec<ManifestEntry>, Self::Error>> + Send;

    /// The manifests of a manifest list.
    fn manifests(&self, list: &str) -> impl Future<Output = Result<Vec<ManifestFile>, Self::Error>> + Send;

    /// Takes note of a manifest that was made. Entries without a sequence number have this one.
    fn made(&mut self, manifest: &str, entries: &[ManifestEntry], sequence_number: i64);
}

/// Sums over data files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sums {
    fn add(&mut self, file: &DataFile) {
        self.files += 1;
        self.rows += file.record_count;
        self.bytes += file.file_size_in_bytes;
    }

    fn without(self, other: Sums) -> Sums {
        let less = |total: u64, part: u64| total.checked_sub(part).expect("only live files are taken out");
        Sums {
            files: less(self.files, other.files),
            rows: less(self.rows, other.rows),
            bytes: less(self.bytes, other.bytes),
        }
    }

    fn in_order(self) -> [u64; 3] {
        [self.files, self.rows, self.bytes]
    }
}

/// A table as its last commit left it: what the next commit starts from.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The metadata document.
    pub metadata: &'a TableMetadata,
    /// Its URL.
    pub metadata_file: &'a str,
    /// The manifests of the current snapshot.
    pub manifests: &'a [ManifestFile],
    /// The live data files.
    pub totals: Sums,
}

/// A data file that a commit adds.
#[derive(Clone, Debug)]
pub struct Added {
    /// The file.
    pub file: DataFile,
    /// The sequence number of its youngest rows, if the table had them before.
    pub sequence_number: Option<i64>,
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

/// What a commit changes.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The schema after it. The table numbers it.
    pub schema: Schema,
    /// New data files.
    pub added: &'a [Added],
    /// URLs of data files to remove. The added ones hold their rows.
    pub removed: &'a BTreeSet<String>,
    /// Paths of manifests that are known to name none of the removed files.
    pub untouched: &'a BTreeSet<String>,
    /// Whether the added files have the rows of the removed ones and nothing else.
    pub same_rows: bool,
    /// More for the summary of the snapshot.
    pub summary: BTreeMap<String, String>,
    /// Properties that are set. The others stay.
    pub properties: BTreeMap<String, String>,
    /// Positive, because some engines take no other.
    pub snapshot_id: i64,
    /// Milliseconds since 1970 in UTC. It may be behind the last commit, when a clock was put right.
    pub time_ms: i64,
    /// What the table keeps.
    pub kept: Kept,
}

/// The snapshots that a table keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many, the current one included. One more counts as well.
    pub snapshots: usize,
    /// Those before this time go, in milliseconds since 1970 in UTC. The current one stays.
    pub since_ms: i64,
}

/// The next state of a table, and the files that must be in the store before it is committed.
#[derive(Clone, Debug)]
pub struct After {
    /// The metadata document.
    pub metadata: TableMetadata,
    /// Its URL.
    pub metadata_file: String,
    /// The URL of the manifest list.
    pub manifest_list: String,
    /// The manifests of the snapshot.
    pub manifests: Vec<ManifestFile>,
    /// The live data files.
    pub totals: Sums,
    /// URLs and bytes of the documents.
    pub files: Vec<(String, Vec<u8>)>,
    /// URLs of files that become garbage with the commit.
    pub garbage: Vec<String>,
    /// URLs of manifests that name data files which become garbage with the commit.
    pub removed: Vec<String>,
}

/// The state of a table after a change.
///
/// # Errors
/// A document cannot be read or made, or a file to remove is not in the table.
pub async fn commit<D: Documents>(
    documents: &mut D,
    before: Before<'_>,
    change: Change<'_>,
) -> Result<After, D::Error> {
    let metadata = before.metadata;
    let parent = metadata.current_snapshot().map(|parent| parent.snapshot_id);
    let schema = metadata.number(change.schema.clone());
    let sequence_number = metadata.next_sequence_number();
    let next = At { snapshot_id: change.snapshot_id, sequence_number, schema: &schema };
    let mut work =
        Work { documents, next, written: Vec::new(), dropped: Vec::new(), removed: Sums::default() };
    // Engines that travel by time tell snapshots by it, so each has a time of its own. The wall clock may be behind the
    // last commit, when it was ahead and was put right.
    let timestamp_ms = change.time_ms.max(metadata.last_updated_ms() + 1);

    let manifests = work.carry(before.manifests, &change).await?;
    let mut added = Sums::default();
    change.added.iter().for_each(|one| added.add(&one.file));
    let removed = work.removed;
    if change.same_rows {
        assert_eq!(added.rows, removed.rows, "a replacement changes no row");
    }
    let mut totals = before.totals;
    change.added.iter().for_each(|one| totals.add(&one.file));
    let totals = totals.without(removed);
    let manifest_list = work.documents.name(DocumentKind::ManifestList)?;
    let list = write_manifest_list(next.snapshot_id, parent, sequence_number, &manifests)?;
    work.written.push((manifest_list.clone(), list));

    let snapshot = Snapshot {
        snapshot_id: next.snapshot_id,
        parent_snapshot_id: parent,
        sequence_number,
        timestamp_ms,
        manifest_list: manifest_list.clone(),
        summary: summary(&change, (added, removed, totals), &work.dropped),
        schema_id: Some(schema.schema_id()),
    };
    // What a snapshot removed becomes garbage when its parent expires, and the snapshot has to be there to name it.
    let others = change.kept.snapshots.max(2) - 1;
    let snapshots = metadata.snapshots();
    let by_count = snapshots.len().saturating_sub(others);
    let expired = &snapshots[..by_count.max(by_age(metadata, change.kept.since_ms))];
    let (garbage, removed) = garbage_of(work.documents, metadata, expired).await?;
    let (metadata, forgotten) = metadata.commit(Commit {
        snapshot,
        schema: schema.clone(),
        expired: ids(expired),
        properties: change.properties.clone(),
        metadata_file: before.metadata_file.to_owned(),
    })?;
    let written = work.written;
    finish(
        documents,
        Ended { metadata, forgotten, manifest_list, manifests, totals, written, garbage, removed },
    )
}

/// The state of a table without the snapshots before this time; none if there are none. The current one stays.
///
/// # Errors
/// A document cannot be read or made.
pub async fn expire<D: Documents>(
    documents: &mut D,
    before: Before<'_>,
    since_ms: i64,
    time_ms: i64,
    properties: BTreeMap<String, String>,
) -> Result<Option<After>, D::Error> {
    let metadata = before.metadata;
    let Some(current) = metadata.current_snapshot() else { return Ok(None) };
    let expired = &metadata.snapshots()[..by_age(metadata, since_ms)];
    if expired.is_empty() {
        return Ok(None);
    }
    let manifest_list = current.manifest_list.clone();
    let (garbage, removed) = garbage_of(documents, metadata, expired).await?;
    let time_ms = time_ms.max(metadata.last_updated_ms() + 1);
    let (metadata, forgotten) =
        metadata.expire(&ids(expired), properties, before.metadata_file.to_owned(), time_ms)?;
    let (manifests, totals) = (before.manifests.to_vec(), before.totals);
    let written = Vec::new();
    let ended = Ended { metadata, forgotten, manifest_list, manifests, totals, written, garbage, removed };
    finish(documents, ended).map(Some)
}

/// A commit but for its metadata document.
struct Ended {
    metadata: TableMetadata,
    forgotten: Vec<MetadataLog>,
    manifest_list: String,
    manifests: Vec<ManifestFile>,
    totals: Sums,
    written: Vec<(String, Vec<u8>)>,
    garbage: Vec<String>,
    removed: Vec<String>,
}

fn finish<D: Documents>(documents: &mut D, ended: Ended) -> Result<After, D::Error> {
    let Ended { metadata, forgotten, manifest_list, manifests, totals, mut written, mut garbage, removed } =
        ended;
    garbage.extend(forgotten.into_iter().map(|log| log.metadata_file));
    let metadata_file = documents.name(DocumentKind::Metadata)?;
    written.push((metadata_file.clone(), metadata.file()?));
    Ok(After { metadata, metadata_file, manifest_list, manifests, totals, files: written, garbage, removed })
}

fn ids(snapshots: &[Snapshot]) -> BTreeSet<i64> {
    snapshots.iter().map(|snapshot| snapshot.snapshot_id).collect()
}

/// How many of the oldest snapshots are from before a time. The current one does not count.
fn by_age(metadata: &TableMetadata, since_ms: i64) -> usize {
    let current = metadata.current_snapshot().map(|current| current.snapshot_id);
    let is_old = |of: &&Snapshot| of.timestamp_ms < since_ms && Some(of.snapshot_id) != current;
    metadata.snapshots().iter().take_while(is_old).count()
}

fn summary(change: &Change<'_>, (added, removed, totals): (Sums, Sums, Sums), dropped: &[String]) -> Summary {
    let mut properties = change.summary.clone();
    let mut set = |key: &str, value: String| properties.insert(key.to_owned(), value);
    for (at, name) in ["data-files", "records", "files-size"].into_iter().enumerate() {
        if added.in_order()[at] > 0 {
            set(&format!("added-{name}"), added.in_order()[at].to_string());
        }
        if removed.in_order()[at] > 0 {
            let name = if name == "files-size" {
                "removed-files-size".to_owned()
            } else {
                format!("deleted-{name}")
            };
            set(&name, removed.in_order()[at].to_string());
        }
    }
    set("total-data-files", totals.files.to_string());
    set("total-records", totals.rows.to_string());
    set("total-files-size", totals.bytes.to_string());
    for name in ["total-delete-files", "total-position-deletes", "total-equality-deletes"] {
        set(name, "0".to_owned());
    }
    if !dropped.is_empty() {
        set(DROPPED, dropped.join(","));
    }
    let operation = match change.removed.is_empty() {
        true => Operation::Append,
        false if change.same_rows => Operation::Replace,
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
struct Work<'a, D> {
    documents: &'a mut D,
    next: At<'a>,
    written: Vec<(String, Vec<u8>)>,
    /// Short names of the manifests that the new snapshot does without, for its summary.
    dropped: Vec<String>,
    /// The data files that it removes.
    removed: Sums,
}

impl<D: Documents> Work<'_, D> {
    fn manifest(&mut self, entries: &[ManifestEntry]) -> Result<ManifestFile, D::Error> {
        let url = self.documents.name(DocumentKind::Manifest)?;
        let At { snapshot_id, sequence_number, schema } = self.next;
        let (manifest, bytes) = write_manifest(&url, snapshot_id, sequence_number, schema, entries)?;
        self.documents.made(&url, entries, sequence_number);
        self.written.push((url, bytes));
        Ok(manifest)
    }

    /// The manifests of the new snapshot: those before it, some of them merged and without the removed files, and one
    /// of the added files.
    async fn carry(
        &mut self,
        before: &[ManifestFile],
        change: &Change<'_>,
    ) -> Result<Vec<ManifestFile>, D::Error> {
        let (live, empty): (Vec<_>, Vec<_>) = before.iter().partition(|manifest| manifest.live() > 0);
        empty.iter().for_each(|manifest| self.drop_manifest(manifest));
        let added: Vec<ManifestEntry> =
            change.added.iter().map(|added| added.entry(self.next.snapshot_id)).collect();
        if !change.removed.is_empty() {
            return self.carry_without(&live, change, added).await;
        }
        let sizes: Vec<u64> = live.iter().map(|manifest| manifest.live()).collect();
        let groups = plan(&sizes);
        let merged: BTreeSet<usize> = groups.iter().flatten().copied().collect();
        let mut carried: Vec<ManifestFile> =
            (0..live.len()).filter(|at| !merged.contains(at)).map(|at| live[at].clone()).collect();
        for group in groups {
            let mut kept = Vec::new();
            for at in group {
                let entries = self.documents.entries(live[at]).await?;
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
        change: &Change<'_>,
        mut changes: Vec<ManifestEntry>,
    ) -> Result<Vec<ManifestFile>, D::Error> {
        let mut carried = Vec::new();
        let mut left = change.removed.len();
        for manifest in live {
            if change.untouched.contains(&manifest.manifest_path) {
                carried.push((*manifest).clone());
                continue;
            }
            let entries = self.documents.entries(manifest).await?;
            let gone = |entry: &ManifestEntry| change.removed.contains(&entry.data_file.file_path);
            if !entries.iter().any(|entry| entry.is_alive() && gone(entry)) {
                carried.push((*manifest).clone());
                continue;
            }
            for entry in entries.into_iter().filter(ManifestEntry::is_alive) {
                if gone(&entry) {
                    self.removed.add(&entry.data_file);
                    left -= 1;
                    changes.push(entry.removed(self.next.snapshot_id));
                } else {
                    changes.push(entry.kept());
                }
            }
            self.drop_manifest(manifest);
        }
        for part in changes.chunks(MANIFEST_ENTRIES_MAX as usize) {
            carried.push(self.manifest(part)?);
        }
        if left > 0 { Err(Error::NotLive(left).into()) } else { Ok(carried) }
    }

    fn drop_manifest(&mut self, manifest: &ManifestFile) {
        self.dropped.extend(self.documents.short_name(&manifest.manifest_path));
    }
}

/// What no snapshot needs when the `expired` ones, the oldest, are gone: URLs of files, and URLs of manifests that
/// name more files.
async fn garbage_of<D: Documents>(
    documents: &D,
    metadata: &TableMetadata,
    expired: &[Snapshot],
) -> Result<(Vec<String>, Vec<String>), D::Error> {
    let (mut garbage, mut removed) = (Vec::new(), Vec::new());
    for snapshot in expired {
        garbage.push(snapshot.manifest_list.clone());
        let id = Some(snapshot.snapshot_id);
        let child = metadata.snapshots().iter().find(|child| child.parent_snapshot_id == id);
        let Some(child) = child else { continue };
        let properties = &child.summary.additional_properties;
        let dropped = properties.get(DROPPED).map_or("", String::as_str).split(',');
        garbage.extend(dropped.filter_map(|name| documents.of_short_name(name)));
        if properties.contains_key("deleted-data-files") {
            removed.extend(removed_by(documents, child).await?);
        }
    }
    Ok((garbage, removed))
}

/// The snapshot's manifests that say which data files it removed.
async fn removed_by<D: Documents>(documents: &D, snapshot: &Snapshot) -> Result<Vec<String>, D::Error> {
    let manifests = documents.manifests(&snapshot.manifest_list).await?.into_iter();
    let own = manifests.filter(|m| m.added_snapshot_id == snapshot.snapshot_id && m.deleted_files_count > 0);
    Ok(own.map(|manifest| manifest.manifest_path).collect())
}

/// Which manifests are merged, given their numbers of entries: groups of indices.
///
/// Every commit adds one manifest. This keeps their number logarithmic: as soon as there are eight of about the same
/// size, they become one. So the entry of a file is rewritten about once for each power of eight in the number of the
/// table's files.
fn plan(entries: &[u64]) -> Vec<Vec<usize>> {
    let base = MANIFEST_MERGE as u64;
    let level = |entries: u64| entries.max(1).ilog(base);
    let mut groups: Vec<(u64, Vec<usize>)> =
        entries.iter().enumerate().map(|(at, n)| (*n, vec![at])).collect();
    let mut current = 0;
    while current <= level(MANIFEST_ENTRIES_MAX) {
        let fits = |(n, _): &(u64, Vec<usize>)| level(*n) == current && *n < MANIFEST_ENTRIES_MAX;
        if groups.iter().filter(|group| fits(group)).count() >= MANIFEST_MERGE {
            let (merged, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(fits);
            groups = rest;
            let total = merged.iter().map(|(n, _)| n).sum();
            groups.push((total, merged.into_iter().flat_map(|(_, at)| at).collect()));
        }
        current += 1;
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_manifests_stays_logarithmic() {
        let (mut manifests, mut written) = (Vec::<u64>::new(), 0);
        for commits in 1..=20_000_u64 {
            let groups = plan(&manifests);
            let gone: Vec<usize> = groups.iter().flatten().copied().collect();
            let merged = groups.iter().map(|group| group.iter().map(|at| manifests[*at]).sum::<u64>());
            let merged: Vec<u64> = merged.collect();
            written += merged.iter().sum::<u64>();
            manifests =
                (0..manifests.len()).filter(|at| !gone.contains(at)).map(|at| manifests[at]).collect();
            manifests.extend(merged);
            manifests.push(1);
            assert_eq!(manifests.iter().sum::<u64>(), commits, "no file is lost");
            assert!(manifests.len() <= 8 * 5 + 5, "{manifests:?}");
        }
        assert!(written <= 20_000 * 5, "an entry is written again once for each power of eight: {written}");
    }
}
