//! An LRU cache of the data files of tables: for each table, those of the newest snapshot that a query asked for.
//!
//! They are kept by manifest, because most manifests stay from one commit to the next. Documents never change, so an
//! entry never expires.

use std::{collections::BTreeMap, sync::Arc};

use floe_log::TopicId;
use metrics::gauge;

use crate::table::DataFile;

/// The live files that each manifest names, by its URL.
pub(crate) type Manifests = BTreeMap<String, Arc<[Arc<DataFile>]>>;

/// One snapshot of a table.
pub(crate) struct CachedTable {
    /// The key of its manifest list.
    list: String,
    /// How many snapshots the table had. A statement may read an older one than a statement before it.
    number: u64,
    manifests: Arc<Manifests>,
    files: Arc<Vec<Arc<DataFile>>>,
    bytes: usize,
    /// The value of [`FileCache::uses`] at its last use.
    used: u64,
}

impl CachedTable {
    pub(crate) fn new(list: String, number: u64, manifests: Manifests) -> CachedTable {
        let files: Vec<_> = manifests.values().flat_map(|files| files.iter().cloned()).collect();
        // The file, the counters of its `Arc`, and the pointers in the two lists that hold it.
        let of = |file: &Arc<DataFile>| size_of::<DataFile>() + file.key.len() + 16 + 2 * size_of::<usize>();
        let names: usize = manifests.keys().map(|name| name.len() + 100).sum();
        let bytes = files.iter().map(of).sum::<usize>() + names;
        CachedTable { list, number, manifests: Arc::new(manifests), files: Arc::new(files), bytes, used: 0 }
    }

    pub(crate) fn files(&self) -> Arc<Vec<Arc<DataFile>>> {
        Arc::clone(&self.files)
    }
}

/// The cache.
pub(crate) struct FileCache {
    tables: BTreeMap<TopicId, CachedTable>,
    bytes: usize,
    bytes_max: usize,
    /// Counts the look-ups.
    uses: u64,
}

impl FileCache {
    pub(crate) fn new(bytes_max: usize) -> FileCache {
        FileCache { tables: BTreeMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    /// The files of the snapshot with this manifest list.
    pub(crate) fn files(&mut self, topic: TopicId, list: &str) -> Option<Arc<Vec<Arc<DataFile>>>> {
        self.uses += 1;
        let table = self.tables.get_mut(&topic).filter(|table| table.list == list)?;
        table.used = self.uses;
        Some(table.files())
    }

    /// The manifests of the table that are known.
    pub(crate) fn manifests(&self, topic: TopicId) -> Arc<Manifests> {
        self.tables.get(&topic).map_or_else(Arc::default, |table| Arc::clone(&table.manifests))
    }

    /// Keeps a snapshot unless a newer one is there. Makes room by dropping tables that do not exist any more, then the
    /// least recently used. A table that is larger than the cache is not kept.
    pub(crate) fn insert(&mut self, topic: TopicId, table: CachedTable, exists: impl Fn(TopicId) -> bool) {
        if self.tables.get(&topic).is_some_and(|known| known.number > table.number) {
            return;
        }
        self.tables.insert(topic, CachedTable { used: self.uses, ..table });
        self.tables.retain(|topic, table| exists(*topic) && table.bytes <= self.bytes_max);
        self.bytes = self.tables.values().map(|table| table.bytes).sum();
        while self.bytes > self.bytes_max {
            let oldest = self.tables.iter().min_by_key(|(_, table)| table.used).map(|(topic, _)| *topic);
            let dropped = oldest.and_then(|topic| self.tables.remove(&topic));
            self.bytes -= dropped.expect("what is counted is there").bytes;
        }
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        gauge!("floe_lake_file_cache_bytes").set(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u64, manifests: &[(&str, usize)]) -> CachedTable {
        let file = |n: usize| Arc::new(DataFile { key: format!("{n:050}"), bytes: 1, records: 1 });
        let manifests =
            manifests.iter().map(|(name, files)| ((*name).to_owned(), (0..*files).map(file).collect()));
        CachedTable::new(format!("l{number}"), number, manifests.collect())
    }

    #[test]
    fn the_newest_snapshots_of_living_tables_are_kept_within_the_limit() {
        let hundred = snapshot(0, &[("a", 100)]).bytes;
        assert!(hundred > 100 * 100, "a file takes more than its key");
        let mut cache = FileCache::new(hundred * 5 / 2);
        let all = |_| true;
        let known = |cache: &mut FileCache, topic: u64, list: &str| {
            cache.files(TopicId(topic), list).map(|files| files.len())
        };
        cache.insert(TopicId(1), snapshot(1, &[("a", 40)]), all);
        cache.insert(TopicId(1), snapshot(3, &[("a", 40), ("c", 60)]), all);
        assert_eq!(cache.manifests(TopicId(1)).keys().collect::<Vec<_>>(), ["a", "c"]);
        cache.insert(TopicId(1), snapshot(2, &[("b", 10)]), all);
        assert_eq!((known(&mut cache, 1, "l3"), known(&mut cache, 1, "l2")), (Some(100), None));
        // The least recently used makes room.
        cache.insert(TopicId(2), snapshot(1, &[("x", 100)]), all);
        assert_eq!(known(&mut cache, 1, "l3"), Some(100));
        cache.insert(TopicId(3), snapshot(1, &[("y", 100)]), all);
        assert_eq!([1, 2, 3].map(|topic| cache.tables.contains_key(&TopicId(topic))), [true, false, true]);
        assert_eq!(cache.bytes, cache.tables.values().map(|table| table.bytes).sum::<usize>());
        // A table that is gone, and one that is too large.
        cache.insert(TopicId(4), snapshot(1, &[("z", 300)]), |topic| topic != TopicId(3));
        assert_eq!(cache.tables.keys().collect::<Vec<_>>(), [&TopicId(1)]);
        assert!(cache.manifests(TopicId(4)).is_empty());
    }
}
