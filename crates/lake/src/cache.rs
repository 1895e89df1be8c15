//! An LRU cache of the data files of tables: for each table, those of the newest snapshot that a query asked for.
//!
//! They are kept by manifest, because most manifests stay from one commit to the next. Documents never change, so an
//! entry never expires.

use std::{collections::BTreeMap, sync::Arc};

use floe_env::Lru;
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
}

impl CachedTable {
    pub(crate) fn new(list: String, number: u64, manifests: Manifests) -> CachedTable {
        let files: Vec<_> = manifests.values().flat_map(|files| files.iter().cloned()).collect();
        // The file, the counters of its `Arc`, and the pointers in the two lists that hold it.
        let of = |file: &Arc<DataFile>| size_of::<DataFile>() + file.key.len() + 16 + 2 * size_of::<usize>();
        let names: usize = manifests.keys().map(|name| name.len() + 100).sum();
        let bytes = files.iter().map(of).sum::<usize>() + names;
        CachedTable { list, number, manifests: Arc::new(manifests), files: Arc::new(files), bytes }
    }

    pub(crate) fn files(&self) -> Arc<Vec<Arc<DataFile>>> {
        Arc::clone(&self.files)
    }
}

/// The cache.
pub(crate) struct FileCache {
    tables: Lru<TopicId, CachedTable>,
}

impl FileCache {
    pub(crate) fn new(bytes_max: usize) -> FileCache {
        FileCache { tables: Lru::new(bytes_max) }
    }

    /// The files of the snapshot with this manifest list.
    pub(crate) fn files(&mut self, topic: TopicId, list: &str) -> Option<Arc<Vec<Arc<DataFile>>>> {
        self.tables.peek(&topic).filter(|table| table.list == list)?;
        self.tables.get(&topic).map(CachedTable::files)
    }

    /// The manifests of the table that are known.
    pub(crate) fn manifests(&self, topic: TopicId) -> Arc<Manifests> {
        self.tables.peek(&topic).map_or_else(Arc::default, |table| Arc::clone(&table.manifests))
    }

    /// Keeps a snapshot unless a newer one is there. Makes room by dropping tables that do not exist any more, then the
    /// least recently used. A table that is larger than the cache is not kept.
    pub(crate) fn insert(&mut self, topic: TopicId, table: CachedTable, exists: impl Fn(TopicId) -> bool) {
        if self.tables.peek(&topic).is_some_and(|known| known.number > table.number) {
            return;
        }
        self.tables.retain(|topic, _| exists(*topic));
        if exists(topic) {
            let bytes = table.bytes;
            drop(self.tables.insert(topic, table, bytes));
        }
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        gauge!("floe_lake_file_cache_bytes").set(self.tables.weight() as f64);
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
        assert_eq!(cache.tables.keys(..), [TopicId(1), TopicId(3)]);
        let both = snapshot(3, &[("a", 40), ("c", 60)]).bytes + hundred;
        assert_eq!(cache.tables.weight(), both);
        // A table that is gone, and one that is too large.
        cache.insert(TopicId(4), snapshot(1, &[("z", 300)]), |topic| topic != TopicId(3));
        assert_eq!(cache.tables.keys(..), [TopicId(1)]);
        assert!(cache.manifests(TopicId(4)).is_empty());
    }
}
