//! A map that is bounded in weight and evicts the least recently used entries first (LRU).

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// A bounded LRU map. Keys are ordered: callers can find a range of them, and the order of eviction does not depend on
/// a hash.
///
/// The caller gives the weights, mostly bytes of memory. An operation costs the logarithm of the number of entries.
#[derive(Debug)]
pub struct Lru<K, V> {
    weight_max: usize,
    weight: usize,
    entries: BTreeMap<K, Kept<V>>,
    /// Keys by the number of their last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    weight: usize,
    /// The number of its last use.
    used: u64,
}

impl<K: Ord + Clone, V> Lru<K, V> {
    /// An empty map whose entries weigh at most `weight_max` together.
    pub fn new(weight_max: usize) -> Lru<K, V> {
        Lru {
            weight_max,
            weight: 0,
            entries: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            evictions: 0,
        }
    }

    /// The value of `key`. This counts as a use.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let kept = self.entries.get_mut(key)?;
        self.uses += 1;
        let key = self.by_use.remove(&kept.used).expect("each entry has one last use");
        kept.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(&kept.value)
    }

    /// The value of `key`. This does not count as a use.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|kept| &kept.value)
    }

    /// Inserts an entry and evicts as many others as it needs. Returns the evicted values and the previous value of
    /// `key`, so that the caller can drop them after it has released its lock. A value heavier than the whole map is
    /// not kept.
    #[must_use = "drop what was taken out where that may take time"]
    pub fn insert(&mut self, key: K, value: V, weight: usize) -> Vec<V> {
        let mut out: Vec<V> = self.remove(&key).into_iter().collect();
        if weight > self.weight_max {
            out.push(value);
            return out;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, Kept { value, weight, used: self.uses });
        self.weight += weight;
        while self.weight > self.weight_max {
            let (_, oldest) = self.by_use.first_key_value().expect("entries make up the weight");
            let oldest = oldest.clone();
            out.extend(self.remove(&oldest));
            self.evictions += 1;
        }
        out
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let kept = self.entries.remove(key);
        if let Some(kept) = &kept {
            self.by_use.remove(&kept.used);
            self.weight -= kept.weight;
        }
        assert_eq!(self.entries.len(), self.by_use.len(), "each entry has one last use");
        kept.map(|kept| kept.value)
    }

    /// Removes the entries for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let mut weight = 0;
        self.entries.retain(|key, kept| {
            let stays = keep(key, &kept.value);
            weight += if stays { kept.weight } else { 0 };
            if !stays {
                self.by_use.remove(&kept.used);
            }
            stays
        });
        self.weight = weight;
    }

    /// The keys in `range`, in order.
    pub fn keys(&self, range: impl RangeBounds<K>) -> Vec<K> {
        self.entries.range(range).map(|(key, _)| key.clone()).collect()
    }

    /// The sum of the weights of all entries, at most `weight_max`.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The number of evicted entries so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lru: &Lru<u8, &str>) -> Vec<u8> {
        lru.keys(..)
    }

    #[test]
    fn the_least_recently_used_entries_leave_first() {
        let mut lru = Lru::new(10);
        assert!(lru.insert(1, "a", 4).is_empty());
        assert!(lru.insert(2, "b", 4).is_empty());
        assert_eq!(lru.get(&1), Some(&"a"));
        assert_eq!(lru.peek(&2), Some(&"b"), "looking is not using");
        assert_eq!(lru.insert(3, "c", 4), ["b"]);
        assert_eq!((keys(&lru), lru.weight(), lru.evictions()), (vec![1, 3], 8, 1));
        assert_eq!(lru.insert(4, "d", 10), ["a", "c"], "as many as it takes");
        assert_eq!((keys(&lru), lru.weight(), lru.evictions()), (vec![4], 10, 3));
    }

    #[test]
    fn what_is_replaced_or_too_heavy_comes_back_and_is_not_counted() {
        let mut lru = Lru::new(10);
        assert!(lru.insert(1, "a", 4).is_empty());
        assert_eq!(lru.insert(1, "b", 5), ["a"]);
        assert_eq!(lru.insert(1, "c", 11), ["b", "c"], "the old value is not the value any more");
        assert_eq!((keys(&lru), lru.weight(), lru.evictions()), (vec![], 0, 0));
        assert_eq!(lru.remove(&1), None);
    }

    #[test]
    fn ranges_and_conditions_select_by_key() {
        let mut lru = Lru::new(100);
        for (key, value) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            drop(lru.insert(key, value, 10));
        }
        assert_eq!(lru.keys(2..=3), [2, 3]);
        lru.retain(|key, value| key % 2 == 0 || *value == "a");
        assert_eq!((keys(&lru), lru.weight()), (vec![1, 2, 4], 30));
        drop(lru.insert(5, "e", 80));
        assert_eq!(keys(&lru), [2, 4, 5], "what is retained keeps its order of use");
    }
}
