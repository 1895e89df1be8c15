//! The memory of the records that the views of one broker hold until their commits.
//!
//! A view waits for a portion before it reads, so that many views can wait for the store at a time. If its records need
//! more and there is none, it commits what it has.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::PORTIONS_PER_COMMIT;

/// The memory that the views share.
#[derive(Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    bytes: usize,
    portion: usize,
}

/// The memory of one commit.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Memory for so many full commits.
    pub(crate) fn new(commits: usize, commit_bytes: usize) -> Memory {
        // One take is a 32-bit number.
        let commit_bytes = commit_bytes.clamp(1, u32::MAX as usize);
        let bytes = commit_bytes.saturating_mul(commits.max(1)).min(Semaphore::MAX_PERMITS);
        let portion = commit_bytes.div_ceil(PORTIONS_PER_COMMIT);
        Memory { free: Arc::new(Semaphore::new(bytes)), bytes, portion }
    }

    /// Waits for a portion, in FIFO order.
    pub(crate) async fn share(self: &Arc<Memory>) -> Share {
        let portion = permits(self.portion);
        let permit = Arc::clone(&self.free).acquire_many_owned(portion).await;
        self.measure();
        Share { memory: Arc::clone(self), permit: Some(permit.expect("the memory is never closed")) }
    }

    fn measure(&self) {
        metrics::gauge!("floe_view_memory_bytes").set((self.bytes - self.free.available_permits()) as f64);
    }
}

impl Share {
    /// Takes more until it covers `bytes`. `false` if there is not enough.
    pub(crate) fn cover(&mut self, bytes: usize) -> bool {
        let permit = self.permit.as_mut().expect("a share holds its memory until it is dropped");
        let Some(missing) = bytes.checked_sub(permit.num_permits()).filter(|missing| *missing > 0) else {
            return true;
        };
        let more = Arc::clone(&self.memory.free).try_acquire_many_owned(permits(missing));
        let covered = more.map(|more| permit.merge(more)).is_ok();
        self.memory.measure();
        covered
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.memory.measure();
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn portions_are_small_and_together_no_more_than_full_commits() {
        let memory = Arc::new(Memory::new(2, 80));
        let mut shares = Vec::new();
        for _ in 0..2 * PORTIONS_PER_COMMIT {
            shares.push(memory.share().now_or_never().expect("there is room"));
        }
        assert!(memory.share().now_or_never().is_none(), "all is taken");
        let mut first = shares.remove(0);
        assert!(first.cover(10) && !first.cover(11));
        drop(shares);
        assert!(first.cover(160) && !first.cover(161), "one view may use what no other needs");
        drop(first);
        assert!(memory.share().now_or_never().is_some());
    }
}
