//! Reading: offsets to extents (`walk.rs`), extents to bytes (`cache.rs`), bytes to batches (`taken.rs`).
//!
//! A read takes memory for the blocks that it needs from one budget for all reads, and gives it back when it returns.
//! The batches that it returns keep at most twice their own bytes in memory.
//!
//! A read uses one snapshot throughout, so it sees one moment of the log, however long it takes. The objects that a
//! snapshot knows stay in the store for the cleaner's grace period.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use floe_env::Lru;
use floe_meta::Snapshot;
use futures::future::join_all;

use crate::limits::{
    BLOCK_BYTES, EXTENTS_PER_READ_MAX, PLACES_MAX, READ_BLOCKS_BYTES_MAX, READ_SURPLUS_BYTES_MAX,
};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::Object;
use crate::read::cache::{Cache, Piece, Reserved};
use crate::read::taken::{Taken, Took, Window, corrupt};
use crate::read::walk::{self, Read, ReadError};
use floe_store::StoreError;

/// Bytes of an extent that one read asks for at once: a range may begin and end inside a block.
const RANGE_BYTES_MAX: u64 = READ_BLOCKS_BYTES_MAX - 2 * BLOCK_BYTES;

/// Reads the log of this broker. Clones share its places.
#[derive(Clone)]
pub(crate) struct Reader {
    cache: Cache,
    places: Arc<Mutex<Places>>,
}

/// Where reads stopped inside extents, so that the next read need not walk there again. Maps a partition and an
/// offset to the object and the position in it.
type Places = Lru<(PartitionId, Offset), (ObjectId, u64)>;

impl Reader {
    pub(crate) fn new(cache: Cache) -> Reader {
        Reader { cache, places: Arc::new(Mutex::new(Places::new(PLACES_MAX))) }
    }

    pub(crate) async fn read(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        let bounds = walk::check(snapshot, partition, from)?;
        if from == bounds.high_watermark {
            // The usual answer to readers at the end of the log.
            return Ok(Read {
                batches: Vec::new(),
                high_watermark: bounds.high_watermark,
                log_start: bounds.log_start,
            });
        }
        let mut taken = Taken::new(from, max_bytes);
        let plan = self.plan(snapshot, partition, from, max_bytes)?;
        let unfinished = self.take_planned(plan, &mut taken).await?;
        if let Some((window, need)) = unfinished {
            self.take_first(window, need, &mut taken).await?;
        }
        metrics::counter!("floe_log_read_bytes_total").increment(taken.bytes as u64);
        if let Some(first) = taken.batches.first() {
            assert!(first.next_offset() > from, "the first batch holds the offset");
            if first.base_offset > from {
                return Err(walk::gap(partition, from));
            }
        }
        Ok(Read {
            batches: taken.batches,
            high_watermark: bounds.high_watermark,
            log_start: bounds.log_start,
        })
    }

    /// The extents that a read needs, and where to begin in the first one.
    fn plan(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Plan, ReadError> {
        let mut plan = Plan::default();
        let mut planned = 0u64;
        let mut cold = ColdBlocks::default();
        let mut next = from;
        for pair in walk::extents(snapshot, partition, from)? {
            let (key, extent) = pair?;
            // What lies before a gap is still served. The read that begins at it is refused.
            if !walk::continues(next, key, extent, plan.windows.is_empty()) {
                break;
            }
            next = extent.next_offset(key.base);
            let mut window = window(snapshot, key, extent)?;
            if plan.windows.is_empty()
                && let Some((object, position)) = self.lock().get(&(partition, from))
                && *object == extent.object
                && (extent.position..extent.end()).contains(position)
            {
                (window.base, window.position) = (from, *position);
            }
            // One block more than is wanted, so that the last batch is whole.
            let wanted = (max_bytes as u64 - planned).saturating_add(BLOCK_BYTES);
            let range = range_of(&window, wanted.min(RANGE_BYTES_MAX));
            planned += extent.end() - window.position;
            if !self.cache.in_tail(extent.object) {
                cold.add(&window, &range);
                // Small extents of many objects cost too much at once. The next read continues here.
                if !plan.windows.is_empty() && cold.exceeds() {
                    break;
                }
                plan.cold_bytes = cold.fetched;
            }
            let is_whole = range.end == extent.end();
            plan.windows.push((window, range));
            if planned >= max_bytes as u64 || !is_whole || plan.windows.len() == EXTENTS_PER_READ_MAX {
                break;
            }
        }
        match plan.windows.is_empty() {
            true => Err(walk::gap(partition, from)),
            false => Ok(plan),
        }
    }

    /// Takes what was planned, all at once, because the extents of one partition lie in different objects. Returns the
    /// window that holds the first batch, and the bytes that it needs, if the batch was not among them.
    async fn take_planned(&self, plan: Plan, taken: &mut Taken) -> Result<Option<(Window, u64)>, ReadError> {
        let reserved = self.cache.reserve(plan.cold_bytes).await;
        let fetches = plan.windows.iter().map(|(window, range)| self.fetch(window, range, &reserved));
        for ((window, _), fetched) in plan.windows.iter().zip(join_all(fetches).await) {
            let mut window = *window;
            match taken.take(&mut window, fetched?)? {
                Took::Everything => {}
                // Whoever reads on continues there.
                Took::Enough => {
                    self.remember(&window);
                    break;
                }
                Took::Part(_) if !taken.batches.is_empty() => {
                    self.remember(&window);
                    break;
                }
                Took::Part(need) => return Ok(Some((window, need))),
            }
        }
        Ok(None)
    }

    /// Takes batches out of a window whose first batch is larger than what was fetched, or lies further on. Nothing
    /// else is held meanwhile.
    async fn take_first(&self, mut window: Window, need: u64, taken: &mut Taken) -> Result<(), ReadError> {
        let mut need = need;
        loop {
            let range = range_of(&window, need.max(RANGE_BYTES_MAX));
            let reserved = self.cache.reserve(blocks_bytes(&range)).await;
            let pieces = self.fetch(&window, &range, &reserved).await?;
            match taken.take(&mut window, pieces)? {
                Took::Everything => return Ok(()),
                Took::Part(more) if taken.batches.is_empty() => need = more,
                Took::Enough | Took::Part(_) => {
                    self.remember(&window);
                    return Ok(());
                }
            }
        }
    }

    async fn fetch(
        &self,
        window: &Window,
        range: &Range<u64>,
        reserved: &Reserved,
    ) -> Result<Vec<Piece>, ReadError> {
        let ranges = std::slice::from_ref(range);
        let read = self.cache.read(window.extent.object, window.object_size, ranges, reserved).await;
        let mut pieces = read.map_err(|error| unreadable(window, &error))?;
        Ok(pieces.pop().expect("one range was asked for"))
    }

    fn remember(&self, stopped: &Window) {
        let place = (stopped.key.partition, stopped.base);
        drop(self.lock().insert(place, (stopped.extent.object, stopped.position), 1));
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        floe_env::lock(&self.places)
    }
}

fn window(snapshot: &Snapshot, key: ExtentKey, extent: Extent) -> Result<Window, ReadError> {
    let object = snapshot.get::<Object>(&extent.object)?;
    let object = object
        .ok_or_else(|| ReadError::Corrupt(format!("object {} has extents but no record", extent.object)))?;
    Ok(Window { key, extent, base: key.base, position: extent.position, object_size: object.size })
}

/// The next `wanted` bytes of a window, as far as it goes.
fn range_of(window: &Window, wanted: u64) -> Range<u64> {
    window.position..window.position + wanted.min(window.extent.end() - window.position)
}

/// Bytes of the blocks that a range touches, at most.
fn blocks_bytes(range: &Range<u64>) -> u64 {
    (range.end.div_ceil(BLOCK_BYTES) - range.start / BLOCK_BYTES) * BLOCK_BYTES
}

/// The parts of extents that one read fetches, in order.
#[derive(Default)]
struct Plan {
    windows: Vec<(Window, Range<u64>)>,
    /// Bytes of the blocks that are not in the tail.
    cold_bytes: u64,
}

/// The blocks that a read takes from the store or from the cold lane, each counted once.
#[derive(Default)]
struct ColdBlocks {
    blocks: BTreeSet<(ObjectId, u64)>,
    fetched: u64,
    wanted: u64,
}

impl ColdBlocks {
    fn add(&mut self, window: &Window, range: &Range<u64>) {
        self.wanted += range.end - range.start;
        for number in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            if self.blocks.insert((window.extent.object, number)) {
                let rest = window.object_size.saturating_sub(number * BLOCK_BYTES);
                self.fetched += rest.min(BLOCK_BYTES);
            }
        }
    }

    /// Whether they are more than one read may take, or too many of them are not wanted.
    fn exceeds(&self) -> bool {
        let surplus = self.fetched.saturating_sub(self.wanted);
        surplus > READ_SURPLUS_BYTES_MAX || self.fetched > READ_BLOCKS_BYTES_MAX
    }
}

fn unreadable(window: &Window, error: &StoreError) -> ReadError {
    match error {
        // An extent refers to the object, so a missing or short object is damage.
        StoreError::NotFound(_) | StoreError::Corrupt(_) => corrupt(window, &error.to_string()),
        StoreError::NotApplied(_) | StoreError::Unknown(_) | StoreError::Full(_) => {
            ReadError::Unavailable(error.to_string())
        }
    }
}
