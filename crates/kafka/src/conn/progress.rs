//! The progress of a connection: what its reader and its writer know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the requests that were taken in and answered. Through it the reader waits for the writer.
#[derive(Default)]
pub(crate) struct Progress {
    taken: AtomicU64,
    answered: AtomicU64,
    /// The number of the last call, that is, of the last request that was not a produce.
    last_call: AtomicU64,
    moved: Notify,
    /// Set when the client has gone.
    gone: AtomicBool,
    leaving: Notify,
}

impl Progress {
    /// Whether requests are under way.
    pub(crate) fn busy(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, call: bool) {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if call {
            self.last_call.store(number, Ordering::Relaxed);
        }
    }

    pub(crate) fn answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.moved.notify_one();
    }

    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.leaving.notify_one();
    }

    pub(crate) fn gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Waits until the client has gone.
    pub(crate) async fn left(&self) {
        while !self.gone() {
            self.leaving.notified().await;
        }
    }

    /// Waits until every call is answered.
    pub(crate) async fn calls_answered(&self) {
        while self.answered.load(Ordering::Relaxed) < self.last_call.load(Ordering::Relaxed) {
            self.moved.notified().await;
        }
    }
}
