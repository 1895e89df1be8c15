//! Memory that is set aside before it is used: a number of bytes that many share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes, shared by all clones. Waiters are served in FIFO order.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    bytes: usize,
    /// The metric that shows the bytes taken.
    gauge: Option<&'static str>,
}

/// Bytes taken from a budget; dropping them gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`, of one byte at least.
    pub(crate) fn new(bytes: usize) -> Budget {
        let bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Budget { free: Arc::new(Semaphore::new(bytes)), bytes, gauge: None }
    }

    /// The same, with a metric that shows the bytes taken.
    pub(crate) fn measured(bytes: usize, gauge: &'static str) -> Budget {
        Budget { gauge: Some(gauge), ..Budget::new(bytes) }
    }

    /// Waits until `bytes` are free. A request for more than the whole budget gets the whole budget.
    pub(crate) async fn take(&self, bytes: usize) -> Held {
        let permit = self.free.clone().acquire_many_owned(self.permits(bytes)).await;
        self.measure();
        Held { permit: permit.expect("a budget is never closed") }
    }

    /// Takes half of the free bytes, but between `least` and `most`; waits for `least`.
    pub(crate) async fn share(&self, least: usize, most: usize) -> Held {
        let half = self.free.available_permits() / 2;
        self.take(most.min(half.max(least))).await
    }

    /// True when nothing is free. It is so while a request waits.
    pub(crate) fn exhausted(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Takes `bytes` if they are free now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Held> {
        let permit = self.free.clone().try_acquire_many_owned(self.permits(bytes)).ok()?;
        self.measure();
        Some(Held { permit })
    }

    fn measure(&self) {
        if let Some(gauge) = self.gauge {
            let taken = self.bytes - self.free.available_permits().min(self.bytes);
            metrics::gauge!(gauge).set(taken as f64);
        }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes)).expect("a budget has less than 4 GiB")
    }
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Keeps at most `bytes`, gives the rest back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        drop(self.permit.split(self.bytes().saturating_sub(bytes)));
    }
}
