//! Reading: offsets to extents (`walk.rs`), extents to bytes (`cache.rs`), bytes to batches with offsets.
//!
//! A read uses one snapshot throughout, so it sees one moment of the log, however long it takes. The objects that a
//! snapshot knows stay in the store for the cleaner's grace period.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use floe_env::{Env, Lru, Timestamp};
use floe_meta::Snapshot;
use futures::future::join_all;

use crate::format::{
    batch::Batch,
    header::{HEADER_BYTES, Header},
};
use crate::limits::{
    BLOCK_BYTES, DECODED_BYTES_MAX, EXTENTS_PER_READ_MAX, PLACES_MAX, READ_SURPLUS_BYTES_MAX,
};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::Object;
use crate::map::partition::{self, Head};
use crate::read::cache::Cache;
use crate::read::walk::{self, At, Read, ReadError};
use floe_store::StoreError;

/// Reads the log of this broker. Clones share its places.
#[derive(Clone)]
pub(crate) struct Reader {
    env: Env,
    cache: Cache,
    places: Arc<Mutex<Places>>,
}

/// Where reads stopped inside extents, so that the next read need not walk there again. Maps a partition and an
/// offset to the object and the position in it.
type Places = Lru<(PartitionId, Offset), (ObjectId, u64)>;

/// A wanted part of an extent.
#[derive(Clone, Copy)]
struct Window {
    key: ExtentKey,
    extent: Extent,
    /// The offset of the batch at `position`.
    base: Offset,
    /// The next byte to read, counted from the start of the object.
    position: u64,
    object_size: u64,
}

impl Reader {
    pub(crate) fn new(env: Env, cache: Cache) -> Reader {
        Reader { env, cache, places: Arc::new(Mutex::new(Places::new(PLACES_MAX))) }
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
        let windows = self.plan(snapshot, partition, from, max_bytes)?;
        let fetches = windows.iter().map(|window| self.fetch(window, max_bytes));
        // All at once, because the extents of one partition lie in different objects.
        for (window, fetched) in windows.iter().zip(join_all(fetches).await) {
            if taken.full {
                break;
            }
            self.take(*window, fetched?, &mut taken).await?;
        }
        metrics::counter!("floe_log_read_bytes_total").increment(taken.bytes as u64);
        if let Some(first) = taken.batches.first() {
            assert!(first.next_offset() > from, "the first batch holds the offset or what follows it");
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
    ) -> Result<Vec<Window>, ReadError> {
        let mut windows: Vec<Window> = Vec::new();
        let mut planned = 0u64;
        let mut cold = ColdBlocks::default();
        for pair in walk::extents(snapshot, partition, from)? {
            let (key, extent) = pair?;
            let mut window = window(snapshot, key, extent)?;
            if windows.is_empty()
                && let Some((object, position)) = self.lock().get(&(partition, from))
                && *object == extent.object
                && (extent.position..extent.end()).contains(position)
            {
                (window.base, window.position) = (from, *position);
            }
            planned += extent.end() - window.position;
            if !self.cache.in_tail(extent.object) {
                cold.add(&window, &range_of(&window, max_bytes));
                // Small extents of many objects cost too much at once. The next read continues here.
                if !windows.is_empty() && cold.surplus() > READ_SURPLUS_BYTES_MAX {
                    break;
                }
            }
            windows.push(window);
            if planned >= max_bytes as u64 || windows.len() == EXTENTS_PER_READ_MAX {
                break;
            }
        }
        Ok(windows)
    }

    /// Fetches the bytes of the window that the budget allows, and one block more, so that the last batch is whole.
    async fn fetch(&self, window: &Window, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        let range = range_of(window, max_bytes);
        let read =
            self.cache.read(window.extent.object, window.object_size, std::slice::from_ref(&range)).await;
        let mut pieces = read.map_err(|error| unreadable(window, &error))?;
        Ok(pieces.pop().expect("one range was asked for"))
    }

    /// Takes batches out of a window. Fetches more of its extent until the budget is used up or the extent ends.
    async fn take(
        &self,
        mut window: Window,
        fetched: Vec<Bytes>,
        taken: &mut Taken,
    ) -> Result<(), ReadError> {
        let mut pieces = fetched;
        let mut wanted = taken.bytes_max;
        loop {
            let (next, used, need) = taken.walk(&window, pieces)?;
            window.base = next;
            window.position += used;
            if window.position == window.extent.end() {
                return match next == window.extent.next_offset(window.key.base) {
                    true => Ok(()),
                    false => Err(corrupt(&window, "its batches do not hold the offsets that they should")),
                };
            }
            if taken.full {
                self.remember(&window);
                return Ok(());
            }
            // The batch is larger than the window, or the offset lies further on.
            wanted = wanted.max(need as usize);
            if window.position + need > window.extent.end() {
                return Err(corrupt(&window, "its last batch does not end with it"));
            }
            pieces = self.fetch(&window, wanted).await?;
        }
    }

    fn remember(&self, stopped: &Window) {
        let place = (stopped.key.partition, stopped.base);
        drop(self.lock().insert(place, (stopped.extent.object, stopped.position), 1));
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        floe_env::lock(&self.places)
    }

    pub(crate) async fn offset_at(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        at: At,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let head = partition::head(snapshot, partition)?.ok_or(ReadError::UnknownPartition)?;
        let none = Timestamp(-1);
        match at {
            At::Earliest => Ok(Some((head.log_start, none))),
            At::Latest => Ok(Some((head.next, none))),
            At::Timestamp(time) => self.offset_of_time(snapshot, partition, head, time).await,
            At::MaxTimestamp => match walk::extent_of_max(snapshot, partition, head.log_start)? {
                Some((key, extent)) => {
                    let batches = self.whole(snapshot, key, extent).await?;
                    let find = move || walk::record_of_max(&batches, head.log_start, DECODED_BYTES_MAX);
                    self.env.blocking(find).await.map_err(|error| ReadError::Corrupt(error.to_string()))
                }
                None => Ok(None),
            },
        }
    }

    async fn offset_of_time(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        head: Head,
        time: Timestamp,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let mut from = head.log_start;
        // The extent's largest timestamp may belong to a record before the log start. In that case the search
        // continues.
        while let Some((key, extent)) = walk::extent_at(snapshot, partition, from, time)? {
            let batches = self.whole(snapshot, key, extent).await?;
            let find = move || walk::record_at(&batches, head.log_start, time, DECODED_BYTES_MAX);
            let found =
                self.env.blocking(find).await.map_err(|error| ReadError::Corrupt(error.to_string()))?;
            if found.is_some() {
                return Ok(found);
            }
            from = extent.next_offset(key.base);
        }
        Ok(None)
    }

    /// All batches of an extent.
    async fn whole(
        &self,
        snapshot: &Snapshot,
        key: ExtentKey,
        extent: Extent,
    ) -> Result<Vec<Batch>, ReadError> {
        let window = window(snapshot, key, extent)?;
        let mut taken = Taken::new(key.base, usize::MAX);
        let fetched = self.fetch(&window, extent.bytes as usize).await?;
        self.take(window, fetched, &mut taken).await?;
        Ok(taken.batches)
    }
}

fn window(snapshot: &Snapshot, key: ExtentKey, extent: Extent) -> Result<Window, ReadError> {
    let object = snapshot.get::<Object>(&extent.object)?;
    let object = object
        .ok_or_else(|| ReadError::Corrupt(format!("object {} has extents but no record", extent.object)))?;
    Ok(Window { key, extent, base: key.base, position: extent.position, object_size: object.size })
}

/// The range of the object to fetch for a window and a budget.
fn range_of(window: &Window, max_bytes: usize) -> Range<u64> {
    let wanted = (max_bytes as u64).saturating_add(BLOCK_BYTES).min(window.extent.end() - window.position);
    window.position..window.position + wanted
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

    /// Bytes fetched beyond the wanted ones.
    fn surplus(&self) -> u64 {
        self.fetched.saturating_sub(self.wanted)
    }
}

/// The batches that a read has taken so far.
struct Taken {
    from: Offset,
    bytes_max: usize,
    batches: Vec<Batch>,
    bytes: usize,
    /// Whether the next batch exceeds the budget.
    full: bool,
}

impl Taken {
    fn new(from: Offset, bytes_max: usize) -> Taken {
        Taken { from, bytes_max, batches: Vec::new(), bytes: 0, full: false }
    }

    /// Takes whole batches from the pieces. Returns the offset of the next batch, the number of bytes before it in
    /// the pieces, and the least number of bytes that it needs from there if it is cut off.
    fn walk(&mut self, window: &Window, pieces: Vec<Bytes>) -> Result<(Offset, u64, u64), ReadError> {
        let mut pieces: VecDeque<Bytes> = pieces.into();
        let mut next = window.base;
        let mut used = 0;
        while let Some(piece) = pieces.pop_front() {
            if self.is_full(next, &piece) {
                self.full = true;
                return Ok((next, used, 0));
            }
            let left = self.bytes_max - self.bytes.min(self.bytes_max);
            let walked = walk::batches(next, &piece, self.from, left)
                .map_err(|error| corrupt(window, &format!("at offset {next}: {error}")))?;
            self.bytes += walked.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
            self.batches.extend(walked.batches);
            next = walked.next;
            used += walked.position as u64;
            let rest = piece.slice(walked.position..);
            if walked.need > 0 {
                // The batch continues in the next piece, so the two are joined by a copy.
                let need = walked.need - walked.position;
                match join(&rest, &mut pieces, need) {
                    Some(joined) => pieces.push_front(joined),
                    None => return Ok((next, used, need as u64)),
                }
            } else if !rest.is_empty() {
                self.full = true;
                return Ok((next, used, 0));
            }
        }
        Ok((next, used, 1))
    }

    /// Whether the batch at the start of `piece` exceeds the budget. The first batch never does: a reader with a
    /// small budget must make progress.
    fn is_full(&self, next: Offset, piece: &Bytes) -> bool {
        if self.batches.is_empty() || next < self.from {
            return false;
        }
        match Header::parse(&piece[..piece.len().min(HEADER_BYTES)]) {
            Ok(header) => self.bytes.saturating_add(header.size) > self.bytes_max,
            // Too short to tell, or damaged. The walk finds out.
            Err(_) => self.bytes >= self.bytes_max,
        }
    }
}

/// Joins `first` and the following pieces to `need` bytes. Takes nothing if there are fewer.
fn join(first: &Bytes, pieces: &mut VecDeque<Bytes>, need: usize) -> Option<Bytes> {
    let available = first.len() + pieces.iter().map(Bytes::len).sum::<usize>();
    if available < need {
        return None;
    }
    let mut joined = BytesMut::with_capacity(need);
    joined.extend_from_slice(first);
    while joined.len() < need {
        let mut piece = pieces.pop_front().expect("there are enough bytes");
        let part = piece.split_to(piece.len().min(need - joined.len()));
        joined.extend_from_slice(&part);
        if !piece.is_empty() {
            pieces.push_front(piece);
        }
    }
    Some(joined.freeze())
}

fn corrupt(window: &Window, what: &str) -> ReadError {
    let Window { key, extent, .. } = window;
    ReadError::Corrupt(format!(
        "object {}, extent of {} at {}: {what}",
        extent.object, key.partition, key.base
    ))
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
