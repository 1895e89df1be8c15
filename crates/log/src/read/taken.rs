//! Batches out of the pieces of extents: as many whole ones as a budget allows. No I/O.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::format::{
    batch::Batch,
    header::{self, HEADER_BYTES, Header},
};
use crate::map::extent::{Data, Extent, ExtentKey, Spacing};
use crate::map::ids::Offset;
use crate::map::object::ObjectKind;
use crate::read::cache::Piece;
use crate::read::source::Source;
use crate::read::walk::{self, ReadError, Run};

/// A wanted part of an extent.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) key: ExtentKey,
    pub(crate) data: Data,
    pub(crate) source: Source,
    /// The offset of the batch at `position`, or of offsets without records in front of it.
    pub(crate) base: Offset,
    /// The next byte to read, counted from the start of the source.
    pub(crate) position: u64,
    /// Whether a seek index says that the batch at `position` begins at `base`.
    pub(crate) sought: bool,
    /// Bytes of the source.
    pub(crate) source_size: u64,
}

impl Window {
    /// The offset after the last of the extent.
    pub(crate) fn end(&self) -> Offset {
        Extent::Data(self.data).next_offset(self.key.base)
    }
}

/// What was taken out of the pieces of a window.
pub(crate) enum Took {
    /// All batches, up to the end of the extent.
    Everything,
    /// As many as the budget allows.
    Enough,
    /// All that were whole. The next one needs so many bytes.
    Part(u64),
}

/// The batches that a read has taken so far.
pub(crate) struct Taken {
    from: Offset,
    bytes_max: usize,
    /// Whether the store compares what it hands out of WAL objects. The packs of a local store have sums.
    compared: bool,
    pub(crate) batches: Vec<Batch>,
    pub(crate) bytes: usize,
    /// Whether the next batch exceeds the budget.
    full: bool,
}

impl Taken {
    pub(crate) fn new(from: Offset, bytes_max: usize, compared: bool) -> Taken {
        Taken { from, bytes_max, compared, batches: Vec::new(), bytes: 0, full: false }
    }

    /// Takes whole batches from the pieces of a window, and moves the window to the next batch.
    pub(crate) fn take(&mut self, window: &mut Window, pieces: Vec<Piece>) -> Result<Took, ReadError> {
        let (next, used, need) = self.walk(window, pieces)?;
        (window.base, window.position) = (next, window.position + used);
        window.sought &= used == 0;
        let end = window.data.end();
        match window.position == end {
            true if window.data.spacing == Spacing::Stamped => {
                let end = window.end();
                Ok(self.pass(&mut window.base, end))
            }
            true if next == window.end() => Ok(Took::Everything),
            true => Err(corrupt(window, "its batches do not hold the offsets that they should")),
            false if self.full => Ok(Took::Enough),
            false if window.position + need > end => {
                Err(corrupt(window, "its last batch does not end with it"))
            }
            false => Ok(Took::Part(need)),
        }
    }

    /// Takes a batch that the broker made, which lies at `next`. Returns `false` if the budget has no room for it.
    pub(crate) fn take_made(&mut self, batch: Batch) -> bool {
        let bytes = batch.bytes.len();
        if !self.batches.is_empty() && self.bytes.saturating_add(bytes) > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        self.batches.push(batch);
        true
    }

    /// Goes on from `next` to `end` over offsets without records, as far as one batch can cover them.
    pub(crate) fn pass(&mut self, next: &mut Offset, end: Offset) -> Took {
        *next = (*next).max(self.from);
        if *next >= end {
            return Took::Everything;
        }
        let gap = Batch::of_gap(*next, end.0.abs_diff(next.0));
        let after = gap.next_offset();
        if !self.take_made(gap) {
            return Took::Enough;
        }
        *next = after;
        if after == end { Took::Everything } else { Took::Enough }
    }

    /// Takes whole batches from the pieces. Returns the offset of the next batch, the number of bytes before it in
    /// the pieces, and the least number of bytes that it needs from there if it is cut off.
    fn walk(&mut self, window: &Window, pieces: Vec<Piece>) -> Result<(Offset, u64, u64), ReadError> {
        let mut pieces: VecDeque<Piece> = pieces.into();
        let mut next = window.base;
        let mut used = 0;
        while let Some(Piece { bytes, buffer, from_disk }) = pieces.pop_front() {
            if self.is_full(next, &bytes) {
                self.full = true;
                return Ok((next, used, 0));
            }
            let left = self.bytes_max - self.bytes.min(self.bytes_max);
            let run = Run {
                partition: window.key.partition,
                spacing: window.data.spacing,
                base: next,
                end: window.end(),
                sought: window.sought && used == 0,
            };
            let walked = walk::batches(run, &bytes, self.from, left)
                .map_err(|error| corrupt(window, &format!("at offset {next}: {error}")))?;
            // Nobody else compares what lies in the journal, in a segment, or in a bucket, with what was written.
            if from_disk && !(self.compared && is_wal(window.source)) {
                walked.batches.iter().try_for_each(|batch| compare(window, batch))?;
            }
            self.keep(walked.batches, buffer);
            next = walked.next;
            used += walked.position as u64;
            let rest = bytes.slice(walked.position..);
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

    /// Keeps batches that are slices of one buffer. Those of less than half of it are copied: a slow reader would keep
    /// the whole buffer in memory, and nobody would count it.
    fn keep(&mut self, batches: Vec<Batch>, buffer: usize) {
        let bytes = batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        self.bytes += bytes;
        match bytes < buffer / 2 {
            true => self.batches.extend(batches.into_iter().map(Batch::owned)),
            false => self.batches.extend(batches),
        }
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
fn join(first: &Bytes, pieces: &mut VecDeque<Piece>, need: usize) -> Option<Piece> {
    let available = first.len() + pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>();
    if available < need {
        return None;
    }
    let from_disk = pieces.iter().any(|piece| piece.from_disk);
    let mut joined = BytesMut::with_capacity(need);
    joined.extend_from_slice(first);
    while joined.len() < need {
        let mut piece = pieces.pop_front().expect("there are enough bytes");
        let part = piece.bytes.split_to(piece.bytes.len().min(need - joined.len()));
        joined.extend_from_slice(&part);
        if !piece.bytes.is_empty() {
            pieces.push_front(piece);
        }
    }
    Some(Piece { bytes: joined.freeze(), buffer: need, from_disk })
}

fn is_wal(source: Source) -> bool {
    matches!(source, Source::Object(object) if object.kind() == ObjectKind::Wal)
}

/// Compares a batch with its own checksum. What that leaves out is stamped on the way out, or found by the walk.
fn compare(window: &Window, batch: &Batch) -> Result<(), ReadError> {
    header::verify_checksum(batch.header(), &batch.bytes).map_err(|error| {
        metrics::counter!("floe_log_damaged_batches_total").increment(1);
        corrupt(window, &format!("at offset {}: {error}", batch.base_offset))
    })
}

pub(crate) fn corrupt(window: &Window, what: &str) -> ReadError {
    let Window { key, source, .. } = window;
    ReadError::Corrupt(format!("{source}, extent of {} at {}: {what}", key.partition, key.base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{codec::Compression, records::Builder};
    use crate::map::extent::{Place, WrittenBy};
    use crate::map::ids::{ObjectId, PartitionId, TopicId, WriterId};
    use floe_meta::Lsn;

    fn batch(bytes: usize) -> Bytes {
        let mut builder = Builder::new(Compression::None);
        builder.push(1, None, Some(&vec![1; bytes]), &[]);
        builder.build()
    }

    /// A window over an extent of these batches, and their bytes as one buffer.
    fn extent(batches: &[Bytes]) -> (Window, Bytes) {
        let buffer = Bytes::from(batches.concat());
        let data = Data {
            place: Place::Object(ObjectId(1)),
            position: 0,
            bytes: buffer.len() as u64,
            offsets: batches.len() as u64,
            spacing: Spacing::Counted,
            max_timestamp: 1,
            written_by: WrittenBy::One(WriterId(0)),
            lsn: Lsn(0),
        };
        let key = ExtentKey::new(PartitionId::new(TopicId(1), 0), Offset(0));
        let (source, base) = (Source::of(&data), Offset(0));
        let source_size = data.bytes;
        let window = Window { key, data, source, base, position: 0, sought: false, source_size };
        (window, buffer)
    }

    /// A client that reads slowly keeps its answer for long, and only the bytes of the batches are counted.
    #[test]
    fn batches_keep_at_most_twice_their_bytes_in_memory() {
        let batches: Vec<Bytes> = (0..10).map(|_| batch(1_000)).collect();
        for wanted in 1..=10 {
            let (mut window, buffer) = extent(&batches);
            let mut taken = Taken::new(Offset(0), wanted * batches[0].len(), true);
            let piece = Piece { bytes: buffer.clone(), buffer: buffer.len(), from_disk: true };
            taken.take(&mut window, vec![piece]).expect("the extent is sound");
            assert_eq!(taken.batches.len(), wanted);
            assert!(taken.batches.iter().zip(&batches).all(|(taken, batch)| taken.bytes == *batch));
            assert_eq!(buffer.is_unique(), wanted < 5, "{wanted} batches");
        }
    }

    #[test]
    fn a_window_says_what_was_taken_of_it() {
        let batches = [batch(100), batch(5_000), batch(100)];
        let (window, buffer) = extent(&batches);
        let take = |from: i64, bytes_max: usize, until: usize| {
            let (mut window, mut taken) = (window, Taken::new(Offset(from), bytes_max, true));
            let bytes = buffer.slice(..until);
            let piece = Piece { buffer: bytes.len(), bytes, from_disk: true };
            let took = taken.take(&mut window, vec![piece]).expect("the extent is sound");
            (took, taken.batches.len(), window.base.0)
        };
        let (first, second) = (batches[0].len(), batches[1].len());
        assert!(matches!(take(0, 100_000, buffer.len()), (Took::Everything, 3, 3)));
        assert!(matches!(take(2, 100_000, buffer.len()), (Took::Everything, 1, 3)));
        assert!(matches!(take(0, 1, buffer.len()), (Took::Enough, 1, 1)));
        assert!(matches!(take(0, 100_000, first + 1_000), (Took::Part(need), 1, 1) if need == second as u64));
        assert!(matches!(take(1, 100_000, first + 1_000), (Took::Part(need), 0, 1) if need == second as u64));
        assert!(matches!(take(0, 100_000, first + second), (Took::Part(1), 2, 2)));
    }
}
