//! The memory of a worker's statement, as the engine counts it. Beyond that the broker looks at what the process has.
//!
//! Operators that can spill share a part that the broker sets while the statement runs, so that a statement spills
//! before others need the memory, or before it takes too much itself. What cannot spill is refused only what could
//! never be there: if the broker sees that the process has too much, it ends the statement.

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
    can_spill: BTreeMap<usize, usize>,
    /// Bytes of the others.
    cannot: usize,
}

impl Held {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        match consumer.can_spill() {
            true => self.can_spill.entry(consumer.id()).or_default(),
            false => &mut self.cannot,
        }
    }

    fn all(&self) -> usize {
        self.can_spill.values().sum::<usize>() + self.cannot
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
        if consumer.can_spill() {
            lock(&self.held).can_spill.insert(consumer.id(), 0);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            lock(&self.held).can_spill.remove(&consumer.id());
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *lock(&self.held).of(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut held = lock(&self.held);
        let bytes = held.of(reservation.consumer());
        *bytes = bytes.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        let mut held = lock(&self.held);
        let size = match consumer.can_spill() {
            true => *held.of(consumer),
            false => reservation.size(),
        };
        let free = match consumer.can_spill() && size > 0 {
            // Each operator that can spill gets its share and no more, even if others are idle.
            true => {
                let all = self.before_spilling.load(Relaxed).saturating_sub(held.cannot);
                (all / held.can_spill.len().max(1)).saturating_sub(size)
            }
            // One that holds nothing has nothing to spill: its first batch may be larger than its share, and must be
            // held all the same. And the engine counts a buffer once for each batch that shares it, so its sum says
            // little of those that cannot spill. The broker sees what they hold.
            false => self.most,
        };
        if additional > free {
            return Err(refused(consumer.name(), size, additional, free, self.most));
        }
        *held.of(consumer) += additional;
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
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
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
        allowance.set_before_spilling(u64::MAX);
        let error = MemoryConsumer::new("window").register(&pool).try_grow(1_001).unwrap_err().to_string();
        assert!(error.contains("window") && error.contains("sql_memory_bytes"), "{error}");
    }
}
