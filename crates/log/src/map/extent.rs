//! Extents: a contiguous run of offsets of one partition, and where its batches are.
//!
//! The extents of a partition do not overlap, and leave no gap from the log start to the next offset. An extent is one
//! of three:
//! - **data**: batches that lie back to back in an object of the store, or in the payload of a frame of the journal.
//! - a **marker**: the end of a transaction, which takes one offset. It has no bytes; readers make its control batch.
//! - a **gap**: offsets whose records compaction removed, with nothing beside them to be part of. A partition never
//!   ends with one.
//!
//! Offsets of batches are counted or stamped. Counted: each batch begins where the one before it ends, so one extent
//! costs the map some 40 bytes, however many batches it holds. Stamped: merging and compaction left offsets out, so
//! each batch carries its own base offset, and markers in between are control batches.
//!
//! # Versions
//! ```text
//! 1   object, position, bytes, offsets u32, max timestamp, writer
//! 2   flags u8, then
//!     data     writer number and count of the object unless in a frame | position | bytes | offsets | max timestamp
//!              | writer unless in the footer | LSN
//!     marker   producer id | epoch | time | LSN
//!     gap      offsets | LSN
//! flags   bits 0-1: 0 data in an object, 1 data in a frame, 2 marker, 3 gap
//!         data: bit 2 in a segment, bit 3 stamped, bit 4 the footer names the writers     marker: bit 2 abort
//! ```
//! All other bits are zero; numbers are postcard's. An extent without an LSN is written as version 1, if that can hold
//! it; so the sequencer, which leaves the LSN out below format level 2, writes what older brokers read.

use floe_env::Timestamp;
use floe_meta::key::{Key, KeyReader};
use floe_meta::key::{put_i64, put_u64};
use floe_meta::{DecodeError, Lookup, Lsn, MapRecord, put_postcard, take_part, take_postcard};

use crate::map::ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};
use crate::map::object::ObjectKind;

/// The key of an extent: its partition and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentKey {
    /// The partition of the extent's records.
    pub partition: PartitionId,
    /// The offset of the first record.
    pub base: Offset,
}

/// A contiguous run of offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Batches.
    Data(Data),
    /// The end of a transaction.
    Marker(Marker),
    /// Offsets without records.
    Gap(Gap),
}

/// Batches of one partition, back to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where the batches are.
    pub place: Place,
    /// The first byte of the first batch in that place.
    pub position: u64,
    /// Bytes of all batches together.
    pub bytes: u64,
    /// How many offsets the extent covers; at least 1.
    pub offsets: u64,
    /// How its batches get their offsets.
    pub spacing: Spacing,
    /// The largest timestamp in milliseconds since the epoch; -1 for none.
    pub max_timestamp: i64,
    /// Who wrote the batches.
    pub written_by: WrittenBy,
    /// The commit that gave the offsets; of several, the last. 0 for an extent of version 1, which does not know it.
    pub lsn: Lsn,
}

/// What holds the bytes of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An object in the store.
    Object(ObjectId),
    /// The payload of the commit that gave the offsets ([`Data::lsn`]), in the journal.
    Frame,
}

/// How the batches of an extent get their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Each begins where the one before it ends.
    Counted,
    /// Each carries its base offset. Offsets between two of them have no records.
    Stamped,
}

/// Who wrote the batches of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// One writer.
    One(WriterId),
    /// Several. The footer of the object has their names, with the offsets and commits of each.
    Footer,
}

/// The end of a transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The producer of the transaction.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// How the transaction ended.
    pub outcome: Outcome,
    /// When it ended: the time of the commit.
    pub time: Timestamp,
    /// The commit that ended it.
    pub lsn: Lsn,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its records count.
    Commit,
    /// Its records count for nobody who reads committed records.
    Abort,
}

/// Offsets without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many; at least 1.
    pub offsets: u64,
    /// The commit that removed the last records.
    pub lsn: Lsn,
}

/// The body of version 1: object, position, bytes, offsets, max timestamp, writer.
type Version1 = (u64, u64, u64, u32, i64, u32);

const DATA_IN_OBJECT: u8 = 0;
const DATA_IN_FRAME: u8 = 1;
const MARKER: u8 = 2;
const GAP: u8 = 3;
const WHAT: u8 = 0b11;
const SEGMENT: u8 = 1 << 2;
const STAMPED: u8 = 1 << 3;
const FOOTER: u8 = 1 << 4;
const ABORT: u8 = 1 << 2;

impl Extent {
    /// How many offsets the extent covers.
    pub fn offsets(&self) -> u64 {
        match self {
            Extent::Data(data) => data.offsets,
            Extent::Marker(_) => 1,
            Extent::Gap(gap) => gap.offsets,
        }
    }

    /// How many of its offsets may have records.
    pub fn records(&self) -> u64 {
        match self {
            Extent::Data(data) => data.offsets,
            Extent::Marker(_) | Extent::Gap(_) => 0,
        }
    }

    /// The offset after the last, when the first is `base`.
    pub fn next_offset(&self, base: Offset) -> Offset {
        Offset(base.0.saturating_add_unsigned(self.offsets()))
    }

    /// Bytes of its batches.
    pub fn bytes(&self) -> u64 {
        self.data().map_or(0, |data| data.bytes)
    }

    /// The batches, if it has some.
    pub fn data(&self) -> Option<&Data> {
        match self {
            Extent::Data(data) => Some(data),
            Extent::Marker(_) | Extent::Gap(_) => None,
        }
    }

    /// The object that holds its batches.
    pub fn object(&self) -> Option<ObjectId> {
        self.data().and_then(|data| data.place.object())
    }

    /// The writer that it names.
    pub fn writer(&self) -> Option<WriterId> {
        match self.data()?.written_by {
            WrittenBy::One(writer) => Some(writer),
            WrittenBy::Footer => None,
        }
    }

    /// When it came, as far as it tells: the largest timestamp of its records, or the time of its commit; -1 for none.
    pub fn max_timestamp(&self) -> i64 {
        match self {
            Extent::Data(data) => data.max_timestamp,
            Extent::Marker(marker) => marker.time.0,
            Extent::Gap(_) => -1,
        }
    }
}

impl Data {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.bytes)
    }

    /// The body of version 1, if that can hold it.
    fn version_1(&self) -> Option<Version1> {
        let Data { place, position, bytes, offsets, spacing, max_timestamp, written_by, lsn } = *self;
        let (Place::Object(object), WrittenBy::One(writer)) = (place, written_by) else { return None };
        let is_plain = lsn == Lsn(0) && spacing == Spacing::Counted && object.kind() == ObjectKind::Wal;
        let offsets = u32::try_from(offsets).ok().filter(|_| is_plain)?;
        Some((object.0, position, bytes, offsets, max_timestamp, writer.0))
    }

    fn of_version_1(body: &[u8]) -> Result<Data, DecodeError> {
        let (object, position, bytes, offsets, max_timestamp, writer): Version1 = take_postcard(body)?;
        Ok(Data {
            place: Place::Object(ObjectId(object)),
            position,
            bytes,
            offsets: u64::from(offsets),
            spacing: Spacing::Counted,
            max_timestamp,
            written_by: WrittenBy::One(WriterId(writer)),
            lsn: Lsn(0),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = match self.place {
            Place::Object(object) if object.kind() == ObjectKind::Segment => DATA_IN_OBJECT | SEGMENT,
            Place::Object(_) => DATA_IN_OBJECT,
            Place::Frame => DATA_IN_FRAME,
        };
        flags |= if self.spacing == Spacing::Stamped { STAMPED } else { 0 };
        flags |= if self.written_by == WrittenBy::Footer { FOOTER } else { 0 };
        out.push(flags);
        if let Place::Object(object) = self.place {
            put_postcard(&(object.writer().0, object.count()), out);
        }
        put_postcard(&(self.position, self.bytes, self.offsets, self.max_timestamp), out);
        if let WrittenBy::One(writer) = self.written_by {
            put_postcard(&writer.0, out);
        }
        put_postcard(&self.lsn.0, out);
    }

    fn decode(flags: u8, body: &[u8]) -> Result<Data, DecodeError> {
        let kind = if flags & SEGMENT == 0 { ObjectKind::Wal } else { ObjectKind::Segment };
        let in_frame = flags & WHAT == DATA_IN_FRAME;
        if in_frame && flags & SEGMENT != 0 {
            return Err(DecodeError::corrupt("an extent is in a frame and in a segment"));
        }
        let (place, rest) = match in_frame {
            true => (Place::Frame, body),
            false => {
                let ((writer, count), rest) = take_part::<(u64, u64)>(body)?;
                (Place::Object(ObjectId::checked(kind, writer, count)?), rest)
            }
        };
        let ((position, bytes, offsets, max_timestamp), rest) = take_part(rest)?;
        let (written_by, rest) = match flags & FOOTER == 0 {
            true => take_part(rest).map(|(writer, rest)| (WrittenBy::One(WriterId(writer)), rest))?,
            false => (WrittenBy::Footer, rest),
        };
        let lsn = Lsn(take_postcard(rest)?);
        let spacing = if flags & STAMPED == 0 { Spacing::Counted } else { Spacing::Stamped };
        Ok(Data { place, position, bytes, offsets, spacing, max_timestamp, written_by, lsn })
    }
}

impl Place {
    /// The object, unless the bytes are in the journal.
    pub fn object(self) -> Option<ObjectId> {
        match self {
            Place::Object(object) => Some(object),
            Place::Frame => None,
        }
    }
}

impl Marker {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.outcome == Outcome::Abort { MARKER | ABORT } else { MARKER });
        put_postcard(&(self.producer_id, self.producer_epoch, self.time, self.lsn.0), out);
    }

    fn decode(flags: u8, body: &[u8]) -> Result<Marker, DecodeError> {
        let (producer_id, producer_epoch, time, lsn) = take_postcard(body)?;
        let outcome = if flags & ABORT == 0 { Outcome::Commit } else { Outcome::Abort };
        Ok(Marker { producer_id, producer_epoch, outcome, time, lsn: Lsn(lsn) })
    }
}

impl MapRecord for Extent {
    const KIND: u8 = 13;
    const VERSION: u8 = 2;
    type Key = ExtentKey;

    fn version(&self) -> u8 {
        match self.data().and_then(Data::version_1) {
            Some(_) => 1,
            None => 2,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Extent::Data(data) => match data.version_1() {
                Some(body) => put_postcard(&body, out),
                None => data.encode(out),
            },
            Extent::Marker(marker) => marker.encode(out),
            Extent::Gap(gap) => {
                out.push(GAP);
                put_postcard(&(gap.offsets, gap.lsn.0), out);
            }
        }
    }

    fn decode(version: u8, body: &[u8]) -> Result<Extent, DecodeError> {
        if version == 1 {
            return Data::of_version_1(body).map(Extent::Data);
        }
        let (&flags, body) = body.split_first().ok_or(DecodeError::Truncated)?;
        let (known, extent) = match flags & WHAT {
            MARKER => (ABORT, Extent::Marker(Marker::decode(flags, body)?)),
            GAP => {
                let (offsets, lsn) = take_postcard(body)?;
                (0, Extent::Gap(Gap { offsets, lsn: Lsn(lsn) }))
            }
            _ => (SEGMENT | STAMPED | FOOTER, Extent::Data(Data::decode(flags, body)?)),
        };
        if flags & !(WHAT | known) != 0 {
            return Err(DecodeError::corrupt(format!("an extent has the unknown flags {flags:08b}")));
        }
        Ok(extent)
    }
}

impl ExtentKey {
    /// The extent of `partition` that begins at `base`.
    pub const fn new(partition: PartitionId, base: Offset) -> ExtentKey {
        ExtentKey { partition, base }
    }
}

/// How many extents a topic has, also one that is deleted and can come back.
pub(crate) fn count_of(map: &impl Lookup, topic: TopicId) -> u64 {
    map.prefix::<Extent>(|out| put_u64(out, topic.0)).count() as u64
}

impl Key for ExtentKey {
    fn encode(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        put_i64(out, self.base.0);
    }
    fn decode(bytes: &[u8]) -> Result<ExtentKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let key = ExtentKey { partition: PartitionId::take(&mut reader)?, base: Offset(reader.i64()?) };
        reader.finish().map(|()| key)
    }
}
