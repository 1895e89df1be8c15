//! Whether a ring is crowded: what rides with commits stays until it is merged, and merging may be slower than clients.

use floe_env::lock;

use super::state::Core;
use crate::limits::{RING_CROWD_LOOK, RING_CROWDED_SHARE};

impl Core {
    /// Whether the room that is left, or that an image would give back, is less than a share of the whole.
    pub(super) fn crowded(&self) -> bool {
        let now = self.env.monotonic();
        if let Some((at, crowded)) = *lock(&self.crowd)
            && now.duration_since(at) < RING_CROWD_LOOK
        {
            return crowded;
        }
        let crowded = self.bytes_left() < self.bytes_max / RING_CROWDED_SHARE;
        metrics::gauge!("floe_meta_ring_crowded").set(f64::from(crowded));
        *lock(&self.crowd) = Some((now, crowded));
        crowded
    }

    /// Whether attachments should leave: the ring is crowded, or its disk is short and gets the files back.
    pub(super) fn pressed(&self) -> bool {
        // A disk that does not say how full it is says so when it is written.
        self.crowded() || self.is_short().unwrap_or(false)
    }

    /// Bytes that further attachments may take: in files without any, and in those that the ring may still get, but for
    /// the last one, which is for commits that bring none.
    fn bytes_left(&self) -> u64 {
        let grows = self.bytes_max.saturating_sub(self.file_bytes());
        let ready: u64 = lock(&self.ready).iter().map(|file| file.header.capacity).sum();
        let index = lock(&self.index);
        let free = index.files.values().filter(|file| file.live() == 0).map(|file| file.header.capacity);
        (grows + ready + free.sum::<u64>()).saturating_sub(self.options.file_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use floe_env::{Env, SimulatedDisk};

    use super::*;
    use crate::journal::ring::{RingJournal, RingOptions};
    use crate::journal::{Attachment, Change, Commit, Envelope, Journal};
    use crate::limits::{RING_IMAGE_PAUSE, RING_SPARE_TIME};

    const BLOCK: u64 = 4096;
    const OPTIONS: RingOptions = RingOptions {
        first_bytes: 8 * BLOCK,
        file_bytes: 8 * BLOCK,
        bytes_max: Some(80 * BLOCK),
        image_bytes: 1 << 20,
        history_bytes: 1 << 20,
    };

    #[tokio::test(start_paused = true)]
    async fn a_ring_is_crowded_while_attachments_have_most_of_it() {
        let env = Env::simulated(1);
        let journal = RingJournal::open_on(&env, Arc::new(SimulatedDisk::new(1)), OPTIONS).unwrap();
        let mut attached = 0;
        while !journal.crowded() {
            let last = journal.lsn();
            let change = Change { key: "key".into(), value: Some("value".into()) };
            let group = [Commit { envelope: Envelope::broker("test"), changes: vec![change] }];
            let bytes = Attachment::of(vec![Bytes::from(vec![7; 5_000])]);
            journal.commit_with(last, u128::from(last.0), &group, &[bytes]).await.expect("there is room");
            attached += 1;
            tokio::time::sleep(RING_CROWD_LOOK).await;
        }
        // A file takes three of them. Three quarters of ten files are in use, but for the one that is held back.
        assert!((17..=24).contains(&attached), "{attached} attachments");
        for lsn in journal.attachments() {
            journal.released(lsn);
        }
        assert!(journal.crowded(), "it does not look all the time");
        tokio::time::sleep(RING_CROWD_LOOK).await;
        assert!(!journal.crowded());
    }

    /// The last commits may be the last for long: what they released does not wait for others.
    #[tokio::test(start_paused = true)]
    async fn what_is_released_goes_back_although_nothing_is_committed() {
        let env = Env::simulated(2);
        let journal = RingJournal::open_on(&env, Arc::new(SimulatedDisk::new(2)), OPTIONS).unwrap();
        for _ in 0..20 {
            let last = journal.lsn();
            let change = Change { key: "key".into(), value: Some("value".into()) };
            let group = [Commit { envelope: Envelope::broker("test"), changes: vec![change] }];
            let bytes = Attachment::of(vec![Bytes::from(vec![7; 5_000])]);
            journal.commit_with(last, u128::from(last.0), &group, &[bytes]).await.expect("there is room");
        }
        journal.attachments().into_iter().for_each(|lsn| journal.released(lsn));
        let full = journal.core.file_bytes();
        for pause in [Duration::ZERO, RING_IMAGE_PAUSE, Duration::ZERO, RING_SPARE_TIME] {
            tokio::time::sleep(pause).await;
            assert!(journal.core.keep());
        }
        let left = journal.core.file_bytes();
        // Two that are spare, two that are ready, and the one in use.
        assert!(left <= 5 * OPTIONS.file_bytes && left < full, "{left} bytes of {full}");
    }
}
