//! The memory between readers and what holds the bytes: objects of the store, and commits of the journal.
//!
//! It has two LRU lanes, each bounded in bytes:
//! - **tail**: whole objects that this broker wrote, and the bytes that rode with its commits. They get here before
//!   they become visible, so readers of the tail find them. The lane has copies: a batch is a slice of its socket
//!   buffer, which may be a thousand times larger.
//! - **cold**: aligned blocks that were fetched. A reader that lags far behind fills only this small
//!   lane and cannot push out the tail.
//!
//! A block is fetched once, however many readers want it (single flight). One ranged GET fetches neighbouring
//! missing blocks of an object. The number of GETs in flight is bounded, and so are the bytes that all reads together
//! take from the store before they are answered ([`Cache::reserve`]).
//!
//! What a lane counts is what it holds: every buffer is one of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::{Bytes, BytesMut};
use floe_env::{Env, Lru, watch};
use floe_meta::Meta;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::wal::WalEntry;
use crate::limits::{
    BLOCK_BYTES, CACHE_ALONE_REST, CACHE_BLOCK_OVERHEAD, CACHE_CHUNK_BYTES, CACHE_CHUNK_OVERHEAD,
    CACHE_COPIED_APART_BYTES, CACHE_OBJECT_OVERHEAD, GET_BLOCKS_MAX, GETS_IN_FLIGHT_MAX,
};
use crate::read::ahead::Ahead;
use crate::read::source::Source;
use floe_store::{Store, StoreError};

/// Capacities of the two lanes and of the reads between them and the store, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Bytes for what this broker wrote.
    pub tail: usize,
    /// Bytes for blocks that were fetched.
    pub cold: usize,
    /// Bytes of blocks that all reads under way may take from the store or from the cold lane.
    pub reads: usize,
}

/// The cache of a broker. Clones share it.
#[derive(Clone)]
pub(crate) struct Cache {
    shared: Arc<CacheState>,
}

struct CacheState {
    env: Env,
    store: Arc<dyn Store>,
    meta: Meta,
    capacity: Capacity,
    gets: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    lanes: Mutex<Lanes>,
    /// The cache whose tail is looked at as well.
    beside: Option<Cache>,
}

/// Memory that is set aside for the blocks of one read. The GETs that the read began keep it until they end, even if
/// the reader goes away.
#[derive(Clone)]
pub(crate) struct Reserved {
    _share: Option<Arc<Share>>,
}

struct Share {
    bytes: u32,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Share {
    fn drop(&mut self) {
        metrics::gauge!("floe_log_reading_bytes").decrement(f64::from(self.bytes));
    }
}

/// A part of a range that lies in one buffer.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The bytes of the range.
    pub(crate) bytes: Bytes,
    /// Bytes of the buffer that `bytes` keeps in memory.
    pub(crate) buffer: usize,
    /// Whether it was fetched. What this process wrote has not left its memory.
    pub(crate) from_disk: bool,
}

struct Lanes {
    tail: Lane<Source, Arc<Written>>,
    cold: Lane<BlockId, Bytes>,
    flights: BTreeMap<BlockId, Flight>,
}

/// A block: its source, and its number within the source.
type BlockId = (Source, u64);
/// A block in flight; `None` until the GET has an answer.
type Flight = watch::Receiver<Option<Landing>>;
type Landing = Result<Fetched, StoreError>;

/// The blocks of one GET, each with memory of its own.
#[derive(Clone)]
struct Fetched {
    /// The number of the first block.
    first: u64,
    blocks: Arc<[Bytes]>,
}

/// What was written, in chunks of whole pieces.
struct Written {
    /// The position of each chunk in its source; there are no holes.
    starts: Vec<u64>,
    chunks: Vec<Bytes>,
    end: u64,
    /// Memory that the chunks keep beside their bytes, at most.
    beside: usize,
}

impl Cache {
    /// An empty cache in front of a store and a journal.
    pub(crate) fn new(env: Env, store: Arc<dyn Store>, meta: Meta, capacity: Capacity) -> Cache {
        Cache::with(env, store, meta, capacity, ("tail", "cold"), None)
    }

    /// A cache of so many bytes for a job. What the job reads moves nothing in this one, and waits for none of its
    /// memory. What this one's tail has is taken from there, and keeps its place in the order of eviction.
    pub(crate) fn apart(&self, name: &'static str, bytes: usize) -> Cache {
        let CacheState { env, store, meta, .. } = &*self.shared;
        let capacity = Capacity { tail: 0, cold: bytes, reads: bytes };
        let (env, store, meta) = (env.clone(), Arc::clone(store), meta.clone());
        Cache::with(env, store, meta, capacity, (name, name), Some(self.clone()))
    }

    fn with(
        env: Env,
        store: Arc<dyn Store>,
        meta: Meta,
        capacity: Capacity,
        names: (&'static str, &'static str),
        beside: Option<Cache>,
    ) -> Cache {
        let lanes = Lanes {
            tail: Lane::new(names.0, capacity.tail),
            cold: Lane::new(names.1, capacity.cold),
            flights: BTreeMap::new(),
        };
        let gets = Arc::new(Semaphore::new(GETS_IN_FLIGHT_MAX));
        let reads = Arc::new(Semaphore::new(capacity.reads.clamp(1, Semaphore::MAX_PERMITS)));
        let lanes = Mutex::new(lanes);
        Cache { shared: Arc::new(CacheState { env, store, meta, capacity, gets, reads, lanes, beside }) }
    }

    /// Copies what is being written, unless it is larger than the lane. Nobody can refer to it yet; the
    /// caller [forgets](Cache::forget) it if the upload fails.
    pub(crate) fn copy(&self, source: Source, payload: &[Bytes]) {
        let copied = Copied::new(payload.to_vec(), Vec::new());
        self.prepare(&copied);
        self.keep(source, &copied);
    }

    /// Copies what is being written, unless it is larger than the lane or copied already. Whoever waits for the disk
    /// has the time.
    pub(crate) fn prepare(&self, copied: &Copied) {
        if copied.bytes <= self.shared.capacity.tail {
            copied.written(&self.shared.env);
        }
    }

    /// Keeps the copy of what was written. It is made now if nobody did so before.
    pub(crate) fn keep(&self, source: Source, copied: &Copied) {
        if copied.bytes > self.shared.capacity.tail {
            return;
        }
        let written = copied.written(&self.shared.env);
        let bytes = written.held_bytes();
        let evicted = self.shared.lock().tail.insert(source, Arc::clone(written), bytes);
        // Without the lock: freeing many buffers takes time.
        drop(evicted);
    }

    /// Sets memory aside for a read that takes `bytes` of blocks, in FIFO order. A read of more than there is gets all
    /// of it. A caller that holds some must not ask for more.
    pub(crate) async fn reserve(&self, bytes: u64) -> Reserved {
        let all = self.shared.capacity.reads.clamp(1, Semaphore::MAX_PERMITS);
        let share = u32::try_from(bytes.min(all as u64)).unwrap_or(u32::MAX);
        if share == 0 {
            return Reserved { _share: None };
        }
        let reads = Arc::clone(&self.shared.reads);
        let permit = reads.acquire_many_owned(share).await.expect("the semaphore is never closed");
        metrics::gauge!("floe_log_reading_bytes").increment(f64::from(share));
        Reserved { _share: Some(Arc::new(Share { bytes: share, _permit: permit })) }
    }

    /// Drops what did not become visible, or was deleted.
    pub(crate) fn forget(&self, source: Source) {
        let mut lanes = self.shared.lock();
        let written = lanes.tail.kept.remove(&source);
        let ids = lanes.cold.kept.keys((source, 0)..=(source, u64::MAX));
        let blocks: Vec<Option<Bytes>> = ids.iter().map(|id| lanes.cold.kept.remove(id)).collect();
        drop(lanes);
        drop((written, blocks));
    }

    /// Whether the tail holds the source, so that reading it costs no memory.
    pub(crate) fn in_tail(&self, source: Source) -> bool {
        let beside = || self.shared.beside.as_ref().is_some_and(|other| other.in_tail(source));
        self.shared.lock().tail.kept.peek(&source).is_some() || beside()
    }

    /// Where the GET begins that fetches the end of a range of a source; none if its last block is here.
    pub(crate) fn lacks_from(&self, source: Source, range: &Range<u64>) -> Option<u64> {
        let lanes = self.shared.lock();
        let is_here = |number: &u64| lanes.cold.kept.peek(&(source, *number)).is_some();
        let (first, end) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        let from = (first..end).rev().find(is_here).map_or(first, |last| last + 1);
        (from < end).then_some(from * BLOCK_BYTES)
    }

    /// Whether the store is another machine's.
    pub(crate) fn is_remote(&self) -> bool {
        self.shared.store.remote()
    }

    /// How far reads fetch ahead.
    pub(crate) fn ahead(&self) -> Ahead {
        let lane = if self.shared.store.remote() { self.shared.capacity.cold } else { 0 };
        Ahead::new(self.shared.env.clone(), lane)
    }

    /// The bytes of a range, if the tail holds the source. Its place in the order of eviction stays as it is.
    pub(crate) fn peek(&self, source: Source, range: &Range<u64>) -> Option<Bytes> {
        let written = self.shared.lock().tail.kept.peek(&source).cloned()?;
        let pieces = written.cut(range);
        if let [piece] = &pieces[..] {
            return Some(piece.bytes.clone());
        }
        let mut joined = BytesMut::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
        pieces.iter().for_each(|piece| joined.extend_from_slice(&piece.bytes));
        Some(joined.freeze())
    }

    /// The bytes of each range of a source of `size` bytes. The ranges must be in order. If the last block has to be
    /// fetched, the same GET fetches blocks behind it, up to the one that holds the byte before `ahead`. `reserved`
    /// must cover all these blocks.
    pub(crate) async fn read(
        &self,
        source: Source,
        size: u64,
        ranges: &[Range<u64>],
        ahead: u64,
        reserved: &Reserved,
    ) -> Result<Vec<Vec<Piece>>, StoreError> {
        check(source, size, ranges)?;
        if let Some(written) = self.cut_of_tail(source, ranges) {
            metrics::counter!("floe_log_cache_hits_total", "lane" => "tail").increment(1);
            return Ok(written);
        }
        let blocks = self.blocks(source, size, ranges, ahead.min(size), reserved).await?;
        Ok(ranges.iter().map(|range| cut(&blocks, range)).collect())
    }

    /// The bytes of a small range of a source of `size` bytes: from memory, or fetched without the rest of their blocks
    /// and not kept. `reserved` must cover them.
    pub(crate) async fn read_apart(
        &self,
        source: Source,
        size: u64,
        range: Range<u64>,
        _reserved: &Reserved,
    ) -> Result<Bytes, StoreError> {
        let ranges = std::slice::from_ref(&range);
        check(source, size, ranges)?;
        let pieces = self.cut_of_tail(source, ranges).and_then(|mut written| written.pop());
        if let Some(pieces) = pieces.or_else(|| self.cut_of_cold(source, &range)) {
            let mut joined = BytesMut::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
            pieces.iter().for_each(|piece| joined.extend_from_slice(&piece.bytes));
            return Ok(joined.freeze());
        }
        let _permit = self.shared.gets.acquire().await.expect("the semaphore is never closed");
        self.shared.fetch(source, range).await
    }

    /// The pieces of a range, if all its blocks are in the cold lane.
    fn cut_of_cold(&self, source: Source, range: &Range<u64>) -> Option<Vec<Piece>> {
        let mut lanes = self.shared.lock();
        let block = |number| Some((number, lanes.cold.kept.get(&(source, number))?.clone()));
        let blocks = touched(std::slice::from_ref(range)).map(block).collect::<Option<BTreeMap<_, _>>>()?;
        drop(lanes);
        Some(cut(&blocks, range))
    }

    fn cut_of_tail(&self, source: Source, ranges: &[Range<u64>]) -> Option<Vec<Vec<Piece>>> {
        let own = self.shared.lock().tail.kept.get(&source).cloned();
        let beside = || self.shared.beside.as_ref()?.shared.lock().tail.kept.peek(&source).cloned();
        let written = own.or_else(beside)?;
        Some(ranges.iter().map(|range| written.cut(range)).collect())
    }

    /// All blocks that the ranges touch, from memory or fetched.
    async fn blocks(
        &self,
        source: Source,
        size: u64,
        ranges: &[Range<u64>],
        ahead: u64,
        reserved: &Reserved,
    ) -> Result<BTreeMap<u64, Bytes>, StoreError> {
        let mut blocks = BTreeMap::new();
        let mut flights = Vec::new();
        {
            let mut lanes = self.shared.lock();
            let mut missing = Vec::new();
            for number in touched(ranges) {
                let id = (source, number);
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
            let last = touched(ranges).last();
            for run in runs(&missing) {
                let (sender, flight) = watch::channel(None);
                flights.extend(run.clone().map(|number| (number, flight.clone())));
                let run = match last {
                    Some(last) if run.end == last + 1 => run.start..lanes.free_until(source, &run, ahead),
                    _ => run,
                };
                for number in run.clone() {
                    lanes.flights.insert((source, number), flight.clone());
                }
                self.start(source, size, run, sender, reserved.clone());
            }
        }
        for (number, flight) in flights {
            blocks.insert(number, landed(flight, number).await?);
        }
        Ok(blocks)
    }

    /// Fetches a run of blocks in a task of its own, so that a reader that goes away does not cancel it for others.
    fn start(
        &self,
        source: Source,
        size: u64,
        run: Range<u64>,
        landing: watch::Sender<Option<Landing>>,
        reserved: Reserved,
    ) {
        let shared = Arc::clone(&self.shared);
        self.shared.env.spawn_vital("cache fetch", async move {
            let _reserved = reserved;
            let permit = shared.gets.acquire().await.expect("the semaphore is never closed");
            let range = run.start * BLOCK_BYTES..(run.end * BLOCK_BYTES).min(size);
            let answer = shared.fetch(source, range).await;
            drop(permit);
            let fetched = answer.map(|bytes| Fetched::new(run.start, bytes));
            let mut evicted = Vec::new();
            let mut lanes = shared.lock();
            for number in run {
                lanes.flights.remove(&(source, number));
                if let Ok(fetched) = &fetched {
                    let block = fetched.block(number);
                    let bytes = block.len() + CACHE_BLOCK_OVERHEAD;
                    evicted.extend(lanes.cold.insert((source, number), block, bytes));
                }
            }
            drop(lanes);
            drop(evicted);
            landing.send_replace(Some(fetched));
        });
    }
}

impl Lanes {
    /// The end of a run of blocks that is made longer, with blocks that are neither here nor on their way.
    fn free_until(&self, source: Source, run: &Range<u64>, ahead: u64) -> u64 {
        let most = ahead.div_ceil(BLOCK_BYTES).min(run.start + GET_BLOCKS_MAX);
        let is_free = |number: &u64| {
            let id = (source, *number);
            self.cold.kept.peek(&id).is_none() && !self.flights.contains_key(&id)
        };
        (run.end..most).take_while(is_free).last().map_or(run.end, |last| last + 1)
    }
}

impl CacheState {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        floe_env::lock(&self.lanes)
    }

    async fn fetch(&self, source: Source, range: Range<u64>) -> Result<Bytes, StoreError> {
        source.fetch(&*self.store, &self.meta, range).await
    }
}

/// Marks a large batch that is nearly all of its request's buffer.
pub(crate) fn keep_alone(entries: &mut [WalEntry], buffer: usize) {
    let least = CACHE_CHUNK_BYTES.max(buffer - buffer / CACHE_ALONE_REST);
    entries.iter_mut().for_each(|entry| entry.alone = entry.bytes.len() >= least);
}

/// The copy for the tail of something that is being written. It is made once, by whoever comes first.
pub(crate) struct Copied {
    payload: Vec<Bytes>,
    /// The pieces that need no copy, by their places; empty if all need one.
    alone: Vec<bool>,
    bytes: usize,
    written: OnceLock<Arc<Written>>,
}

impl Copied {
    pub(crate) fn new(payload: Vec<Bytes>, alone: Vec<bool>) -> Copied {
        let bytes = payload.iter().map(Bytes::len).sum();
        Copied { payload, alone, bytes, written: OnceLock::new() }
    }

    fn written(&self, env: &Env) -> &Arc<Written> {
        self.written.get_or_init(|| {
            Arc::new(match self.bytes > CACHE_COPIED_APART_BYTES {
                true => env.heavy(|| Written::new(&self.payload, &self.alone)),
                false => Written::new(&self.payload, &self.alone),
            })
        })
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
    /// Keeps the pieces that are `alone` as they are, and copies the others.
    fn new(payload: &[Bytes], alone: &[bool]) -> Written {
        let mut written = Written { starts: Vec::new(), chunks: Vec::new(), end: 0, beside: 0 };
        let is_alone = |at: usize| alone.get(at).is_some_and(|alone| *alone);
        let mut begin = 0;
        while begin < payload.len() {
            if is_alone(begin) {
                written.beside += payload[begin].len() / (CACHE_ALONE_REST - 1) + 1;
                written.push(payload[begin].clone());
                begin += 1;
                continue;
            }
            let (mut end, mut bytes) = (begin, 0);
            let fits = |end, bytes| end == begin || (bytes <= CACHE_CHUNK_BYTES && !is_alone(end));
            while end < payload.len() && fits(end, bytes + payload[end].len()) {
                bytes += payload[end].len();
                end += 1;
            }
            let mut chunk = BytesMut::with_capacity(bytes);
            payload[begin..end].iter().for_each(|piece| chunk.extend_from_slice(piece));
            written.push(chunk.freeze());
            begin = end;
        }
        written.starts.shrink_to_fit();
        written.chunks.shrink_to_fit();
        written
    }

    /// The memory that it takes, rounded up.
    fn held_bytes(&self) -> usize {
        let overhead = CACHE_OBJECT_OVERHEAD + self.chunks.len() * CACHE_CHUNK_OVERHEAD;
        self.end as usize + self.beside + overhead
    }

    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.starts.push(self.end);
            self.end += chunk.len() as u64;
            self.chunks.push(chunk);
        }
    }

    fn cut(&self, range: &Range<u64>) -> Vec<Piece> {
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let chunks = self.starts[first..].iter().zip(&self.chunks[first..]);
        chunks
            .take_while(|(start, _)| **start < range.end)
            .filter_map(|(start, chunk)| overlap(*start, chunk, range, false))
            .collect()
    }
}

/// The part of a buffer beginning at `start` that lies in `range`.
fn overlap(start: u64, buffer: &Bytes, range: &Range<u64>, from_disk: bool) -> Option<Piece> {
    let from = range.start.max(start);
    let to = range.end.min(start + buffer.len() as u64);
    let slice = || buffer.slice((from - start) as usize..(to - start) as usize);
    (from < to).then(|| Piece { bytes: slice(), buffer: buffer.len(), from_disk })
}

/// The pieces of `range` from the blocks that cover it.
fn cut(blocks: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Vec<Piece> {
    touched(std::slice::from_ref(range))
        .filter_map(|number| overlap(number * BLOCK_BYTES, &blocks[&number], range, true))
        .collect()
}

/// Whether a source of `size` bytes has these ranges.
fn check(source: Source, size: u64, ranges: &[Range<u64>]) -> Result<(), StoreError> {
    match ranges.iter().find(|range| range.start > range.end || range.end > size) {
        None => Ok(()),
        Some(Range { start, end }) => Err(StoreError::Corrupt(format!(
            "bytes {start} to {end} of {source} are referenced, it has {size}"
        ))),
    }
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
#[path = "cache_tests.rs"]
mod tests;
