//! How much a read fetches: its blocks, more than these, or less.
//!
//! **More**: a consumer asks for a megabyte at a time. If a request to a remote store fetched that alone, a gigabyte
//! would cost a thousand of them. So a read that goes on where another stopped, and has to fetch, fetches more of its
//! section with the same GET, for those that follow. The blocks wait in the cold lane. That is worth nothing when they
//! are evicted before their turn, so all readers share one half of the lane. A local disk reads ahead by itself.
//!
//! **Less**: an extent may be a hundredth of its block, in an object of many partitions. When many of them are read, a
//! block is fetched once for all. When few are, the rest of the block is waste, and the extent is fetched alone. Nobody
//! keeps it; who needs it a second time fetches the block.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use floe_env::{Env, Lru};
use tokio::time::Instant;

use crate::limits::{
    ALONE_READERS_MAX, ALONE_REMEMBERED_MAX, BLOCK_BYTES, COLD_READS_MAX, COLD_READS_TIME, GET_BLOCKS_MAX,
};
use crate::map::ids::PartitionId;
use crate::read::source::Source;

/// Tells reads how much to fetch. Clones share what it knows.
#[derive(Clone)]
pub(crate) struct Ahead {
    env: Env,
    /// Bytes that all readers may have fetched ahead.
    bytes: u64,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    /// The last reads outside of the tail.
    reads: VecDeque<(Instant, PartitionId)>,
    /// Extents that were fetched alone.
    alone: Lru<(Source, u64), ()>,
}

impl Ahead {
    /// For a cold lane of so many bytes; 0 for reads that never fetch ahead.
    pub(crate) fn new(env: Env, lane_bytes: usize) -> Ahead {
        let seen = Seen { reads: VecDeque::new(), alone: Lru::new(ALONE_REMEMBERED_MAX) };
        Ahead { env, bytes: lane_bytes as u64 / 2, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Notes a read outside of the tail. Returns how many partitions were read there lately, which are the readers.
    pub(crate) fn readers(&self, partition: PartitionId) -> u64 {
        let now = self.env.monotonic();
        let mut seen = floe_env::lock(&self.seen);
        let reads = &mut seen.reads;
        reads.push_back((now, partition));
        while reads.len() > COLD_READS_MAX || reads.front().is_some_and(|(at, _)| now - *at > COLD_READS_TIME)
        {
            reads.pop_front();
        }
        reads.iter().map(|(_, partition)| partition).collect::<BTreeSet<_>>().len() as u64
    }

    /// Bytes that a read fetches with one GET, when it goes on and has to fetch in any case.
    pub(crate) fn get_bytes(&self, readers: u64) -> u64 {
        (self.bytes / readers.max(1)).min(GET_BLOCKS_MAX * BLOCK_BYTES)
    }

    /// Whether a small extent is fetched alone. Notes it then.
    pub(crate) fn is_alone(&self, readers: u64, source: Source, position: u64) -> bool {
        if readers > ALONE_READERS_MAX || !matches!(source, Source::Object(_)) {
            return false;
        }
        let mut seen = floe_env::lock(&self.seen);
        let is_first = seen.alone.get(&(source, position)).is_none();
        if is_first {
            drop(seen.alone.insert((source, position), (), 1));
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::map::ids::{ObjectId, TopicId};

    #[tokio::test(start_paused = true)]
    async fn readers_share_the_room_and_get_it_back() {
        let ahead = Ahead::new(Env::simulated(1), 64 << 20);
        let readers = |index| ahead.readers(PartitionId::new(TopicId(1), index));
        let bytes = |index| ahead.get_bytes(readers(index)) >> 20;
        assert_eq!((0..5).map(bytes).collect::<Vec<_>>(), [8, 8, 8, 8, 6]);
        let of_all = |readers: u32| (0..readers).fold(0, |_, index| bytes(index));
        assert_eq!((of_all(16), of_all(1_000)), (2, 0));
        assert_eq!(readers(7), COLD_READS_MAX as u64);
        tokio::time::sleep(COLD_READS_TIME + Duration::from_secs(1)).await;
        assert_eq!(bytes(3), 8);
        assert_eq!(Ahead::new(Env::simulated(1), 0).get_bytes(1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_extent_is_fetched_alone_once_and_only_for_few_readers() {
        let ahead = Ahead::new(Env::simulated(1), 64 << 20);
        let source = Source::Object(ObjectId(1));
        assert!(ahead.is_alone(1, source, 16));
        assert!(!ahead.is_alone(1, source, 16), "the second one keeps the block");
        assert!(!ahead.is_alone(ALONE_READERS_MAX + 1, source, 500));
        assert!(ahead.is_alone(ALONE_READERS_MAX, source, 500));
        assert!(!ahead.is_alone(1, Source::Frame(floe_meta::Lsn(1)), 0));
        for position in 1_000..1_000 + 2 * ALONE_REMEMBERED_MAX as u64 {
            assert!(ahead.is_alone(1, source, position));
        }
        assert_eq!(floe_env::lock(&ahead.seen).alone.weight(), ALONE_REMEMBERED_MAX);
    }
}
