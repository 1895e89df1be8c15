//! The memory of a worker's statement, as the engine counts it. Beyond that the broker looks at what the process has.
//!
//! Operators that can spill share a part that the broker sets while the statement runs, so that a statement spills
//! before others need the memory, or before it takes too much itself. A sort that merges what it has spilled reads as
//! many runs at once as it gets memory for, and makes them narrower if that is not enough for two. It has a quarter of
//! a share for that: what a run really takes was measured to be more than twice what the engine counts, because its
//! batches lie in buffers of up to twice their size. What else cannot spill is refused only what could never be there:
//! if the broker sees that the process has too much, it ends the statement.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use floe_env::lock;

/// The engine's memory in a worker.
#[derive(Debug)]
pub(super) struct Allowance {
    most: usize,
    before_spilling: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes of each operator that can spill, by the number that the engine gives it. An operator may hold them in
    /// several reservations.
    can_spill: BTreeMap<usize, Spills>,
    /// The last sort of each partition that the engine has made.
    sorts: BTreeMap<String, usize>,
    /// The merge of each sort.
    merges: BTreeMap<usize, Merge>,
    /// Bytes of the others.
    cannot: usize,
    /// The most that one operator that can spill has held since there was none, nor a merge.
    most_of_one: usize,
}

#[derive(Debug, Default)]
struct Spills {
    bytes: usize,
    /// How often it had nothing, and then something. What has spilled begins anew.
    begun: usize,
}

#[derive(Debug, Default)]
struct Merge {
    bytes: usize,
    /// The number of its sort.
    sort: Option<usize>,
    /// Whether the sort is gone and has spilled all that it read. Until then a merge is of what the sort has in memory.
    of_spilled: bool,
    /// The largest share of an operator since it began. It reads as many runs as fit into that, and can read no fewer
    /// when others need memory later.
    share: usize,
}

/// How the engine names the exchange between threads. One that spills may wait for itself for ever: both sides of it
/// were seen to stand still, with files that nobody reads.
const REPARTITION: &str = "RepartitionExec[";
/// How the engine names a sort.
const SORT: &str = "ExternalSorter[";
/// How the engine names the merge of a sort.
const MERGE: &str = "ExternalSorterMerge[";

/// What a consumer can do when it is refused memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Spill,
    /// It merges fewer runs at once. But if it merges what it has in memory, it fails.
    MergeLess,
    Fail,
}

impl Way {
    fn of(consumer: &MemoryConsumer) -> Way {
        match consumer.can_spill() {
            true if consumer.name().starts_with(REPARTITION) => Way::Fail,
            true => Way::Spill,
            false if consumer.name().starts_with(MERGE) => Way::MergeLess,
            false => Way::Fail,
        }
    }
}

impl Held {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        match Way::of(consumer) {
            Way::Spill => &mut self.can_spill.entry(consumer.id()).or_default().bytes,
            Way::MergeLess => &mut self.merges.entry(consumer.id()).or_default().bytes,
            Way::Fail => &mut self.cannot,
        }
    }

    fn all(&self) -> usize {
        let merges = self.merges.values().map(|merge| merge.bytes);
        self.can_spill.values().map(|operator| operator.bytes).chain(merges).sum::<usize>() + self.cannot
    }

    fn add(&mut self, consumer: &MemoryConsumer, additional: usize) {
        let bytes = self.of(consumer);
        *bytes += additional;
        let bytes = *bytes;
        if Way::of(consumer) == Way::Spill {
            self.most_of_one = self.most_of_one.max(bytes);
            if additional > 0 && bytes == additional {
                self.can_spill.entry(consumer.id()).or_default().begun += 1;
            }
        }
    }

    /// What a merge may have.
    fn most_of_merge(&mut self, consumer: &MemoryConsumer, share: usize) -> usize {
        let merge = self.merges.entry(consumer.id()).or_default();
        merge.share = merge.share.max(share);
        let share = merge.share.max(self.most_of_one);
        match merge.of_spilled {
            true => share / 4,
            // A sort counts what it holds twice. So a merge of all that a sort has in memory, rows and their keys,
            // takes about what the sort has counted.
            false => share / 4 * 5,
        }
    }

    /// What one operator that can spill may have if all of them may have `all`. A sort is gone when its merge begins.
    fn share(&self, all: usize) -> usize {
        all.saturating_sub(self.cannot) / self.can_spill.len().max(self.merges.len()).max(1)
    }
}

impl Allowance {
    /// At most `most` bytes.
    pub(super) fn new(most: usize) -> Allowance {
        Allowance { most, before_spilling: AtomicUsize::new(most), held: Mutex::default() }
    }

    /// Sets what operators that can spill may have before they do.
    pub(super) fn set_before_spilling(&self, bytes: u64) {
        self.before_spilling.store(usize::try_from(bytes).unwrap_or(usize::MAX).min(self.most), Relaxed);
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allowance({})", self.most)
    }
}

impl MemoryPool for Allowance {
    fn name(&self) -> &'static str {
        "allowance"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let mut held = lock(&self.held);
        held.add(consumer, 0);
        if let Some(partition) = consumer.name().strip_prefix(SORT) {
            held.sorts.insert(partition.to_owned(), consumer.id());
        } else if let Some(partition) = consumer.name().strip_prefix(MERGE) {
            // A sort registers itself, and then its merge.
            let sort = held.sorts.get(partition).copied();
            held.merges.entry(consumer.id()).or_default().sort = sort;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut held = lock(&self.held);
        if held.can_spill.remove(&consumer.id()).is_some_and(|operator| operator.begun > 1) {
            let merges = held.merges.values_mut().filter(|merge| merge.sort == Some(consumer.id()));
            merges.for_each(|merge| merge.of_spilled = true);
        }
        held.merges.remove(&consumer.id());
        if held.can_spill.is_empty() && held.merges.is_empty() {
            held.most_of_one = 0;
            held.sorts.clear();
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        lock(&self.held).add(reservation.consumer(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut held = lock(&self.held);
        let bytes = held.of(reservation.consumer());
        *bytes = bytes.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        let mut held = lock(&self.held);
        let way = Way::of(consumer);
        let size = match way {
            Way::Spill | Way::MergeLess => *held.of(consumer),
            Way::Fail => reservation.size(),
        };
        let share = match (way, held.share(self.before_spilling.load(Relaxed))) {
            (Way::MergeLess, share) => held.most_of_merge(consumer, share),
            (_, share) => share,
        };
        let free = match way {
            // One that holds nothing has nothing to spill: its first batch may be larger than its share, and must be
            // held all the same. And the engine counts a buffer once for each batch that shares it, so its sum says
            // little of those that cannot spill. The broker sees what they hold.
            Way::Fail => self.most,
            _ if size == 0 => self.most,
            // Each operator that can spill gets its share and no more, even if others are idle.
            Way::Spill if consumer.name().starts_with(SORT) => share.saturating_sub(size),
            // A group that merges what it has spilled takes all that it gets for that, and makes its groups beside it.
            Way::Spill => share.saturating_sub(reservation.size()).min((share / 2 * 3).saturating_sub(size)),
            Way::MergeLess => share.saturating_sub(size),
        };
        if additional > free {
            return Err(refused(consumer.name(), size, additional, free, self.most));
        }
        held.add(consumer, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        lock(&self.held).all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}

fn refused(name: &str, size: usize, additional: usize, free: usize, most: usize) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "{name} has {size} bytes of memory and needs {additional} more, of which {free} are free; all statements \
         together may have {most} (sql_memory_bytes)"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn operators_that_can_spill_share_what_the_broker_allows() {
        let allowance = Arc::new(Allowance::new(1_000));
        let pool: Arc<dyn MemoryPool> = allowance.clone();
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&pool);
        let join = MemoryConsumer::new("join").register(&pool);
        allowance.set_before_spilling(400);
        assert!(sort.try_grow(300).is_ok() && sort.try_grow(101).is_err());
        let more = sort.new_empty();
        assert!(more.try_grow(101).is_err() && more.try_grow(100).is_ok(), "it is the same operator's");
        drop(more);
        // Another one halves the share, and what cannot spill comes first.
        let group = MemoryConsumer::new("group").with_can_spill(true).register(&pool);
        assert!(sort.try_grow(1).is_err() && group.try_grow(150).is_ok());
        assert!(group.try_grow(51).is_err() && group.try_grow(50).is_ok());
        assert!(join.try_grow(1_001).is_err() && join.try_grow(500).is_ok());
        assert_eq!(pool.reserved(), 1_000);
        drop(group);
        assert!(sort.try_grow(1).is_err(), "the join has all that was allowed");
        sort.shrink(300);
        assert!(sort.try_grow(1_001).is_err() && sort.try_grow(500).is_ok(), "the first batch may be large");
        assert!(sort.try_grow(1).is_err());
        sort.shrink(200);
        drop(join);
        assert!(sort.try_grow(100).is_ok());
        drop(sort);
        assert_eq!(pool.reserved(), 0);
        // A merge of what a sort has in memory has a quarter more than a share. The first run is always read.
        allowance.set_before_spilling(400);
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&pool);
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        let other = MemoryConsumer::new("ExternalSorterMerge[1]").register(&pool);
        assert!(sort.try_grow(200).is_ok() && sort.try_grow(1).is_err());
        assert!(merge.try_grow(200).is_ok() && merge.try_grow(51).is_err() && merge.try_grow(50).is_ok());
        assert!(other.try_grow(900).is_ok() && other.try_grow(1).is_err(), "each is told the truth");
        merge.free();
        assert!(sort.try_grow(1).is_err());
        assert!(merge.try_grow(375).is_ok() && merge.try_grow(1).is_err(), "what the sort had");
        merge.free();
        drop(sort);
        assert!(merge.try_grow(250).is_ok() && merge.try_grow(1).is_err(), "it has not spilled");
        drop((merge, other));
        // A merge of what a sort has spilled has a quarter, and goes on with the runs that it reads.
        let sorts = || {
            let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&pool);
            (sort, MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool))
        };
        allowance.set_before_spilling(400);
        let ((sort, merge), (other, merge_of_other)) = (sorts(), sorts());
        assert!(sort.try_grow(200).is_ok() && other.try_grow(200).is_ok());
        sort.free();
        assert!(sort.try_grow(100).is_ok(), "it begins anew");
        assert!(merge.try_grow(200).is_ok() && merge.try_grow(50).is_ok());
        merge.free();
        drop((sort, other));
        assert!(merge.try_grow(20).is_ok() && merge.try_grow(31).is_err() && merge.try_grow(30).is_ok());
        allowance.set_before_spilling(100);
        assert!(merge_of_other.try_grow(200).is_ok() && merge_of_other.try_grow(50).is_ok());
        drop((merge, merge_of_other));
        allowance.set_before_spilling(400);
        // What merges and groups at once gets half a share more, but no part of it more than a share.
        let group = MemoryConsumer::new("group").with_can_spill(true).register(&pool);
        let merge = group.new_empty();
        assert!(merge.try_grow(400).is_ok() && merge.try_grow(1).is_err());
        assert!(group.try_grow(201).is_err() && group.try_grow(200).is_ok());
        drop((group, merge));
        allowance.set_before_spilling(u64::MAX);
        let error = MemoryConsumer::new("window").register(&pool).try_grow(1_001).unwrap_err().to_string();
        assert!(error.contains("window") && error.contains("sql_memory_bytes"), "{error}");
    }
}
