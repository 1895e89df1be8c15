//! The seek index of a section: which bytes of it have an offset or a time.
//!
//! It lies directly behind the batches of its section, so its place follows from the extent: one read of
//! [`INDEX_BYTES_MAX`] bytes from the extent's end has all of it, and nobody needs the footer.
//! ```text
//!  0  CRC-32C u32 of the partition's index, first offset and position of the section, and of all that follows
//!  4  version u8 = 1, zero u8
//!  6  bytes of the intervals u16
//!  8  intervals: offset of the first batch | bytes | largest timestamp
//! ```
//! An interval is some whole batches. Its numbers are postcard's: the offset counts from that of the interval before,
//! or from the section's first; the timestamp is a difference to that before, or to 0. It is that of the headers of
//! batches with records; -1 for none. The bytes of all intervals are those of the section.
//!
//! An interval has at least [`INTERVAL_BYTES_MIN`] bytes, but for the last. When there are more than [`INTERVALS_MAX`],
//! the bound doubles and neighbours are joined. So the index is made in one pass, is small, and follows from the
//! batches alone: whoever has them all makes the same one.

use floe_meta::{put_postcard, take_part};

use crate::format::header::Header;
use crate::map::extent::{Data, Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId};

/// Bytes of an index at most.
pub const INDEX_BYTES_MAX: usize = 16 << 10;
/// Bytes of an interval at least.
pub const INTERVAL_BYTES_MIN: u64 = 64 << 10;
/// Intervals of an index at most.
pub const INTERVALS_MAX: usize = 512;
/// Bytes of a section at most: what the bound on the bytes of an index takes for granted.
pub const SECTION_BYTES_MAX: u64 = 1 << 40;
/// The version that is written. Readers refuse any other.
pub const INDEX_VERSION: u8 = 1;

const HEAD_BYTES: usize = 8;

/// Why bytes are not the index of a section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Fewer bytes than it takes.
    #[error("it is cut off")]
    Truncated,
    /// The checksum does not match.
    #[error("its checksum is wrong")]
    Checksum,
    /// A newer version of Floe wrote it.
    #[error("it has version {0}, this broker reads version {INDEX_VERSION}: upgrade it")]
    Version(u8),
    /// The checksum is right, and it contradicts its section.
    #[error("it contradicts its section")]
    Contradiction,
}

/// Some whole batches of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The offset of its first batch.
    pub first: Offset,
    /// The position of its first batch in the object.
    pub position: u64,
    /// The largest timestamp of its batches with records, as their headers say; -1 for none.
    pub max_timestamp: i64,
}

/// A decoded index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekIndex {
    intervals: Vec<Interval>,
}

impl SeekIndex {
    /// The index of a section, out of the bytes behind it. More bytes may follow.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn decode(key: ExtentKey, data: &Data, bytes: &[u8]) -> Result<SeekIndex, IndexError> {
        let body = body(key, data.position, bytes)?;
        let (mut rest, mut intervals) = (body, Vec::new());
        let (mut position, mut first, mut time) = (data.position, key.base, 0i64);
        let end = Extent::Data(*data).next_offset(key.base);
        while !rest.is_empty() {
            let taken = take_part::<(u64, u64, i64)>(rest).map_err(|_| IndexError::Contradiction)?;
            let ((offsets, bytes, later), after) = taken;
            first = Offset(first.0.saturating_add_unsigned(offsets));
            time = time.wrapping_add(later);
            let is_ascending = intervals.is_empty() || offsets > 0;
            if !is_ascending || first >= end || bytes == 0 || intervals.len() == INTERVALS_MAX {
                return Err(IndexError::Contradiction);
            }
            intervals.push(Interval { first, position, max_timestamp: time });
            position = position.saturating_add(bytes);
            rest = after;
        }
        if intervals.is_empty() || position != data.end() {
            return Err(IndexError::Contradiction);
        }
        Ok(SeekIndex { intervals })
    }

    /// The last interval that begins at or before an offset; none if all begin behind it.
    pub fn at(&self, offset: Offset) -> Option<&Interval> {
        self.intervals[..self.until(offset)].last()
    }

    /// The offset and the position of the first interval that begins behind a position.
    pub(crate) fn behind(&self, position: u64) -> Option<(Offset, u64)> {
        let later = self.intervals.iter().find(|interval| interval.position > position)?;
        Some((later.first, later.position))
    }

    /// From where on a record may be found that is not older than `time`, at `from` or behind it. None if no batch from
    /// there on promises one.
    pub fn next_at(&self, from: Offset, time: i64) -> Option<Offset> {
        let found = self.from(from).iter().find(|interval| interval.max_timestamp >= time)?;
        Some(found.first.max(from))
    }

    /// The largest timestamp of the intervals that end behind an offset; -1 for none.
    pub fn max_from(&self, from: Offset) -> i64 {
        self.from(from).iter().map(|interval| interval.max_timestamp).max().unwrap_or(-1)
    }

    /// Memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        size_of::<SeekIndex>() + self.intervals.capacity() * size_of::<Interval>()
    }

    /// How many intervals begin at or before an offset.
    fn until(&self, offset: Offset) -> usize {
        self.intervals.partition_point(|interval| interval.first <= offset)
    }

    /// The interval that holds an offset, and those behind it.
    fn from(&self, offset: Offset) -> &[Interval] {
        &self.intervals[self.until(offset).saturating_sub(1)..]
    }
}

/// Whether bytes are an index of a section, as far as its checksum tells.
pub(crate) fn check(key: ExtentKey, position: u64, bytes: &[u8]) -> Result<(), IndexError> {
    body(key, position, bytes).map(drop)
}

/// Bytes of an index that begins with these.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    Some(HEAD_BYTES + usize::from(u16::from_be_bytes([head[6], head[7]])))
}

/// The intervals of an index whose checksum is right.
fn body(key: ExtentKey, position: u64, bytes: &[u8]) -> Result<&[u8], IndexError> {
    let length = length(bytes).ok_or(IndexError::Truncated)?;
    let bytes = bytes.get(..length.min(INDEX_BYTES_MAX)).ok_or(IndexError::Truncated)?;
    let (stored, summed) = bytes.split_first_chunk::<4>().ok_or(IndexError::Truncated)?;
    if u32::from_be_bytes(*stored) != checksum(key, position, summed) {
        return Err(IndexError::Checksum);
    }
    // Before the checksum, any bit of it could be flipped.
    if summed[0] != INDEX_VERSION {
        return Err(IndexError::Version(summed[0]));
    }
    Ok(&bytes[HEAD_BYTES..])
}

fn checksum(key: ExtentKey, position: u64, summed: &[u8]) -> u32 {
    // Without the topic, as in the sums of batches (`stamp.rs`).
    let ExtentKey { partition: PartitionId { index, .. }, base } = key;
    let sum = crc32c::crc32c(&index.to_be_bytes());
    let sum = crc32c::crc32c_append(sum, &base.0.to_be_bytes());
    let sum = crc32c::crc32c_append(sum, &position.to_be_bytes());
    crc32c::crc32c_append(sum, summed)
}

/// The intervals of a section that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Intervals {
    bytes_min: u64,
    all: Vec<Growing>,
    /// A bug on purpose: every interval but the first begins one batch late.
    #[cfg(test)]
    late: bool,
}

#[derive(Clone, Copy, Debug)]
struct Growing {
    first: Offset,
    bytes: u64,
    max_timestamp: i64,
}

impl Intervals {
    pub(crate) fn new() -> Intervals {
        Intervals {
            bytes_min: INTERVAL_BYTES_MIN,
            all: Vec::new(),
            #[cfg(test)]
            late: false,
        }
    }

    /// Notes the next batch.
    pub(crate) fn note(&mut self, first: Offset, header: &Header) {
        let has_records = header.count > 0 && !header.is_control();
        let max_timestamp = if has_records { header.max_timestamp.max(-1) } else { -1 };
        #[cfg_attr(not(test), expect(unused_mut, reason = "the planted bug moves bytes"))]
        let mut next = Growing { first, bytes: header.size as u64, max_timestamp };
        #[cfg(test)]
        self.misplace(&mut next);
        join(&mut self.all, next, self.bytes_min);
        while self.all.len() > INTERVALS_MAX {
            self.bytes_min *= 2;
            let mut joined = Vec::with_capacity(self.all.len());
            for interval in self.all.drain(..) {
                join(&mut joined, interval, self.bytes_min);
            }
            self.all = joined;
        }
    }

    #[cfg(test)]
    pub(crate) fn late(self, late: bool) -> Intervals {
        Intervals { late, ..self }
    }

    #[cfg(test)]
    fn misplace(&mut self, next: &mut Growing) {
        if let Some(last) = self.all.last_mut()
            && self.late
            && last.bytes >= self.bytes_min
        {
            last.bytes += std::mem::take(&mut next.bytes);
        }
    }

    /// The index of a section that begins at `position`.
    pub(crate) fn encode(&self, key: ExtentKey, position: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let (mut first, mut time) = (key.base, 0i64);
        for interval in &self.all {
            let later = interval.max_timestamp.wrapping_sub(time);
            put_postcard(&(interval.first.0.abs_diff(first.0), interval.bytes, later), &mut body);
            (first, time) = (interval.first, interval.max_timestamp);
        }
        let length = u16::try_from(body.len()).expect("an index is small");
        let mut out = vec![0; HEAD_BYTES];
        out[4] = INDEX_VERSION;
        out[6..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&body);
        assert!(out.len() <= INDEX_BYTES_MAX, "an index is bounded");
        let sum = checksum(key, position, &out[4..]);
        out[..4].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// Adds an interval, or makes the last one larger that is too small yet.
fn join(all: &mut Vec<Growing>, next: Growing, bytes_min: u64) {
    match all.last_mut().filter(|last| last.bytes < bytes_min) {
        Some(last) => {
            last.bytes += next.bytes;
            last.max_timestamp = last.max_timestamp.max(next.max_timestamp);
        }
        None => all.push(next),
    }
}

/// Bytes that `count` numbers take at most whose sum is below 2^`bits`: they take most when they are equal.
const fn varint_bytes_max(count: usize, bits: usize) -> usize {
    let each = bits - count.ilog2() as usize;
    count * (1 + each.div_ceil(7))
}

// Offsets have 63 bits in all, bytes those of a section; a difference of timestamps takes ten bytes.
const _: () = assert!(
    HEAD_BYTES
        + varint_bytes_max(INTERVALS_MAX, 63)
        + varint_bytes_max(INTERVALS_MAX, SECTION_BYTES_MAX.ilog2() as usize)
        + INTERVALS_MAX * 10
        <= INDEX_BYTES_MAX
);
