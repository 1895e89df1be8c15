//! What was read of tables: the data files of the newest snapshot of each that was asked for, by manifest, since from
//! one commit to the next most manifests stay. Documents never change, so only room limits what is kept.

use std::{collections::BTreeMap, sync::Arc};

use floe_log::TopicId;
use metrics::gauge;

use crate::table::DataFile;

/// The live files that each manifest names, by its URL.
pub(crate) type Manifests = BTreeMap<String, Arc<[Arc<DataFile>]>>;

/// One snapshot of a table.
pub(crate) struct Cached {
    /// The key of its manifest list.
    list: String,
    /// Counts the table's snapshots: a statement may be at an older one than another before it.
    number: u64,
    manifests: Arc<Manifests>,
    files: Arc<Vec<Arc<DataFile>>>,
    bytes: usize,
    /// When it was asked for last; see [`Cache::asked`].
    asked: u64,
}

impl Cached {
    pub(crate) fn new(list: String, number: u64, manifests: Manifests) -> Cached {
        let files: Vec<_> = manifests.values().flat_map(|files| files.iter().cloned()).collect();
        // A file, what counts its owners, and the two lists that hold it.
        let of = |file: &Arc<DataFile>| size_of::<DataFile>() + file.key.len() + 16 + 2 * size_of::<usize>();
        let names: usize = manifests.keys().map(|name| name.len() + 100).sum();
        let bytes = files.iter().map(of).sum::<usize>() + names;
        Cached { list, number, manifests: Arc::new(manifests), files: Arc::new(files), bytes, asked: 0 }
    }

    pub(crate) fn files(&self) -> Arc<Vec<Arc<DataFile>>> {
        Arc::clone(&self.files)
    }
}

/// The tables that were read.
pub(crate) struct Cache {
    tables: BTreeMap<TopicId, Cached>,
    bytes: usize,
    bytes_max: usize,
    /// Counts the questions.
    asked: u64,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Cache {
        Cache { tables: BTreeMap::new(), bytes: 0, bytes_max, asked: 0 }
    }

    /// The files of the snapshot with this manifest list.
    pub(crate) fn files(&mut self, topic: TopicId, list: &str) -> Option<Arc<Vec<Arc<DataFile>>>> {
        self.asked += 1;
        let table = self.tables.get_mut(&topic).filter(|table| table.list == list)?;
        table.asked = self.asked;
        Some(table.files())
    }

    /// The manifests of the table that are known.
    pub(crate) fn manifests(&self, topic: TopicId) -> Arc<Manifests> {
        self.tables.get(&topic).map_or_else(Arc::default, |table| Arc::clone(&table.manifests))
    }

    /// Keeps a snapshot unless a newer one is there. Tables that are gone are dropped, then those that were not asked
    /// for for longest, until there is room; a table that needs more alone is not kept.
    pub(crate) fn keep(&mut self, topic: TopicId, table: Cached, exists: impl Fn(TopicId) -> bool) {
        if self.tables.get(&topic).is_some_and(|known| known.number > table.number) {
            return;
        }
        self.tables.insert(topic, Cached { asked: self.asked, ..table });
        self.tables.retain(|topic, table| exists(*topic) && table.bytes <= self.bytes_max);
        self.bytes = self.tables.values().map(|table| table.bytes).sum();
        while self.bytes > self.bytes_max {
            let oldest = self.tables.iter().min_by_key(|(_, table)| table.asked).map(|(topic, _)| *topic);
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

    fn snapshot(number: u64, manifests: &[(&str, usize)]) -> Cached {
        let file = |n: usize| Arc::new(DataFile { key: format!("{n:050}"), bytes: 1, records: 1 });
        let manifests =
            manifests.iter().map(|(name, files)| ((*name).to_owned(), (0..*files).map(file).collect()));
        Cached::new(format!("l{number}"), number, manifests.collect())
    }

    #[test]
    fn the_newest_snapshots_of_living_tables_are_kept_within_the_limit() {
        let hundred = snapshot(0, &[("a", 100)]).bytes;
        assert!(hundred > 100 * 100, "a file takes more than its key");
        let mut cache = Cache::new(hundred * 5 / 2);
        let all = |_| true;
        let known = |cache: &mut Cache, topic: u64, list: &str| {
            cache.files(TopicId(topic), list).map(|files| files.len())
        };
        cache.keep(TopicId(1), snapshot(1, &[("a", 40)]), all);
        cache.keep(TopicId(1), snapshot(3, &[("a", 40), ("c", 60)]), all);
        assert_eq!(cache.manifests(TopicId(1)).keys().collect::<Vec<_>>(), ["a", "c"]);
        cache.keep(TopicId(1), snapshot(2, &[("b", 10)]), all);
        assert_eq!((known(&mut cache, 1, "l3"), known(&mut cache, 1, "l2")), (Some(100), None));
        // What was not asked for for longest makes room.
        cache.keep(TopicId(2), snapshot(1, &[("x", 100)]), all);
        assert_eq!(known(&mut cache, 1, "l3"), Some(100));
        cache.keep(TopicId(3), snapshot(1, &[("y", 100)]), all);
        assert_eq!([1, 2, 3].map(|topic| cache.tables.contains_key(&TopicId(topic))), [true, false, true]);
        assert_eq!(cache.bytes, cache.tables.values().map(|table| table.bytes).sum::<usize>());
        // A table that is gone, and one that is too large.
        cache.keep(TopicId(4), snapshot(1, &[("z", 300)]), |topic| topic != TopicId(3));
        assert_eq!(cache.tables.keys().collect::<Vec<_>>(), [&TopicId(1)]);
        assert!(cache.manifests(TopicId(4)).is_empty());
    }
}
