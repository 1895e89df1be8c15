//! The memory of a worker's statement, as the engine counts it. Beyond that the broker looks at what the process has.
//!
//! Operators that can spill share a part that the broker sets while the statement runs, so that a statement spills
//! before others need the memory, or before it takes too much itself. What cannot spill may take all the memory of
//! statements: if the broker sees that it is too much, it ends the statement.

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
    /// Operators that can spill.
    spilling: usize,
    /// Bytes of theirs.
    can_spill: usize,
    /// Bytes of the others.
    cannot: usize,
}

impl Held {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() { &mut self.can_spill } else { &mut self.cannot }
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
            lock(&self.held).spilling += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            lock(&self.held).spilling -= 1;
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
        let (consumer, size) = (reservation.consumer(), reservation.size());
        let mut held = lock(&self.held);
        let free = self.most.saturating_sub(held.can_spill).saturating_sub(held.cannot);
        let free = match consumer.can_spill() {
            true => {
                let all = self.before_spilling.load(Relaxed).saturating_sub(held.cannot);
                // Each operator gets its share and no more, even if others are idle.
                free.min((all / held.spilling.max(1)).saturating_sub(size))
            }
            false => free,
        };
        if additional > free {
            return Err(refused(consumer.name(), size, additional, free, self.most));
        }
        *held.of(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        let held = lock(&self.held);
        held.can_spill + held.cannot
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
        assert!(sort.try_grow(1_000).is_ok() && join.try_grow(1).is_err());
        sort.shrink(1_000);
        allowance.set_before_spilling(400);
        assert!(sort.try_grow(401).is_err() && sort.try_grow(300).is_ok());
        // Another one halves the share, and what cannot spill comes first.
        let group = MemoryConsumer::new("group").with_can_spill(true).register(&pool);
        assert!(sort.try_grow(1).is_err() && group.try_grow(201).is_err() && group.try_grow(200).is_ok());
        assert!(join.try_grow(501).is_err() && join.try_grow(500).is_ok());
        assert_eq!(pool.reserved(), 1_000);
        drop(group);
        assert!(sort.try_grow(1).is_err(), "the join has all that was allowed");
        drop(join);
        assert!(sort.try_grow(100).is_ok());
        drop(sort);
        assert_eq!(pool.reserved(), 0);
        allowance.set_before_spilling(u64::MAX);
        let error = MemoryConsumer::new("window").register(&pool).try_grow(1_001).unwrap_err().to_string();
        assert!(error.contains("window") && error.contains("sql_memory_bytes"), "{error}");
    }
}
