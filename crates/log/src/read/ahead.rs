//! How far a read of a remote store fetches ahead.
//!
//! A consumer asks for a megabyte at a time. If a request to the store fetched that alone, a gigabyte would cost a
//! thousand of them. So a read that goes on where another stopped, and has to fetch, fetches more of its section with
//! the same GET, for those that follow. The blocks wait in the cold lane. That is worth nothing when they are evicted
//! before their turn, so all readers that fetched lately share one half of the lane.
//!
//! A local disk reads ahead by itself.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use floe_env::Env;
use tokio::time::Instant;

use crate::limits::{AHEAD_READS_MAX, AHEAD_TIME, BLOCK_BYTES, GET_BLOCKS_MAX};
use crate::map::ids::PartitionId;

/// Tells reads how far they fetch ahead. Clones share it.
#[derive(Clone)]
pub(crate) struct Ahead {
    env: Env,
    /// Bytes that all readers may have fetched ahead.
    bytes: u64,
    /// The last reads that had to fetch.
    reads: Arc<Mutex<VecDeque<(Instant, PartitionId)>>>,
}

impl Ahead {
    /// For a cold lane of so many bytes; 0 for reads that never fetch ahead.
    pub(crate) fn new(env: Env, lane_bytes: usize) -> Ahead {
        Ahead { env, bytes: lane_bytes as u64 / 2, reads: Arc::default() }
    }

    /// Bytes that a read of a partition fetches with one GET, which has to fetch in any case.
    pub(crate) fn get_bytes(&self, partition: PartitionId) -> u64 {
        let now = self.env.monotonic();
        let mut reads = floe_env::lock(&self.reads);
        reads.push_back((now, partition));
        while reads.len() > AHEAD_READS_MAX || reads.front().is_some_and(|(at, _)| now - *at > AHEAD_TIME) {
            reads.pop_front();
        }
        let readers = reads.iter().map(|(_, partition)| partition).collect::<BTreeSet<_>>().len() as u64;
        (self.bytes / readers).min(GET_BLOCKS_MAX * BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::map::ids::TopicId;

    #[tokio::test(start_paused = true)]
    async fn readers_share_the_room_and_get_it_back() {
        let ahead = Ahead::new(Env::simulated(1), 64 << 20);
        let bytes = |index| ahead.get_bytes(PartitionId::new(TopicId(1), index)) >> 20;
        assert_eq!((0..5).map(bytes).collect::<Vec<_>>(), [8, 8, 8, 8, 6]);
        assert_eq!((0..16).map(bytes).last(), Some(2));
        assert_eq!((0..1_000).map(bytes).last(), Some(0));
        assert!(floe_env::lock(&ahead.reads).len() <= AHEAD_READS_MAX);
        tokio::time::sleep(AHEAD_TIME + Duration::from_secs(1)).await;
        assert_eq!(bytes(3), 8);
        assert_eq!(Ahead::new(Env::simulated(1), 0).get_bytes(PartitionId::new(TopicId(1), 0)), 0);
    }
}
