//! The small files of a table: those that the job of `merge.rs` may merge.
//!
//! The owner keeps them in memory, by manifest. It knows those of a manifest that it wrote itself. The others are
//! looked through once, by a piece of the job, because a table that nobody merges needs none of this.

use std::{collections::BTreeMap, sync::Arc};

use floe_iceberg::{ManifestEntry, ManifestFile};

/// A live data file that is small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SmallFile {
    /// The sequence number of its youngest rows. Then by URL, so that files are in the order of the stream.
    pub(crate) sequence_number: i64,
    pub(crate) url: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// The small files of a table, as far as its manifests are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct SmallFiles {
    /// A file with fewer bytes is small.
    below: u64,
    /// By path of the manifest; one without small files is there, too.
    manifests: BTreeMap<String, Arc<[SmallFile]>>,
}

impl SmallFiles {
    /// The same, if files are still small below so many bytes. Nothing is known otherwise.
    pub(crate) fn below(&self, bytes: u64) -> SmallFiles {
        if self.below == bytes {
            return self.clone();
        }
        SmallFiles { below: bytes, manifests: BTreeMap::new() }
    }

    /// The same without what is known.
    pub(crate) fn unlooked(&self) -> SmallFiles {
        SmallFiles { below: self.below, manifests: BTreeMap::new() }
    }

    /// Takes in a manifest. Entries without a sequence number have this one.
    pub(crate) fn note(&mut self, path: &str, entries: &[ManifestEntry], sequence_number: i64) {
        let small = entries.iter().filter(|entry| entry.is_alive()).filter_map(|entry| {
            let file = &entry.data_file;
            (file.file_size_in_bytes < self.below).then(|| SmallFile {
                sequence_number: entry.sequence_number.unwrap_or(sequence_number),
                url: file.file_path.clone(),
                bytes: file.file_size_in_bytes,
                rows: file.record_count,
            })
        });
        self.manifests.insert(path.to_owned(), small.collect());
    }

    /// Takes in what others know, if they count the same files as small.
    pub(crate) fn learn(&mut self, other: SmallFiles) {
        if self.below == other.below {
            self.manifests.extend(other.manifests);
        }
    }

    /// Forgets all manifests but these.
    pub(crate) fn keep(&mut self, manifests: &[ManifestFile]) {
        let mut known = std::mem::take(&mut self.manifests);
        let kept = manifests.iter().filter_map(|manifest| known.remove_entry(&manifest.manifest_path));
        self.manifests = kept.collect();
    }

    /// The manifests among these that have live files and are not known.
    pub(crate) fn unknown(&self, manifests: &[ManifestFile]) -> Vec<ManifestFile> {
        let is_unknown = |m: &&ManifestFile| m.live() > 0 && !self.manifests.contains_key(&m.manifest_path);
        manifests.iter().filter(is_unknown).cloned().collect()
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.manifests.values().map(|small| small.len()).sum()
    }

    /// The known ones, in the order of the stream.
    pub(crate) fn in_stream_order(&self) -> Vec<SmallFile> {
        let mut files: Vec<SmallFile> =
            self.manifests.values().flat_map(|small| small.iter().cloned()).collect();
        files.sort();
        files
    }

    /// Whether all of these are known and live, and the paths of the manifests that name none of them.
    pub(crate) fn look_up(&self, files: &[SmallFile]) -> Option<Vec<String>> {
        let mut found = 0;
        let mut others = Vec::new();
        for (path, small) in &self.manifests {
            let named = small.iter().filter(|file| files.binary_search(file).is_ok()).count();
            if named == 0 {
                others.push(path.clone());
            }
            found += named;
        }
        (found == files.len()).then_some(others)
    }
}
