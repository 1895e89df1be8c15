//! The memory and the deadline of one statement, as its functions see them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use floe_env::lock;
use floe_query::QueryError;

/// Tells why a statement has to end now, if it has to.
pub type Ended = Box<dyn Fn() -> Option<QueryError> + Send + Sync>;

/// Counts what the functions of one statement make, and ends them with the statement.
pub struct Meter {
    ended: Ended,
    pool: Arc<dyn MemoryPool>,
    places: AtomicU64,
    /// What the last call made, for each place of a call and each thread: a batch lives at least until the next batch
    /// has been made in its place.
    made: Mutex<HashMap<(Place, ThreadId), MemoryReservation>>,
}

/// The place of a function's call in a plan.
pub(super) type Place = u64;

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}

impl Meter {
    /// A meter that takes memory from `pool`, and asks `ended` between two slices of a call.
    pub fn new(pool: Arc<dyn MemoryPool>, ended: Ended) -> Meter {
        Meter { ended, pool, places: AtomicU64::new(0), made: Mutex::default() }
    }

    pub(super) fn place(&self) -> Place {
        self.places.fetch_add(1, Relaxed)
    }

    /// Checks that the statement may go on.
    pub(super) fn check(&self) -> Result<()> {
        (self.ended)().map_or(Ok(()), |error| Err(DataFusionError::External(Box::new(error))))
    }

    /// Counts the bytes of a call's result in place of those of the call before it.
    ///
    /// # Errors
    /// All statements together have not that much memory.
    pub(super) fn hold(&self, place: Place, name: &str, bytes: usize) -> Result<()> {
        let mut made = lock(&self.made);
        let new = || MemoryConsumer::new(format!("function {name}")).register(&self.pool);
        made.entry((place, std::thread::current().id())).or_insert_with(new).try_resize(bytes)
    }
}
