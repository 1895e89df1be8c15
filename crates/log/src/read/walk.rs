//! The pure parts of reading: extents for an offset or a time, and the batches of an extent.

use bytes::Bytes;
use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup};

use crate::format::records::RecordsError;
use crate::format::{
    batch::Batch,
    header::{self, BatchError, HEADER_BYTES, Header},
    stamp, verify,
};
use crate::map::extent::{Extent, ExtentKey, Spacing};
use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::{self, Bounds};

/// The result of a read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The batches in order, which leave no offset out. The first one may begin before the requested offset. Markers
    /// and offsets without records are batches, too ([`Batch::has_records`]).
    pub batches: Vec<Batch>,
    /// The offset after the last readable record.
    pub high_watermark: Offset,
    /// The first readable offset.
    pub log_start: Offset,
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such partition.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// The offset is before the log start or after the high watermark.
    #[error("the offset is not within {log_start} and {high_watermark}")]
    OutOfRange {
        /// The first readable offset.
        log_start: Offset,
        /// The offset after the last readable record.
        high_watermark: Offset,
    },
    /// The records were moved to another object, or removed, after the reader took its snapshot, and the cleaner did
    /// not know of the reader. A read of a newer snapshot finds what there is.
    #[error("the records of {partition} at {at} are gone since this read began: read again")]
    Gone {
        /// The partition.
        partition: PartitionId,
        /// The first offset of their extent.
        at: Offset,
    },
    /// The store or the metadata did not answer. The caller may try again.
    #[error("the log cannot be read now, try again: {0}")]
    Unavailable(String),
    /// The stored data contradicts itself.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// An unreadable record is damage: trying again does not help.
impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> ReadError {
        ReadError::Corrupt(error.to_string())
    }
}

/// Which offset to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first readable offset.
    Earliest,
    /// The offset that the next record will get.
    Latest,
    /// The offset of the first record with the largest timestamp.
    MaxTimestamp,
    /// The offset of the first record with this timestamp or a later one.
    Timestamp(Timestamp),
}

/// The bounds of a partition, if `from` is readable. The high watermark counts as readable; it yields no batches
/// yet.
///
/// # Errors
/// [`ReadError::UnknownPartition`], [`ReadError::OutOfRange`], [`ReadError::Corrupt`].
pub fn check(map: &impl Lookup, partition: PartitionId, from: Offset) -> Result<Bounds, ReadError> {
    let head = partition::head(map, partition)?.ok_or(ReadError::UnknownPartition)?;
    let Bounds { log_start, high_watermark } = head.bounds();
    if from < log_start || from > high_watermark {
        return Err(ReadError::OutOfRange { log_start, high_watermark });
    }
    Ok(Bounds { log_start, high_watermark })
}

/// The extents of a partition that hold offsets from `from` on, in order.
///
/// # Errors
/// The first record cannot be read; each item may fail the same way.
pub fn extents<M: Lookup>(
    map: &M,
    partition: PartitionId,
    from: Offset,
) -> Result<impl Iterator<Item = Result<(ExtentKey, Extent), DecodeError>> + use<'_, M>, DecodeError> {
    let first = ExtentKey::new(partition, Offset(i64::MIN));
    let last = ExtentKey::new(partition, Offset(i64::MAX));
    let mut start = ExtentKey::new(partition, from);
    if let Some(before) = map.range::<Extent>(first..=start).next_back() {
        let (key, extent) = before?;
        if extent.next_offset(key.base) > from {
            start = key;
        }
    }
    Ok(map.range::<Extent>(start..=last))
}

/// Whether an extent holds the offset `next`: every offset between the log start and the high watermark is in exactly
/// one extent. The `first` extent of a read may begin before it.
pub fn continues(next: Offset, key: ExtentKey, extent: Extent, first: bool) -> bool {
    let begins = key.base == next || (first && key.base < next);
    begins && extent.next_offset(key.base) > next
}

/// The error for an offset that should be readable and that no extent holds. A reader that went on behind it would lose
/// records silently.
pub fn gap(partition: PartitionId, at: Offset) -> ReadError {
    metrics::counter!("floe_log_gaps_read_total").increment(1);
    ReadError::Corrupt(format!(
        "partition {partition} has no record at offset {at}, although later ones exist; `floe check` looks at the \
         whole log"
    ))
}

/// The first extent with a record that is not older than `time`; `None` if all are older. Markers are no records. Scans
/// every extent before it.
///
/// # Errors
/// A record cannot be read.
pub fn extent_at(
    map: &impl Lookup,
    partition: PartitionId,
    log_start: Offset,
    time: Timestamp,
) -> Result<Option<(ExtentKey, Extent)>, DecodeError> {
    for pair in extents(map, partition, log_start)? {
        let (key, extent) = pair?;
        if extent.data().is_some_and(|data| data.max_timestamp >= time.0) {
            return Ok(Some((key, extent)));
        }
    }
    Ok(None)
}

/// The first extent with the largest timestamp; `None` if no record has one. Scans every extent.
///
/// # Errors
/// A record cannot be read.
pub fn extent_of_max(
    map: &impl Lookup,
    partition: PartitionId,
    log_start: Offset,
) -> Result<Option<(ExtentKey, Extent)>, DecodeError> {
    let mut best: Option<(ExtentKey, Extent)> = None;
    for pair in extents(map, partition, log_start)? {
        let (key, extent) = pair?;
        let best_time = best.map_or(-1, |(_, best)| best.max_timestamp());
        if extent.data().is_some_and(|data| data.max_timestamp > best_time) {
            best = Some((key, extent));
        }
    }
    Ok(best)
}

/// The result of [`batches`].
#[derive(Clone, Debug)]
pub struct Walked {
    /// Whole batches in order; at least one if `bytes` holds one that ends after `from`. None leaves an offset out:
    /// where the extent has no records, there is an empty batch.
    pub batches: Vec<Batch>,
    /// The offset of the next batch, or an earlier one if offsets without records lie in front of it.
    pub next: Offset,
    /// The position of the next batch in `bytes`.
    pub position: usize,
    /// Bytes from the start that are needed to hold the next batch whole, as far as its header is present. 0 when
    /// the walk ended at the end of `bytes`, or because it found enough.
    pub need: usize,
}

/// Why the bytes of an extent cannot be split into batches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The bytes where a batch should begin are not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A stamped batch is not where its offset should be.
    #[error("a batch says that it begins at {found}")]
    Order {
        /// The offset in the batch.
        found: i64,
    },
    /// The sum of the first bytes of a stamped batch is wrong.
    #[error("the first bytes of a batch have changed, or are of another partition")]
    Stamp,
    /// A seek index leads to another batch than it says.
    #[error("the seek index leads to a batch that begins at {found}")]
    Seek {
        /// The offset in the batch.
        found: i64,
    },
}

/// The offsets of the bytes of an extent.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The partition of the extent.
    pub partition: PartitionId,
    /// How the batches get their offsets.
    pub spacing: Spacing,
    /// The offset of the batch at the first byte; of stamped batches, that or an earlier one.
    pub base: Offset,
    /// The offset after the last of the extent.
    pub end: Offset,
    /// Whether a batch begins at `base` and at the first byte, because a seek index says so.
    pub sought: bool,
}

impl Run {
    /// The offset of the batch that `bytes` begin with, when those before `next` have been passed.
    fn begin(&self, header: &Header, bytes: &[u8], next: Offset) -> Result<Offset, WalkError> {
        match self.spacing {
            Spacing::Counted => Ok(next),
            Spacing::Stamped if !stamp::is_sound(self.partition, bytes) => Err(WalkError::Stamp),
            Spacing::Stamped => {
                let found = header.base_offset;
                let end = found.checked_add(i64::from(header.offsets()));
                let is_within = found >= next.0 && end.is_some_and(|end| end <= self.end.0);
                if is_within { Ok(Offset(found)) } else { Err(WalkError::Order { found }) }
            }
        }
    }
}

/// Splits the bytes of an extent, or its first part, into batches and finds their offsets. Skips batches that end at or
/// before `from`. Stops before a batch that would exceed `bytes_max`, or that is cut off, and in a gap that is larger
/// than a batch can be.
///
/// # Errors
/// The bytes where a batch should begin are not a batch, or not the right one.
pub fn batches(run: Run, bytes: &Bytes, from: Offset, bytes_max: usize) -> Result<Walked, WalkError> {
    let mut walked = Walked { batches: Vec::new(), next: run.base, position: 0, need: 0 };
    let mut taken = 0usize;
    while walked.position < bytes.len() {
        let rest = &bytes[walked.position..];
        if rest.len() < HEADER_BYTES {
            walked.need = walked.position + HEADER_BYTES;
            break;
        }
        let header = Header::parse(rest)?;
        let begin = run.begin(&header, rest, walked.next)?;
        if run.sought && walked.position == 0 && begin != run.base {
            return Err(WalkError::Seek { found: begin.0 });
        }
        taken += walked.pass(begin, from);
        if walked.next < begin {
            break;
        }
        let next = begin.plus(header.offsets());
        let wanted = next > from;
        if wanted && !walked.batches.is_empty() && taken.saturating_add(header.size) > bytes_max {
            break;
        }
        if rest.len() < header.size {
            walked.need = walked.position + header.size;
            break;
        }
        let end = walked.position + header.size;
        if wanted {
            walked.batches.push(Batch::new(begin, bytes.slice(walked.position..end))?);
            taken += header.size;
        }
        walked.position = end;
        walked.next = next;
    }
    Ok(walked)
}

impl Walked {
    /// Goes on to the offset `to` over offsets without records, as far as one batch can cover them. Returns its bytes.
    fn pass(&mut self, to: Offset, from: Offset) -> usize {
        let begin = self.next.max(from);
        if begin >= to {
            self.next = to;
            return 0;
        }
        let gap = Batch::of_gap(begin, to.0.abs_diff(begin.0));
        self.next = gap.next_offset();
        let bytes = gap.bytes.len();
        self.batches.push(gap);
        bytes
    }
}

/// Finds the first record from `from` on that is not older than `time`, among batches in order. Decodes only
/// batches whose header promises one. Clients may store batches that cannot be decoded, or not into `bytes_max`
/// bytes. For those the header counts, and no reader is led past a record.
///
/// # Errors
/// The bytes of a batch are not those that were stored.
pub fn record_at(
    batches: &[Batch],
    from: Offset,
    time: Timestamp,
    bytes_max: usize,
) -> Result<Option<(Offset, Timestamp)>, RecordsError> {
    let promising = |batch: &&Batch| {
        batch.has_records() && batch.header().max_timestamp >= time.0 && batch.next_offset() > from
    };
    for batch in batches.iter().filter(promising) {
        let mut found = None;
        let whole = each_record(batch, bytes_max, |offset, timestamp| {
            let wanted = timestamp >= time.0 && offset >= from;
            found = wanted.then_some((offset, Timestamp(timestamp)));
            !wanted
        })?;
        if found.is_none() && !whole {
            found = Some(by_header(batch, from));
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Finds the first record from `from` on with the largest timestamp, among batches in order; `None` if no record
/// has a timestamp. For a batch that cannot be decoded into `bytes_max` bytes, the header counts.
///
/// # Errors
/// The bytes of a batch are not those that were stored.
pub fn record_of_max(
    batches: &[Batch],
    from: Offset,
    bytes_max: usize,
) -> Result<Option<(Offset, Timestamp)>, RecordsError> {
    let mut best: Option<(Offset, Timestamp)> = None;
    let time = |best: Option<(Offset, Timestamp)>| best.map_or(-1, |(_, Timestamp(time))| time);
    for batch in batches {
        let is_better = batch.has_records() && batch.header().max_timestamp > time(best);
        if !is_better || batch.next_offset() <= from {
            continue;
        }
        let mut better = best;
        let whole = each_record(batch, bytes_max, |offset, timestamp| {
            if offset >= from && timestamp > time(better) {
                better = Some((offset, Timestamp(timestamp)));
            }
            true
        })?;
        best = if whole { better } else { Some(by_header(batch, from)) };
    }
    Ok(best)
}

/// Hands offset and timestamp of the records of a batch to `each`, until it returns `false`. Returns `false` if the
/// batch's checksum is right but its contents are damaged or too large. Holds no record, however many there are.
fn each_record(
    batch: &Batch,
    bytes_max: usize,
    mut each: impl FnMut(Offset, i64) -> bool,
) -> Result<bool, RecordsError> {
    let header = batch.header();
    header::verify_checksum(header, &batch.bytes)?;
    let each = |delta: i32, timestamp| each(batch.base_offset.plus(delta.cast_unsigned()), timestamp);
    let walked = header.compression().map_err(|error| error.to_string()).and_then(|codec| {
        let walked = verify::timestamps(header, codec, &batch.bytes, bytes_max as u64, each);
        walked.map_err(|error| error.to_string())
    });
    if let Err(error) = &walked {
        tracing::debug!(offset = %batch.base_offset, %error, "a batch cannot be decoded, using its header");
    }
    Ok(walked.is_ok())
}

/// The answer for a batch that cannot be decoded: its first readable offset and the largest timestamp in its
/// header.
fn by_header(batch: &Batch, from: Offset) -> (Offset, Timestamp) {
    (batch.base_offset.max(from), Timestamp(batch.header().max_timestamp))
}
