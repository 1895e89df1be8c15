//! The memory between readers and the store.
//!
//! It has two LRU lanes, each bounded in bytes:
//! - **tail**: whole objects that this broker wrote. The WAL writer puts them here before they become visible, so
//!   readers of the tail find them. Large pieces are the buffers from the sockets, not copies. Small pieces are
//!   copied together, because each would otherwise keep a whole socket buffer alive that nobody counts.
//! - **cold**: aligned blocks that were fetched from the store. A reader that lags far behind fills only this small
//!   lane and cannot push out the tail.
//!
//! A block is fetched once, however many readers want it (single flight). One ranged GET fetches neighbouring
//! missing blocks of an object. The number of GETs in flight is bounded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use floe_env::{Env, Lru, watch};
use tokio::sync::Semaphore;

use crate::limits::{
    BLOCK_BYTES, CACHE_COPIED_BYTES, CACHE_OBJECT_OVERHEAD, CACHE_PIECE_OVERHEAD, GET_BLOCKS_MAX,
    GETS_IN_FLIGHT_MAX,
};
use crate::map::ids::ObjectId;
use crate::map::object::wal_key;
use floe_store::{Store, StoreError};

/// Capacities of the two lanes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Bytes for objects that this broker wrote.
    pub tail: usize,
    /// Bytes for blocks fetched from the store.
    pub cold: usize,
}

/// The cache of a broker. Clones share it.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<CacheState>,
}

struct CacheState {
    env: Env,
    store: Arc<dyn Store>,
    gets: Arc<Semaphore>,
    lanes: Mutex<Lanes>,
}

struct Lanes {
    tail: Lane<ObjectId, Arc<Written>>,
    cold: Lane<BlockId, Bytes>,
    flights: BTreeMap<BlockId, Flight>,
}

/// A block: its object, and its number within the object.
type BlockId = (ObjectId, u64);
/// A block in flight; `None` until the GET has an answer.
type Flight = watch::Receiver<Option<Landing>>;
type Landing = Result<Fetched, StoreError>;

/// The blocks of one GET. Each block has memory of its own, so a lane or a reader counts exactly what it holds.
#[derive(Clone)]
struct Fetched {
    /// The number of the first block.
    first: u64,
    blocks: Arc<[Bytes]>,
}

/// An object in its uploaded pieces, with small neighbours joined.
pub(crate) struct Written {
    /// The position of each piece in the object; there are no holes.
    starts: Vec<u64>,
    pieces: Vec<Bytes>,
    end: u64,
}

impl Cache {
    /// An empty cache in front of `store`.
    pub fn new(env: Env, store: Arc<dyn Store>, capacity: Capacity) -> Cache {
        let lanes = Lanes {
            tail: Lane::new("tail", capacity.tail),
            cold: Lane::new("cold", capacity.cold),
            flights: BTreeMap::new(),
        };
        let gets = Arc::new(Semaphore::new(GETS_IN_FLIGHT_MAX));
        Cache { shared: Arc::new(CacheState { env, store, gets, lanes: Mutex::new(lanes) }) }
    }

    /// Caches an object that was just uploaded. Returns the evicted objects; the caller drops them off the hot
    /// path.
    pub(crate) fn publish(&self, object: ObjectId, written: Written) -> Vec<Arc<Written>> {
        let bytes = written.held_bytes();
        self.shared.lock().tail.insert(object, Arc::new(written), bytes)
    }

    /// Drops an object that did not become visible, or was deleted.
    pub fn forget(&self, object: ObjectId) {
        let mut lanes = self.shared.lock();
        let written = lanes.tail.kept.remove(&object);
        let ids = lanes.cold.kept.keys((object, 0)..=(object, u64::MAX));
        let blocks: Vec<Option<Bytes>> = ids.iter().map(|id| lanes.cold.kept.remove(id)).collect();
        drop(lanes);
        drop((written, blocks));
    }

    /// Whether the tail holds the object, so that reading it costs no memory.
    pub(crate) fn in_tail(&self, object: ObjectId) -> bool {
        self.shared.lock().tail.kept.peek(&object).is_some()
    }

    /// The bytes of each range of an object of `size` bytes. The ranges must be in order. Pieces are slices, except
    /// that small parts of large blocks are copied: a slice would keep the whole block in memory.
    pub async fn read(
        &self,
        object: ObjectId,
        size: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Vec<Bytes>>, StoreError> {
        for range in ranges {
            if range.start > range.end || range.end > size {
                return Err(StoreError::Corrupt(format!(
                    "bytes {} to {} of object {object} are referenced, it has {size}",
                    range.start, range.end
                )));
            }
        }
        if let Some(written) = self.cut_of_tail(object, ranges) {
            metrics::counter!("floe_log_cache_hits_total", "lane" => "tail").increment(1);
            return Ok(written);
        }
        let blocks = self.blocks(object, size, ranges).await?;
        Ok(ranges.iter().map(|range| cut(&blocks, range)).collect())
    }

    fn cut_of_tail(&self, object: ObjectId, ranges: &[Range<u64>]) -> Option<Vec<Vec<Bytes>>> {
        let written = self.shared.lock().tail.kept.get(&object).cloned()?;
        Some(ranges.iter().map(|range| written.cut(range)).collect())
    }

    /// All blocks that the ranges touch, from memory or from the store.
    async fn blocks(
        &self,
        object: ObjectId,
        size: u64,
        ranges: &[Range<u64>],
    ) -> Result<BTreeMap<u64, Bytes>, StoreError> {
        let mut blocks = BTreeMap::new();
        let mut flights = Vec::new();
        {
            let mut lanes = self.shared.lock();
            let mut missing = Vec::new();
            for number in touched(ranges) {
                let id = (object, number);
                if let Some(bytes) = lanes.cold.kept.get(&id) {
                    blocks.insert(number, bytes.clone());
                } else if let Some(flight) = lanes.flights.get(&id) {
                    flights.push((number, flight.clone()));
                } else {
                    missing.push(number);
                }
            }
            metrics::counter!("floe_log_cache_hits_total", "lane" => "cold").increment(blocks.len() as u64);
            metrics::counter!("floe_log_cache_misses_total").increment(missing.len() as u64);
            for run in runs(&missing) {
                let (sender, flight) = watch::channel(None);
                for number in run.clone() {
                    lanes.flights.insert((object, number), flight.clone());
                    flights.push((number, flight.clone()));
                }
                self.start(object, size, run, sender);
            }
        }
        for (number, flight) in flights {
            blocks.insert(number, landed(flight, number).await?);
        }
        Ok(blocks)
    }

    /// Fetches a run of blocks in a task of its own, so that a reader that goes away does not cancel it for others.
    fn start(&self, object: ObjectId, size: u64, run: Range<u64>, landing: watch::Sender<Option<Landing>>) {
        let shared = Arc::clone(&self.shared);
        self.shared.env.spawn_vital("cache fetch", async move {
            let permit = shared.gets.acquire().await.expect("the semaphore is never closed");
            let range = run.start * BLOCK_BYTES..(run.end * BLOCK_BYTES).min(size);
            let answer = shared.store.get(&wal_key(object), Some(range)).await;
            drop(permit);
            let fetched = answer.map(|bytes| Fetched::new(run.start, bytes));
            let mut evicted = Vec::new();
            let mut lanes = shared.lock();
            for number in run {
                lanes.flights.remove(&(object, number));
                if let Ok(fetched) = &fetched {
                    let block = fetched.block(number);
                    let bytes = block.len();
                    evicted.extend(lanes.cold.insert((object, number), block, bytes));
                }
            }
            drop(lanes);
            drop(evicted);
            landing.send_replace(Some(fetched));
        });
    }
}

impl CacheState {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        floe_env::lock(&self.lanes)
    }
}

impl Fetched {
    /// Splits an answer that begins with block `first`. If it holds several blocks, each is copied out.
    fn new(first: u64, answer: Bytes) -> Fetched {
        let blocks = match answer.len() as u64 <= BLOCK_BYTES {
            true => Arc::from([answer]),
            false => answer.chunks(BLOCK_BYTES as usize).map(Bytes::copy_from_slice).collect(),
        };
        Fetched { first, blocks }
    }

    fn block(&self, number: u64) -> Bytes {
        self.blocks[(number - self.first) as usize].clone()
    }
}

async fn landed(mut flight: Flight, number: u64) -> Result<Bytes, StoreError> {
    match flight.wait_for(Option::is_some).await {
        Ok(landing) => match landing.as_ref().expect("waited for it") {
            Ok(fetched) => Ok(fetched.block(number)),
            Err(error) => Err(error.clone()),
        },
        Err(_) => Err(StoreError::NotApplied("the broker is shutting down".into())),
    }
}

impl Written {
    /// The pieces of an uploaded payload. Small pieces are copied into one buffer: a slice of a few bytes would
    /// keep its whole socket buffer alive.
    pub(crate) fn new(payload: Vec<Bytes>) -> Written {
        let small = |piece: &Bytes| piece.len() < CACHE_COPIED_BYTES;
        let copied = payload.iter().filter(|piece| small(piece)).map(Bytes::len).sum();
        let mut buffer = BytesMut::with_capacity(copied);
        let mut pieces = Vec::new();
        for piece in payload {
            if small(&piece) {
                buffer.extend_from_slice(&piece);
                continue;
            }
            pieces.extend(taken(&mut buffer));
            pieces.push(piece);
        }
        pieces.extend(taken(&mut buffer));
        pieces.shrink_to_fit();
        let mut starts = Vec::with_capacity(pieces.len());
        let mut end = 0;
        for piece in &pieces {
            starts.push(end);
            end += piece.len() as u64;
        }
        Written { starts, pieces, end }
    }

    /// An estimate of the memory that the object takes.
    fn held_bytes(&self) -> usize {
        self.end as usize + CACHE_OBJECT_OVERHEAD + self.pieces.len() * CACHE_PIECE_OVERHEAD
    }

    fn cut(&self, range: &Range<u64>) -> Vec<Bytes> {
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let pieces = self.starts[first..].iter().zip(&self.pieces[first..]);
        pieces
            .take_while(|(start, _)| **start < range.end)
            .filter_map(|(start, piece)| overlap(*start, piece, range))
            .collect()
    }
}

/// The small pieces copied since the last large one.
fn taken(buffer: &mut BytesMut) -> Option<Bytes> {
    (!buffer.is_empty()).then(|| buffer.split().freeze())
}

/// The part of a piece beginning at `start` that lies in `range`.
fn overlap(start: u64, piece: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let from = range.start.max(start);
    let to = range.end.min(start + piece.len() as u64);
    (from < to).then(|| piece.slice((from - start) as usize..(to - start) as usize))
}

/// The pieces of `range` from the blocks that cover it. A part of less than half a block is copied.
fn cut(blocks: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Vec<Bytes> {
    touched(std::slice::from_ref(range))
        .filter_map(|number| {
            let block = &blocks[&number];
            let piece = overlap(number * BLOCK_BYTES, block, range)?;
            let small = piece.len() < block.len() / 2;
            Some(if small { Bytes::copy_from_slice(&piece) } else { piece })
        })
        .collect()
}

/// The numbers of the blocks that ordered ranges touch, in order, each once.
fn touched(ranges: &[Range<u64>]) -> impl Iterator<Item = u64> {
    let mut next = 0;
    ranges.iter().filter(|range| !range.is_empty()).flat_map(move |range| {
        let first = (range.start / BLOCK_BYTES).max(next);
        next = range.end.div_ceil(BLOCK_BYTES).max(next);
        first..next
    })
}

/// Groups neighbouring numbers into runs of at most [`GET_BLOCKS_MAX`].
fn runs(numbers: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number && run.end - run.start < GET_BLOCKS_MAX => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// A bounded LRU map with the metrics of its lane.
struct Lane<K, V> {
    name: &'static str,
    kept: Lru<K, V>,
}

impl<K: Ord + Clone, V> Lane<K, V> {
    fn new(name: &'static str, capacity: usize) -> Lane<K, V> {
        Lane { name, kept: Lru::new(capacity) }
    }

    /// Adds an entry. Returns the evicted entries; the caller drops them after releasing the lock.
    #[must_use]
    fn insert(&mut self, key: K, value: V, bytes: usize) -> Vec<V> {
        let before = self.kept.evictions();
        let out = self.kept.insert(key, value, bytes);
        metrics::counter!("floe_log_cache_evictions_total", "lane" => self.name)
            .increment(self.kept.evictions() - before);
        metrics::gauge!("floe_log_cache_bytes", "lane" => self.name).set(self.kept.weight() as f64);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use floe_store::MemoryStore;
    use floe_store::faulty::{Fault, FaultyStore, Operation};

    /// A store that answers after a second and counts GETs.
    struct Remote {
        objects: MemoryStore,
        gets: Arc<AtomicUsize>,
    }

    impl Remote {
        fn new() -> (Remote, FaultyStore) {
            let (objects, gets) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
            let counted = Arc::clone(&gets);
            let store = FaultyStore::new(objects.clone(), move |operation, _| {
                if operation == Operation::Get {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                Fault::Slow(Duration::from_secs(1))
            });
            (Remote { objects, gets }, store)
        }

        fn gets(&self) -> usize {
            self.gets.load(Ordering::SeqCst)
        }
    }

    const OBJECT: ObjectId = ObjectId(7);

    fn pattern(bytes: u64) -> Bytes {
        (0..bytes).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
    }

    async fn world(object_bytes: u64, capacity: Capacity) -> (Env, Remote, Cache) {
        let env = Env::simulated(1);
        let (remote, store) = Remote::new();
        remote.objects.plant(&wal_key(OBJECT), pattern(object_bytes));
        let cache = Cache::new(env.clone(), Arc::new(store), capacity);
        (env, remote, cache)
    }

    const LARGE: Capacity = Capacity { tail: 64 << 20, cold: 64 << 20 };

    fn joined(pieces: &[Bytes]) -> Vec<u8> {
        pieces.concat()
    }

    #[tokio::test(start_paused = true)]
    async fn any_ranges_of_either_lane_are_the_bytes_of_the_object() {
        let size = 3 * BLOCK_BYTES + 1000;
        let (_env, remote, cache) = world(size, LARGE).await;
        let whole = pattern(size);
        let edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, size - 1, size];
        for tail in [false, true] {
            if tail {
                let piece = |from: u64, to: u64| whole.slice(from as usize..to as usize);
                cache.publish(
                    OBJECT,
                    Written::new(vec![piece(0, 16), piece(16, 5000), Bytes::new(), piece(5000, size)]),
                );
            }
            for (index, &start) in edges.iter().enumerate() {
                for &end in &edges[index..] {
                    let ranges = [start..end, end..size];
                    let read = cache.read(OBJECT, size, &ranges).await.expect("the store works");
                    assert_eq!(joined(&read[0]), &whole[start as usize..end as usize]);
                    assert_eq!(joined(&read[1]), &whole[end as usize..]);
                }
            }
        }
        assert_eq!(remote.gets(), 1, "each block is fetched once, neighbours together");
        let beyond = cache.read(OBJECT, size, std::slice::from_ref(&(size..size + 1))).await;
        assert!(matches!(beyond, Err(StoreError::Corrupt(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn many_readers_share_one_flight_and_survive_the_one_who_began_it() {
        let (env, remote, cache) = world(1000, LARGE).await;
        let reader =
            |cache: Cache| async move { cache.read(OBJECT, 1000, std::slice::from_ref(&(10..20))).await };
        let first = env.spawn("first", reader(cache.clone()));
        let others: Vec<_> = (0..5).map(|_| env.spawn("other", reader(cache.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(remote.gets(), 1, "it is under way");
        first.abort();
        for other in others {
            let read = other.await.expect("not aborted").expect("read");
            assert_eq!(joined(&read[0]), &pattern(1000)[10..20]);
        }
        assert_eq!(remote.gets(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_flight_is_told_to_all_and_not_kept() {
        let (_env, remote, cache) = world(0, LARGE).await;
        remote.objects.delete(&wal_key(OBJECT)).await.expect("delete");
        let missing = cache.read(OBJECT, 10, std::slice::from_ref(&(0..10))).await;
        assert!(matches!(missing, Err(StoreError::NotFound(_))));
        remote.objects.plant(&wal_key(OBJECT), pattern(10));
        assert!(cache.read(OBJECT, 10, std::slice::from_ref(&(0..10))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn old_reads_do_not_push_out_the_tail_and_lanes_stay_in_bounds() {
        let capacity = Capacity { tail: 10_000, cold: 2 * BLOCK_BYTES as usize };
        let (_env, remote, cache) = world(5 * BLOCK_BYTES, capacity).await;
        cache.publish(ObjectId(1), Written::new(vec![pattern(4000)]));
        cache.publish(ObjectId(2), Written::new(vec![pattern(4000)]));
        for block in 0..5 {
            let range = block * BLOCK_BYTES..block * BLOCK_BYTES + 1;
            cache.read(OBJECT, 5 * BLOCK_BYTES, &[range]).await.expect("read");
        }
        assert_eq!(cache.shared.lock().cold.kept.keys(..).len(), 2);
        let before = remote.gets();
        // Object 1 was used last, so the third object evicts object 2.
        cache.read(ObjectId(1), 4000, std::slice::from_ref(&(0..4000))).await.expect("in the tail");
        cache.publish(ObjectId(3), Written::new(vec![pattern(4000)]));
        cache.read(ObjectId(1), 4000, std::slice::from_ref(&(0..4000))).await.expect("in the tail");
        assert_eq!(remote.gets(), before);
        assert!(
            cache.read(ObjectId(2), 4000, std::slice::from_ref(&(0..4000))).await.is_err(),
            "gone, not in store"
        );
        let held = 2 * (4000 + CACHE_OBJECT_OVERHEAD + CACHE_PIECE_OVERHEAD);
        assert_eq!(cache.shared.lock().tail.kept.weight(), held);
        cache.publish(ObjectId(4), Written::new(vec![pattern(10_001)]));
        assert_eq!(cache.shared.lock().tail.kept.weight(), held, "larger than the lane: not kept");
    }

    /// Small frames share large buffers, which the tail must not keep alive.
    #[test]
    fn small_pieces_are_copied_together_and_large_ones_are_not() {
        let large = pattern(CACHE_COPIED_BYTES as u64);
        let buffers: Vec<Bytes> = (0..10).map(|_| pattern(8192)).collect();
        let small = |at: usize| buffers[at].slice(100..200);
        let mut payload: Vec<Bytes> = (0..5).map(small).collect();
        payload.push(large.clone());
        payload.extend((5..10).map(small));
        let whole = joined(&payload);
        let written = Written::new(payload);
        assert!(buffers.iter().all(Bytes::is_unique), "no buffer is kept for a small piece of it");
        assert_eq!(written.pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [500, large.len(), 500]);
        assert_eq!(written.pieces[1].as_ptr(), large.as_ptr(), "not copied");
        assert_eq!(written.held_bytes(), whole.len() + CACHE_OBJECT_OVERHEAD + 3 * CACHE_PIECE_OVERHEAD);
        for range in [0..1000, 0..whole.len(), 450..550, 499..500 + large.len() + 1] {
            let cut = written.cut(&(range.start as u64..range.end as u64));
            assert_eq!(joined(&cut), &whole[range]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_part_of_a_block_does_not_keep_the_block() {
        let (_env, _remote, cache) = world(2 * BLOCK_BYTES, LARGE).await;
        let ranges = [0..100, BLOCK_BYTES..2 * BLOCK_BYTES];
        let read = cache.read(OBJECT, 2 * BLOCK_BYTES, &ranges).await.expect("read");
        assert!(read[0][0].is_unique(), "copied");
        assert!(!read[1][0].is_unique(), "a slice of the block in the lane");
    }
}
