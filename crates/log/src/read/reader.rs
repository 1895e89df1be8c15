//! Reading: offsets to extents (`walk.rs`), extents to bytes (`cache.rs`), bytes to batches (`taken.rs`).
//!
//! A read takes memory for the blocks that it needs from one budget for all reads, and gives it back when it returns.
//! The batches that it returns keep at most twice their own bytes in memory.
//!
//! A read uses one snapshot throughout, so it sees one moment of the log, however long it takes. The objects that a
//! snapshot knows stay in the store while it is pinned (`pins.rs`), and for the cleaner's grace period.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use floe_env::{Lru, Timestamp};
use floe_meta::{Meta, Snapshot};
use futures::future::join_all;

use crate::format::{
    batch::Batch,
    header::HEADER_BYTES,
    seek::{Interval, SeekIndex},
};
use crate::limits::{
    ALONE_BYTES_MAX, BLOCK_BYTES, EXTENTS_PER_READ_MAX, PLACES_MAX, READ_BLOCKS_BYTES_MAX,
    READ_SURPLUS_BYTES_MAX,
};
use crate::map::extent::{Data, Extent, ExtentKey, Marker, Place};
use crate::map::ids::{Offset, PartitionId};
use crate::map::object::Object;
use crate::read::ahead::Ahead;
use crate::read::cache::{Cache, Piece, Reserved};
use crate::read::damage::{Damages, FoundBy, Met, Part as DamagedPart, still_there};
use crate::read::frames::Frames;
use crate::read::seeks::Seeks;
use crate::read::source::Source;
use crate::read::taken::{Taken, Took, Window, corrupt};
use crate::read::walk::{self, Read, ReadError};
use floe_store::StoreError;

/// Bytes of an extent that one read asks for at once: a range may begin and end inside a block.
const RANGE_BYTES_MAX: u64 = READ_BLOCKS_BYTES_MAX - 2 * BLOCK_BYTES;
/// About the bytes of a batch that the broker makes.
const MADE_BYTES: u64 = HEADER_BYTES as u64;

/// Reads the log of this broker. Clones share its places.
#[derive(Clone)]
pub(crate) struct Reader {
    meta: Meta,
    cache: Cache,
    frames: Frames,
    seeks: Seeks,
    ahead: Ahead,
    pub(crate) damages: Damages,
    places: Arc<Mutex<Places>>,
}

/// Where reads stopped inside extents, so that the next read need not walk there again. Maps a partition and an
/// offset to the source of its bytes and the position in it.
type Places = Lru<(PartitionId, Offset), (Source, u64)>;

impl Reader {
    pub(crate) fn new(meta: Meta, cache: Cache, frames: Frames, damages: Damages) -> Reader {
        let (seeks, ahead) = (Seeks::new(cache.clone()), cache.ahead());
        let places = Arc::new(Mutex::new(Places::new(PLACES_MAX)));
        Reader { meta, cache, frames, seeks, ahead, damages, places }
    }

    /// Reads on somebody's behalf. Damage that it meets is noted, and so is what is whole again.
    pub(crate) async fn read(
        &self,
        by: FoundBy,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        let read = self.read_unnoted(snapshot, partition, from, max_bytes).await;
        match &read {
            Ok(read) => self.damages.read(partition, &read.batches),
            Err(error) => self.note(by, snapshot, partition, from, error),
        }
        read
    }

    /// Notes the damage that made a read fail which began at an offset. A read serves what lies in front of damage. So
    /// it fails for the extent with which it began.
    pub(crate) fn note(
        &self,
        by: FoundBy,
        snapshot: &Snapshot,
        partition: PartitionId,
        at: Offset,
        error: &ReadError,
    ) {
        let ReadError::Corrupt(what) = error else { return };
        let newest = self.meta.snapshot();
        if let Some((key, extent)) = still_there(snapshot, &newest, partition, at) {
            let (part, what) = (DamagedPart::Bytes, what.clone());
            self.damages.met(&newest, Met { by, part, key, extent, at, what });
        }
    }

    async fn read_unnoted(
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
        let mut taken = Taken::new(from, max_bytes, !self.cache.is_remote());
        let sought = self.seek(snapshot, partition, from).await?;
        let plan = self.plan(snapshot, partition, from, max_bytes, sought)?;
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

    /// Where to begin in the first extent, if its seek index knows a better place than its start, and nobody stopped
    /// where this read begins.
    async fn seek(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Option<Interval>, ReadError> {
        let first = walk::extents(snapshot, partition, from)?.next().transpose()?;
        let Some((key, Extent::Data(data))) = first.filter(|(key, _)| key.base < from) else {
            return Ok(None);
        };
        if self.lock().peek(&(partition, from)).is_some_and(|(source, _)| *source == Source::of(&data)) {
            return Ok(None);
        }
        let index = self.index(snapshot, key, data).await?;
        let found = index.and_then(|index| index.at(from).copied());
        // The section's start has the offsets in front of its first batch, too.
        Ok(found.filter(|interval| interval.position > data.position))
    }

    /// From where on an extent may have a record that is not older than `time`, at `from` or behind it; none if it has
    /// no such record from there on.
    pub(crate) async fn next_at(
        &self,
        snapshot: &Snapshot,
        (key, extent): (ExtentKey, Extent),
        from: Offset,
        time: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let Extent::Data(data) = extent else { return Ok(Some(from)) };
        match self.index(snapshot, key, data).await? {
            Some(index) => Ok(index.next_at(from, time.0)),
            None => Ok(Some(from)),
        }
    }

    /// The largest timestamp that an extent promises from an offset on; none if only a look at its batches can tell.
    pub(crate) async fn max_from(
        &self,
        snapshot: &Snapshot,
        (key, extent): (ExtentKey, Extent),
        from: Offset,
    ) -> Result<Option<Timestamp>, ReadError> {
        let Extent::Data(data) = extent else { return Ok(None) };
        let index = self.index(snapshot, key, data).await?;
        Ok(index.map(|index| Timestamp(index.max_from(from))))
    }

    async fn index(
        &self,
        snapshot: &Snapshot,
        key: ExtentKey,
        data: Data,
    ) -> Result<Option<Arc<SeekIndex>>, ReadError> {
        let window = self.window(snapshot, key, data)?;
        let index = self.seeks.index(key, &data, window.source_size).await;
        index.map_err(|error| unreadable(&window, &error, &self.meta.snapshot()))
    }

    /// The extents that a read needs, and where to begin in the first one.
    fn plan(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
        sought: Option<Interval>,
    ) -> Result<Plan, ReadError> {
        let mut plan = Plan::default();
        let mut planned = 0u64;
        let (mut cold, mut readers) = (ColdBlocks::default(), None);
        let mut next = from;
        for pair in walk::extents(snapshot, partition, from)? {
            let (key, extent) = pair?;
            // What lies before a gap is still served. The read that begins at it is refused.
            if !walk::continues(next, key, extent, plan.parts.is_empty()) {
                break;
            }
            next = extent.next_offset(key.base);
            let data = match extent {
                Extent::Data(data) => data,
                Extent::Marker(marker) => {
                    plan.parts.push(Part::Marker(key.base, marker));
                    planned += MADE_BYTES;
                    if plan.is_full(planned, max_bytes) { break } else { continue }
                }
                Extent::Gap(_) => {
                    plan.parts.push(Part::Gap(key.base, next));
                    planned += MADE_BYTES;
                    if plan.is_full(planned, max_bytes) { break } else { continue }
                }
            };
            let mut window = match self.window(snapshot, key, data) {
                Ok(window) => window,
                // As for a gap.
                Err(_) if !plan.parts.is_empty() => break,
                Err(error) => return Err(error),
            };
            let is_first = plan.parts.is_empty();
            let goes_on = is_first && self.begin(&mut window, partition, from, sought);
            // One block more than is wanted, so that the last batch is whole.
            let wanted = (max_bytes as u64).saturating_sub(planned).saturating_add(BLOCK_BYTES);
            let range = range_of(&window, wanted.min(RANGE_BYTES_MAX));
            planned += data.end() - window.position;
            let mut fetch = Fetch::Blocks { until: range.end };
            if !self.cache.in_tail(window.source) {
                let readers = *readers.get_or_insert_with(|| self.ahead.readers(partition));
                fetch = self.how(&window, &range, readers, goes_on, planned <= max_bytes as u64);
                cold.add(&window, &range, fetch);
                // Small extents of many objects cost too much at once. The next read continues here.
                if !is_first && cold.exceeds() {
                    break;
                }
                plan.cold_bytes = cold.fetched;
            }
            let is_whole = range.end == data.end();
            plan.parts.push(Part::Window(window, range, fetch));
            if !is_whole || plan.is_full(planned, max_bytes) {
                break;
            }
        }
        match plan.parts.is_empty() {
            true => Err(walk::gap(partition, from)),
            false => Ok(plan),
        }
    }

    /// Moves the window of a read that begins within an extent: to where another one stopped, or to where an index
    /// says. Returns whether it looks as if the reader went on.
    fn begin(
        &self,
        window: &mut Window,
        partition: PartitionId,
        from: Offset,
        sought: Option<Interval>,
    ) -> bool {
        let within = window.data.position..window.data.end();
        if let Some((source, position)) = self.lock().get(&(partition, from))
            && *source == window.source
            && within.contains(position)
        {
            (window.base, window.position) = (from, *position);
            return true;
        }
        if let Some(Interval { first, position, .. }) = sought {
            (window.base, window.position, window.sought) = (first, position, true);
        }
        from == window.key.base
    }

    /// How the bytes of a window are fetched, of which a read needs a range. It takes `all` of them, or maybe not.
    fn how(&self, window: &Window, range: &Range<u64>, readers: u64, goes_on: bool, all: bool) -> Fetch {
        let Window { source, data, .. } = *window;
        let until = range.end;
        let Some(from) = self.cache.lacks_from(source, range) else { return Fetch::Blocks { until } };
        let is_small = all && *range == (data.position..data.end()) && data.bytes <= ALONE_BYTES_MAX;
        if is_small && self.ahead.is_alone(readers, source, data.position) {
            return Fetch::Alone;
        }
        if !goes_on || !matches!(source, Source::Object(_)) {
            return Fetch::Blocks { until };
        }
        let ahead = from.saturating_add(self.ahead.get_bytes(readers));
        Fetch::Blocks { until: ahead.clamp(until, data.end()) }
    }

    /// Takes what was planned, all at once, because the extents of one partition lie in different objects. Returns the
    /// window that holds the first batch, and the bytes that it needs, if the batch was not among them.
    async fn take_planned(&self, plan: Plan, taken: &mut Taken) -> Result<Option<(Window, u64)>, ReadError> {
        let reserved = self.cache.reserve(plan.cold_bytes).await;
        let fetches = plan.parts.iter().filter_map(|part| match part {
            Part::Window(window, range, fetch) => Some(self.fetch(window, range, *fetch, &reserved)),
            Part::Marker(..) | Part::Gap(..) => None,
        });
        let mut fetched = join_all(fetches).await.into_iter();
        for part in plan.parts {
            let mut window = match part {
                Part::Window(window, ..) => window,
                Part::Marker(base, marker) => match taken.take_made(Batch::of_marker(base, &marker)) {
                    true => continue,
                    false => break,
                },
                Part::Gap(mut base, end) => match taken.pass(&mut base, end) {
                    Took::Everything => continue,
                    Took::Enough | Took::Part(_) => break,
                },
            };
            let pieces = fetched.next().expect("each window was fetched");
            let took = match pieces.and_then(|pieces| taken.take(&mut window, pieces)) {
                Ok(took) => took,
                // What lies before damage is still served. The read that begins at it is refused.
                Err(_) if !taken.batches.is_empty() => break,
                Err(error) => return Err(error),
            };
            match took {
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
            let pieces = self.fetch(&window, &range, Fetch::Blocks { until: range.end }, &reserved).await?;
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
        how: Fetch,
        reserved: &Reserved,
    ) -> Result<Vec<Piece>, ReadError> {
        let Window { source, source_size, .. } = *window;
        let read = match how {
            Fetch::Alone => {
                let read = self.cache.read_apart(source, source_size, range.clone(), reserved).await;
                read.map(|bytes| vec![Piece { buffer: bytes.len(), bytes, from_disk: true }])
            }
            Fetch::Blocks { until } => {
                let ranges = std::slice::from_ref(range);
                let read = self.cache.read(source, source_size, ranges, until, reserved).await;
                read.map(|mut pieces| pieces.pop().expect("one range was asked for"))
            }
        };
        read.map_err(|error| unreadable(window, &error, &self.meta.snapshot()))
    }

    fn window(&self, snapshot: &Snapshot, key: ExtentKey, data: Data) -> Result<Window, ReadError> {
        let source_size = match data.place {
            Place::Object(id) => {
                let object = snapshot.get::<Object>(&id)?;
                let missing = || ReadError::Corrupt(format!("object {id} has extents but no record"));
                object.ok_or_else(missing)?.size
            }
            // One that is not counted any more is gone, which is found out when it is read.
            Place::Frame => self.frames.bytes(data.lsn).unwrap_or_default().max(data.end()),
        };
        let (source, base, position) = (Source::of(&data), key.base, data.position);
        Ok(Window { key, data, source, base, position, sought: false, source_size })
    }

    fn remember(&self, stopped: &Window) {
        let place = (stopped.key.partition, stopped.base);
        drop(self.lock().insert(place, (stopped.source, stopped.position), 1));
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        floe_env::lock(&self.places)
    }
}

/// The next `wanted` bytes of a window, as far as it goes.
fn range_of(window: &Window, wanted: u64) -> Range<u64> {
    window.position..window.position + wanted.min(window.data.end() - window.position)
}

/// Bytes of the blocks that a range touches, at most.
fn blocks_bytes(range: &Range<u64>) -> u64 {
    (range.end.div_ceil(BLOCK_BYTES) - range.start / BLOCK_BYTES) * BLOCK_BYTES
}

/// What one read takes, in order.
#[derive(Default)]
struct Plan {
    parts: Vec<Part>,
    /// Bytes that are not in the tail: of blocks, or of extents that are fetched alone.
    cold_bytes: u64,
}

enum Part {
    /// Bytes of an extent.
    Window(Window, Range<u64>, Fetch),
    /// A marker with its offset.
    Marker(Offset, Marker),
    /// Offsets without records.
    Gap(Offset, Offset),
}

/// How the bytes of an extent are fetched.
#[derive(Clone, Copy)]
enum Fetch {
    /// In whole blocks, up to the one that holds the byte before `until`.
    Blocks { until: u64 },
    /// Without the rest of their blocks.
    Alone,
}

impl Plan {
    fn is_full(&self, planned: u64, max_bytes: usize) -> bool {
        planned >= max_bytes as u64 || self.parts.len() == EXTENTS_PER_READ_MAX
    }
}

/// The blocks that a read takes from the store or from the cold lane, each counted once.
#[derive(Default)]
struct ColdBlocks {
    blocks: BTreeSet<(Source, u64)>,
    fetched: u64,
    wanted: u64,
}

impl ColdBlocks {
    fn add(&mut self, window: &Window, range: &Range<u64>, how: Fetch) {
        let Fetch::Blocks { until } = how else {
            let bytes = range.end - range.start;
            (self.wanted, self.fetched) = (self.wanted + bytes, self.fetched + bytes);
            return;
        };
        self.wanted += until - range.start;
        for number in range.start / BLOCK_BYTES..until.div_ceil(BLOCK_BYTES) {
            if self.blocks.insert((window.source, number)) {
                let rest = window.source_size.saturating_sub(number * BLOCK_BYTES);
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

/// Whether the source of a window has to be there. An extent that cannot be read needs it, too.
fn is_needed(window: &Window, newest: &Snapshot) -> bool {
    match window.source {
        Source::Object(object) => matches!(newest.get::<Object>(&object), Ok(Some(_))),
        Source::Frame(_) => match newest.get::<Extent>(&window.key) {
            Ok(Some(extent)) => extent.data().is_some_and(|data| Source::of(data) == window.source),
            Ok(None) => false,
            Err(_) => true,
        },
    }
}

fn unreadable(window: &Window, error: &StoreError, newest: &Snapshot) -> ReadError {
    match error {
        // An extent of this snapshot refers to it. If none does any more, it was deleted.
        StoreError::NotFound(_) if !is_needed(window, newest) => {
            let ExtentKey { partition, base: at } = window.key;
            metrics::counter!("floe_log_gone_reads_total").increment(1);
            ReadError::Gone { partition, at }
        }
        // Otherwise a missing or short object is damage.
        StoreError::NotFound(_) | StoreError::Corrupt(_) => corrupt(window, &error.to_string()),
        StoreError::NotApplied(_) | StoreError::Unknown(_) | StoreError::Full(_) => {
            ReadError::Unavailable(error.to_string())
        }
    }
}
