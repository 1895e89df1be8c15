//! Memory that the front sets aside before it is used. Produces take theirs from the log
//! ([`floe_log::Log::reserve`]); other requests have a budget of their own, because they may wait for records or
//! for other members for long, and nothing that waits may hold producers up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes, shared by all clones. Who waits is served in order.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    bytes: usize,
    /// The metric that shows what is taken.
    gauge: Option<&'static str>,
}

/// A part of a budget; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of at least one byte.
    pub(crate) fn new(bytes: usize) -> Budget {
        let bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Budget { free: Arc::new(Semaphore::new(bytes)), bytes, gauge: None }
    }

    /// A budget of which a metric shows what is taken.
    pub(crate) fn measured(bytes: usize, gauge: &'static str) -> Budget {
        Budget { gauge: Some(gauge), ..Budget::new(bytes) }
    }

    /// Waits until so many bytes are free. More than there are gets all.
    pub(crate) async fn take(&self, bytes: usize) -> Held {
        let permit = self.free.clone().acquire_many_owned(self.permits(bytes)).await;
        self.measure();
        Held { permit: permit.expect("a budget is never closed") }
    }

    /// Between `least` and `most` bytes, as the half of what is free allows; waits for the least.
    pub(crate) async fn share(&self, least: usize, most: usize) -> Held {
        let half = self.free.available_permits() / 2;
        self.take(most.min(half.max(least))).await
    }

    /// True when nothing is free, as while anybody waits.
    pub(crate) fn exhausted(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// So many bytes if they are free now.
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
    /// How much it is.
    pub(crate) fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Gives back what goes beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        drop(self.permit.split(self.bytes().saturating_sub(bytes)));
    }
}
