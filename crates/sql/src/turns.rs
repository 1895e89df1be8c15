//! Turns: a bounded number of statements runs at once, and the next one waits a while.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use floe_query::{Kind, QueryError};

use crate::limits::TURN_SECONDS_MAX;

/// The turns of an engine.
pub(crate) struct Turns {
    count: usize,
    free: Arc<Semaphore>,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Turns {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        Turns { count, free: Arc::new(Semaphore::new(count)) }
    }

    /// The next turn. It is free again when the permit is dropped.
    ///
    /// # Errors
    /// None became free in time.
    pub(crate) async fn next(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        match timeout(TURN_SECONDS_MAX, self.free.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => {
                let message = format!(
                    "{} statements are running, which is the limit, and none ended within {} s; try again",
                    self.count,
                    TURN_SECONDS_MAX.as_secs()
                );
                Err(QueryError::new(Kind::Busy, message))
            }
        }
    }

    /// Waits until nobody has a turn.
    pub(crate) async fn all(&self) {
        let all = u32::try_from(self.count).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.free.acquire_many(all).await;
    }
}
