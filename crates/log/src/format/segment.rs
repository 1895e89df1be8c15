//! The segment format: batches sorted by partition and offset, as merging and compaction write them.
//!
//! ```text
//!  0  magic "FLOE-SEG"                                      8 bytes
//!  8  version u16 = 1, zero u16, zero u32                   8 bytes
//! 16  sections, back to back, by partition and offset; each is one extent:
//!        batches, whole and back to back, each with its offset in it (`stamp.rs`)
//!        seek index: offset and time to position (`seek.rs`), at most 16 KiB
//!  …  footer
//!  …  footer length u32 | CRC-32C of footer and footer length u32 | magic "ESEGFLOE"   16 bytes, the end
//! ```
//! The footer begins with the version again, so that it can be read alone. Its other numbers are postcard's:
//! ```text
//! version u16 = 1
//! object
//! writers     how many, then of each: principal, client id
//! sections    how many, then of each: topic, index, first offset, offsets, bytes of the batches, bytes of the index,
//!             largest timestamp, bytes of the runs, the runs
//! run         offsets since the run before | offsets | number of the writer from 1, 0 for none | LSN minus that before
//! ```
//! A section begins where the one before it ends, and the first behind the head. Runs say who wrote which offsets in
//! which commit. A marker is a control batch that nobody wrote, and has a run without a writer. Offsets that no run
//! covers have no records. The footer makes an object self-describing; readers of records do not need it.
//!
//! A flipped bit anywhere in a segment is found: the client's checksum protects each batch from byte 21 on, the sum in
//! the batch its first bytes, and index and footer have checksums of their own. Whoever reads a part of a segment can
//! verify that part alone. The reader compares all of this but the clients' checksums, which clients compare.
//!
//! A segment is written in one pass, from batches that come in order ([`SegmentBuilder`]). Large batches are not
//! copied. What is kept meanwhile are the footer and the pieces that nobody has taken.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use floe_meta::{Lsn, put_postcard, take_part};
use serde::de::DeserializeOwned;

use crate::format::batch::{Batch, PREFIX_BYTES};
use crate::format::header::{self, BatchError};
use crate::format::seek::{self, IndexError, Intervals, SECTION_BYTES_MAX};
use crate::format::stamp;
use crate::limits::{SEGMENT_COPIED_BYTES, SEGMENT_FOOTER_BYTES_MAX, SEGMENT_PIECE_BYTES};
use crate::map::extent::{Data, ExtentKey, Marker, Place, Spacing, WrittenBy};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, Offset, PartitionId, TopicId};

/// The version that is written. Readers refuse any other.
pub const VERSION: u16 = 1;
/// Bytes before the first section.
pub const HEAD_BYTES: usize = 16;
/// Bytes after the footer.
pub const TAIL_BYTES: usize = 16;

const HEAD_MAGIC: &[u8; 8] = b"FLOE-SEG";
const TAIL_MAGIC: &[u8; 8] = b"ESEGFLOE";
/// Bytes of a section in the footer at least: one for each of its numbers.
const SECTION_IN_FOOTER_BYTES_MIN: usize = 8;

/// Why bytes are not a whole segment, or not its footer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Fewer bytes than the fixed parts take.
    #[error("segment is cut off at {0} bytes")]
    Truncated(usize),
    /// The magic at the beginning or at the end is missing.
    #[error("these bytes are not a segment")]
    Magic,
    /// A newer version of Floe wrote the object.
    #[error("segment has version {0}, this broker reads version {VERSION}: upgrade it")]
    Version(u16),
    /// The footer's checksum does not match.
    #[error("the footer of the segment is damaged")]
    Footer,
    /// The footer is larger than any that is written.
    #[error("the footer of the segment says that it has {0} bytes")]
    FooterSize(u64),
    /// The footer is sound but contradicts the object.
    #[error("the footer of the segment contradicts it: {0}")]
    Contradiction(&'static str),
    /// A batch is damaged.
    #[error("batch of {partition} at byte {position} of the segment is damaged: {reason}")]
    Batch {
        /// The partition of its section.
        partition: PartitionId,
        /// The batch's first byte in the object.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a section is damaged.
    #[error("the seek index of {partition} from {base} on is damaged: {source}")]
    Index {
        /// The partition of the section.
        partition: PartitionId,
        /// Its first offset.
        base: Offset,
        /// What is wrong with it.
        source: IndexError,
    },
}

/// Where a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'w> {
    /// Who wrote it; none for a marker.
    pub writer: Option<&'w Writer>,
    /// The commit that gave its offsets; 0 if unknown.
    pub lsn: Lsn,
}

/// A section that was written: one extent of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The partition and the first offset.
    pub key: ExtentKey,
    /// The extent. Its writers are those of the footer.
    pub data: Data,
    /// The writer, if all batches are of one. A commit that interns and counts it may name it in the extent
    /// ([`WrittenBy::One`]), so that nobody needs the footer to tell who it was.
    pub only_writer: Option<Writer>,
}

/// Offsets of one writer and commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterRun {
    /// The first offset.
    pub first: Offset,
    /// The offset after the last.
    pub end: Offset,
    /// The writer; none for a marker.
    pub writer: Option<Writer>,
    /// The commit that gave the offsets; 0 if unknown.
    pub lsn: Lsn,
}

/// Writes a segment from batches that come in the order of their partitions and offsets.
///
/// ```text
/// begin  push push_marker push …  end     begin  push … end     …  finish
///                   take              take                  take
/// ```
#[derive(Debug)]
pub struct SegmentBuilder {
    object: ObjectId,
    /// Bytes of the object so far, those included that are not taken yet.
    position: u64,
    pieces: Vec<Bytes>,
    /// Small batches and the first bytes of large ones.
    copied: BytesMut,
    writers: BTreeMap<Writer, u64>,
    /// The writers in the order of their numbers.
    numbered: Vec<Writer>,
    /// As the footer has them.
    names: Vec<u8>,
    sections: u64,
    /// The sections as the footer has them.
    listed: Vec<u8>,
    last: Option<(PartitionId, Offset)>,
    open: Option<Open>,
    /// A bug on purpose, for tests of those who have to find it.
    #[cfg(test)]
    pub(crate) bug: Option<PlantedBug>,
}

/// What a builder does wrong in a test.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlantedBug {
    /// The index says that intervals begin one batch late.
    IndexOneBatchLate,
    /// The footer lacks the runs of the second writer.
    RunsLoseWriter,
}

/// A section that is being written.
#[derive(Debug)]
struct Open {
    key: ExtentKey,
    position: u64,
    next: Offset,
    intervals: Intervals,
    runs: Runs,
}

impl SegmentBuilder {
    /// An empty segment.
    pub fn new(object: ObjectId) -> SegmentBuilder {
        SegmentBuilder {
            object,
            position: HEAD_BYTES as u64,
            pieces: vec![Bytes::copy_from_slice(&head())],
            copied: BytesMut::new(),
            writers: BTreeMap::new(),
            numbered: Vec::new(),
            names: Vec::new(),
            sections: 0,
            listed: Vec::new(),
            last: None,
            open: None,
            #[cfg(test)]
            bug: None,
        }
    }

    /// Begins a section: an extent of this partition that begins at `base`. Its first batch may begin behind that.
    ///
    /// # Panics
    /// A section is open, or one before it was of a later partition, or had these offsets.
    pub fn begin(&mut self, partition: PartitionId, base: Offset) {
        assert!(self.open.is_none(), "sections do not nest");
        let is_behind = self.last.is_none_or(|last| last <= (partition, base));
        assert!(is_behind, "sections are in the order of partitions and offsets");
        let intervals = Intervals::new();
        #[cfg(test)]
        let intervals = intervals.late(self.bug == Some(PlantedBug::IndexOneBatchLate));
        let (key, position) = (ExtentKey::new(partition, base), self.position);
        self.open = Some(Open { key, position, next: base, intervals, runs: Runs::new(base) });
    }

    /// Adds a batch to the section. The empty batches that readers make of offsets without records are left out: the
    /// batches behind them have their own offsets.
    ///
    /// # Panics
    /// No section is open, or the batch begins before the one before it ends.
    pub fn push(&mut self, batch: &Batch, origin: Origin<'_>) {
        if !batch.has_records() && !batch.header().is_control() {
            return;
        }
        let number = origin.writer.map_or(0, |writer| self.number(writer));
        let open = self.open.as_mut().expect("a batch is of a section");
        assert!(batch.base_offset >= open.next, "batches are in the order of their offsets");
        let stamped = stamp::stamp(open.key.partition, batch.base_offset, &batch.bytes);
        open.next = batch.next_offset();
        open.intervals.note(batch.base_offset, batch.header());
        let run = Run { first: batch.base_offset, end: open.next, writer: number, lsn: origin.lsn };
        #[cfg(test)]
        let is_lost = self.bug == Some(PlantedBug::RunsLoseWriter) && number == 2;
        #[cfg(not(test))]
        let is_lost = false;
        if !is_lost {
            open.runs.note(run);
        }
        self.position += batch.bytes.len() as u64;
        self.copy(&stamped);
        match batch.bytes.len() <= SEGMENT_COPIED_BYTES {
            true => self.copy(&batch.bytes[PREFIX_BYTES..]),
            false => {
                self.seal();
                self.pieces.push(batch.bytes.slice(PREFIX_BYTES..));
            }
        }
    }

    /// Adds a marker of the map to the section, as its control batch.
    ///
    /// # Panics
    /// As [`SegmentBuilder::push`].
    pub fn push_marker(&mut self, offset: Offset, marker: &Marker) {
        let origin = Origin { writer: None, lsn: marker.lsn };
        self.push(&Batch::of_marker(offset, marker), origin);
    }

    /// Ends the section: its extent covers all offsets up to `end`. The largest timestamp is what the extents say that
    /// it replaces; headers of batches may say something else. None if it has no batches: then it is no section.
    ///
    /// # Panics
    /// No section is open, or its batches do not end at or before `end`.
    pub fn end(&mut self, end: Offset, max_timestamp: i64) -> Option<Section> {
        let Open { key, position, next, intervals, runs } = self.open.take().expect("a section is open");
        assert!(end >= next, "the batches lie within their extent");
        if self.position == position {
            return None;
        }
        self.last = Some((key.partition, end));
        let bytes = self.position - position;
        assert!(bytes <= SECTION_BYTES_MAX, "a section is far below its limit");
        let index = intervals.encode(key, position);
        self.copy(&index);
        self.position += index.len() as u64;
        let (lsn, only) = (runs.lsn_max, runs.only_writer);
        let runs = runs.finish();
        let offsets = end.0.abs_diff(key.base.0);
        let PartitionId { topic, index: of_topic } = key.partition;
        put_postcard(&(topic.0, of_topic, key.base.0, offsets), &mut self.listed);
        put_postcard(&(bytes, index.len() as u64, max_timestamp, runs.len() as u64), &mut self.listed);
        self.listed.extend_from_slice(&runs);
        self.sections += 1;
        let data = Data {
            place: Place::Object(self.object),
            position,
            bytes,
            offsets,
            spacing: Spacing::Stamped,
            max_timestamp,
            written_by: WrittenBy::Footer,
            lsn,
        };
        let only_writer =
            only.and_then(|number| self.numbered.get(usize::try_from(number.checked_sub(1)?).ok()?));
        let only_writer = only_writer.cloned();
        Some(Section { key, data, only_writer })
    }

    /// Takes the pieces that are complete, in order. Take them often, or once: the object is all of them and those of
    /// [`SegmentBuilder::finish`].
    #[must_use = "the pieces are gone otherwise"]
    pub fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        std::mem::take(&mut self.pieces)
    }

    /// Bytes that the object has if it is finished now, about.
    pub fn size(&self) -> u64 {
        self.position + self.footer_bytes()
    }

    /// Bytes that the footer has if the segment is finished now, about. At most [`SEGMENT_FOOTER_BYTES_MAX`] can be
    /// read; a segment of 64 MiB stays far below that.
    pub fn footer_bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.runs.encoded.len());
        (self.names.len() + self.listed.len() + open + TAIL_BYTES) as u64
    }

    /// The last pieces of the object, and its size.
    ///
    /// # Panics
    /// A section is open, or there is none, or the footer is larger than [`SEGMENT_FOOTER_BYTES_MAX`].
    pub fn finish(mut self) -> (Vec<Bytes>, u64) {
        assert!(self.open.is_none(), "every section has its end");
        assert!(self.sections > 0, "a segment has sections");
        let mut tail = VERSION.to_be_bytes().to_vec();
        put_postcard(&(self.object.0, self.writers.len() as u64), &mut tail);
        tail.extend_from_slice(&self.names);
        put_postcard(&self.sections, &mut tail);
        tail.extend_from_slice(&self.listed);
        let length = u32::try_from(tail.len()).expect("a footer is far below 4 GiB");
        assert!(u64::from(length) <= SEGMENT_FOOTER_BYTES_MAX, "a footer that nobody would read");
        tail.extend_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&tail);
        tail.extend_from_slice(&crc.to_be_bytes());
        tail.extend_from_slice(TAIL_MAGIC);
        let size = self.position + tail.len() as u64;
        self.seal();
        self.pieces.push(Bytes::from(tail));
        (self.pieces, size)
    }

    /// The number of a writer in the footer.
    fn number(&mut self, writer: &Writer) -> u64 {
        if let Some(number) = self.writers.get(writer) {
            return *number;
        }
        let number = self.writers.len() as u64 + 1;
        put_postcard(&(&*writer.principal, &*writer.client_id), &mut self.names);
        self.writers.insert(writer.clone(), number);
        self.numbered.push(writer.clone());
        number
    }

    /// Copies bytes behind those that were copied before. A piece has about [`SEGMENT_PIECE_BYTES`].
    fn copy(&mut self, bytes: &[u8]) {
        if self.copied.capacity() - self.copied.len() < bytes.len() {
            self.seal();
            self.copied = BytesMut::with_capacity(bytes.len().max(SEGMENT_PIECE_BYTES));
        }
        self.copied.extend_from_slice(bytes);
    }

    /// Makes a piece of what was copied. The rest of the buffer is used on.
    fn seal(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(self.copied.split().freeze());
        }
    }
}

/// A run of offsets; writers are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Offset,
    end: Offset,
    writer: u64,
    lsn: Lsn,
}

/// The runs of a section that is being written.
#[derive(Debug)]
struct Runs {
    encoded: Vec<u8>,
    /// The end and the LSN of the last encoded run.
    before: (Offset, Lsn),
    open: Option<Run>,
    lsn_max: Lsn,
    /// The only writer so far; none if there are several.
    only_writer: Option<u64>,
    is_first: bool,
}

impl Runs {
    fn new(base: Offset) -> Runs {
        let before = (base, Lsn(0));
        Runs { encoded: Vec::new(), before, open: None, lsn_max: Lsn(0), only_writer: None, is_first: true }
    }

    fn note(&mut self, run: Run) {
        self.only_writer = self.only_writer.filter(|writer| *writer == run.writer);
        if std::mem::take(&mut self.is_first) {
            self.only_writer = Some(run.writer);
        }
        self.lsn_max = self.lsn_max.max(run.lsn);
        match &mut self.open {
            // One commit and one writer: what lies between the two came with them. Without the commit nobody knows.
            Some(open)
                if (open.writer, open.lsn) == (run.writer, run.lsn)
                    && (open.end == run.first || run.lsn != Lsn(0)) =>
            {
                open.end = run.end;
            }
            _ => {
                self.close();
                self.open = Some(run);
            }
        }
    }

    fn close(&mut self) {
        let Some(run) = self.open.take() else { return };
        let (end, lsn) = self.before;
        let later = run.lsn.0.wrapping_sub(lsn.0).cast_signed();
        let (skipped, offsets) = (run.first.0.abs_diff(end.0), run.end.0.abs_diff(run.first.0));
        put_postcard(&(skipped, offsets, run.writer, later), &mut self.encoded);
        self.before = (run.end, run.lsn);
    }

    fn finish(mut self) -> Vec<u8> {
        self.close();
        self.encoded
    }
}

/// A decoded footer.
#[derive(Clone, Debug)]
pub struct Footer {
    /// The object.
    pub object: ObjectId,
    /// The sections in the order of their positions.
    pub sections: Vec<Listed>,
    writers: Vec<Writer>,
    bytes: Bytes,
}

/// A section as the footer has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The partition and the first offset.
    pub key: ExtentKey,
    /// How many offsets it covers.
    pub offsets: u64,
    /// The first byte of its batches in the object.
    pub position: u64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Bytes of the index behind them.
    pub index_bytes: u64,
    /// The largest timestamp, as in its extent.
    pub max_timestamp: i64,
    /// Where its runs are in the footer.
    runs: Range<usize>,
}

impl Listed {
    /// The offset after the last.
    pub fn end(&self) -> Offset {
        Offset(self.key.base.0.saturating_add_unsigned(self.offsets))
    }
}

/// How many of the last bytes of an object are its footer and tail, by its last [`TAIL_BYTES`].
///
/// # Errors
/// The bytes are not the end of a segment.
pub fn footer_bytes(tail: &[u8]) -> Result<u64, SegmentError> {
    let tail = tail.last_chunk::<TAIL_BYTES>().ok_or(SegmentError::Truncated(tail.len()))?;
    if tail[8..] != *TAIL_MAGIC {
        return Err(SegmentError::Magic);
    }
    let length = u64::from(u32::from_be_bytes(*tail.first_chunk().expect("the tail has 16 bytes")));
    if length > SEGMENT_FOOTER_BYTES_MAX {
        return Err(SegmentError::FooterSize(length));
    }
    Ok(length + TAIL_BYTES as u64)
}

impl Footer {
    /// The footer of an object of `size` bytes, out of its last bytes. They must begin where [`footer_bytes`] says, or
    /// before.
    ///
    /// # Errors
    /// The bytes are not the end of a segment of that size.
    pub fn decode(size: u64, end: &Bytes) -> Result<Footer, SegmentError> {
        let length = footer_bytes(end)?;
        let begin = usize::try_from(length).ok().and_then(|length| end.len().checked_sub(length));
        let begin = begin.ok_or(SegmentError::Footer)?;
        let bytes = end.slice(begin..end.len() - TAIL_BYTES);
        let crc = u32::from_be_bytes(*end[end.len() - 12..].first_chunk().expect("the tail has 16 bytes"));
        if crc32c::crc32c(&end[begin..end.len() - 12]) != crc {
            return Err(SegmentError::Footer);
        }
        // The version is checked behind the checksum: before it, any bit of it could be flipped.
        let version = bytes.first_chunk::<2>().ok_or(SegmentError::Footer)?;
        match u16::from_be_bytes(*version) {
            VERSION => {}
            version => return Err(SegmentError::Version(version)),
        }
        let sections_end = size.checked_sub(length).ok_or(SegmentError::Footer)?;
        let mut fields = Fields { bytes: &bytes, at: 2 };
        let (object, writers) = fields.take::<(u64, u64)>()?;
        if writers > sections_end / header::HEADER_BYTES as u64 {
            return Err(SegmentError::Contradiction("it has more writers than there can be batches"));
        }
        let writers = (0..writers).map(|_| {
            let (principal, client_id) = fields.take::<(String, String)>()?;
            Ok(Writer::new(&principal, &client_id))
        });
        let writers = writers.collect::<Result<Vec<_>, _>>()?;
        let count = fields.take::<u64>()?;
        if count > (bytes.len() / SECTION_IN_FOOTER_BYTES_MIN) as u64 {
            return Err(SegmentError::Contradiction("it has not the bytes for its sections"));
        }
        let (mut position, mut sections) = (HEAD_BYTES as u64, Vec::new());
        for _ in 0..count {
            let section = fields.section(position)?;
            let next = (section.position.checked_add(section.bytes))
                .and_then(|end| end.checked_add(section.index_bytes))
                .filter(|end| *end <= sections_end);
            position = next.ok_or(SegmentError::Contradiction("the sections exceed the object"))?;
            sections.push(section);
        }
        if position != sections_end {
            return Err(SegmentError::Contradiction("bytes lie between the sections and the footer"));
        }
        if fields.at != bytes.len() {
            return Err(SegmentError::Contradiction("it has bytes left over"));
        }
        Ok(Footer { object: ObjectId(object), sections, writers, bytes })
    }

    /// Memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        let writers: usize =
            self.writers.iter().map(|writer| writer.principal.len() + writer.client_id.len() + 96).sum();
        self.bytes.len() + self.sections.len() * size_of::<Listed>() + writers
    }

    /// The section that begins at a position.
    pub fn section(&self, position: u64) -> Option<&Listed> {
        let at = self.sections.binary_search_by_key(&position, |section| section.position).ok()?;
        self.sections.get(at)
    }

    /// The runs of one of its sections, in the order of their offsets. Each lies within the section, behind the one
    /// before it.
    pub fn runs<'f>(
        &'f self,
        section: &Listed,
    ) -> impl Iterator<Item = Result<WriterRun, SegmentError>> + use<'f> {
        let mut fields = Fields { bytes: &self.bytes[..section.runs.end], at: section.runs.start };
        let (mut next, mut lsn, end) = (section.key.base, Lsn(0), section.end());
        std::iter::from_fn(move || {
            if fields.at == fields.bytes.len() {
                return None;
            }
            let run = fields.run(self, next, lsn, end);
            match &run {
                Ok(run) => (next, lsn) = (run.end, run.lsn),
                // Nothing behind it can be read.
                Err(_) => fields.at = fields.bytes.len(),
            }
            Some(run)
        })
    }
}

/// Reads the numbers of a footer. What is read lies within its bytes.
struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<T: DeserializeOwned>(&mut self) -> Result<T, SegmentError> {
        let undecodable = |_| SegmentError::Contradiction("it does not decode");
        let (value, after) = take_part(&self.bytes[self.at..]).map_err(undecodable)?;
        self.at = self.bytes.len() - after.len();
        Ok(value)
    }

    /// A section that begins at `position`; passes over its runs.
    fn section(&mut self, position: u64) -> Result<Listed, SegmentError> {
        let (topic, index, base, offsets) = self.take::<(u64, u32, i64, u64)>()?;
        let (bytes, index_bytes, max_timestamp, runs) = self.take::<(u64, u64, i64, u64)>()?;
        let runs_end = usize::try_from(runs).ok().and_then(|runs| self.at.checked_add(runs));
        let runs_end = runs_end.filter(|end| *end <= self.bytes.len());
        let runs_end = runs_end.ok_or(SegmentError::Contradiction("the runs exceed it"))?;
        if base < 0 || base.checked_add_unsigned(offsets).is_none() {
            return Err(SegmentError::Contradiction("a section has impossible offsets"));
        }
        let runs = self.at..runs_end;
        self.at = runs_end;
        let key = ExtentKey::new(PartitionId::new(TopicId(topic), index), Offset(base));
        Ok(Listed { key, offsets, position, bytes, index_bytes, max_timestamp, runs })
    }

    /// A run behind `next` and before `end`.
    fn run(
        &mut self,
        footer: &Footer,
        next: Offset,
        lsn: Lsn,
        end: Offset,
    ) -> Result<WriterRun, SegmentError> {
        let (skipped, offsets, number, later) = self.take::<(u64, u64, u64, i64)>()?;
        let first = next.0.checked_add_unsigned(skipped);
        let last = first.and_then(|first| first.checked_add_unsigned(offsets));
        let (Some(first), Some(last)) = (first, last.filter(|last| *last <= end.0 && offsets > 0)) else {
            return Err(SegmentError::Contradiction("a run exceeds its section"));
        };
        let writer = match number.checked_sub(1) {
            None => None,
            Some(at) => {
                let found = usize::try_from(at).ok().and_then(|at| footer.writers.get(at));
                let unlisted = SegmentError::Contradiction("a run names a writer that is not listed");
                Some(found.ok_or(unlisted)?.clone())
            }
        };
        let lsn = Lsn(lsn.0.wrapping_add_signed(later));
        Ok(WriterRun { first: Offset(first), end: Offset(last), writer, lsn })
    }
}

/// A decoded and fully verified segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The id that the footer names.
    pub object: ObjectId,
    /// The sections in the order of their positions.
    pub sections: Vec<DecodedSection>,
}

/// A section with its batches.
#[derive(Clone, Debug)]
pub struct DecodedSection {
    /// What the footer says of it.
    pub listed: Listed,
    /// Its batches, each with its offset.
    pub batches: Vec<Batch>,
    /// Who wrote them.
    pub runs: Vec<WriterRun>,
}

/// Decodes a whole segment and verifies every byte of it.
///
/// # Errors
/// [`SegmentError`]. A damaged object yields no batches.
pub fn decode(bytes: &Bytes) -> Result<Segment, SegmentError> {
    let first = bytes.first_chunk::<HEAD_BYTES>().ok_or(SegmentError::Truncated(bytes.len()))?;
    if first[..8] != *HEAD_MAGIC {
        return Err(SegmentError::Magic);
    }
    let footer = Footer::decode(bytes.len() as u64, bytes)?;
    if *first != head() {
        return Err(SegmentError::Contradiction("its head is damaged"));
    }
    let mut last = None;
    let mut sections = Vec::with_capacity(footer.sections.len());
    for listed in &footer.sections {
        let begin = (listed.key.partition, listed.key.base);
        if last.is_some_and(|last| begin < last) {
            return Err(SegmentError::Contradiction("its sections are out of order"));
        }
        last = Some((listed.key.partition, listed.end()));
        sections.push(decode_section(bytes, &footer, listed)?);
    }
    Ok(Segment { object: footer.object, sections })
}

/// The batches of a section, compared with its index and its runs.
fn decode_section(bytes: &Bytes, footer: &Footer, listed: &Listed) -> Result<DecodedSection, SegmentError> {
    let place = |position: u64| usize::try_from(position).expect("it lies within bytes in memory");
    let (mut position, end) = (place(listed.position), place(listed.position + listed.bytes));
    let (mut next, mut batches, mut intervals) = (listed.key.base, Vec::new(), Intervals::new());
    let partition = listed.key.partition;
    while position < end {
        let damaged = |reason: String| SegmentError::Batch { partition, position, reason };
        let batch = next_batch(partition, &bytes.slice(position..end)).map_err(damaged)?;
        let batch_end = batch.base_offset.0.checked_add(i64::from(batch.header().offsets()));
        if batch.base_offset < next || batch_end.is_none_or(|end| end > listed.end().0) {
            return Err(damaged(format!("it says that it begins at {}", batch.base_offset)));
        }
        next = batch.next_offset();
        intervals.note(batch.base_offset, batch.header());
        position += batch.bytes.len();
        batches.push(batch);
    }
    let runs = footer.runs(listed).collect::<Result<Vec<_>, _>>()?;
    check_runs(&batches, &runs)?;
    let index = &bytes[end..end + place(listed.index_bytes)];
    if index != intervals.encode(listed.key, listed.position) {
        let ExtentKey { partition, base } = listed.key;
        let found = seek::check(listed.key, listed.position, index);
        let source = found.err().unwrap_or(IndexError::Contradiction);
        return Err(SegmentError::Index { partition, base, source });
    }
    Ok(DecodedSection { listed: listed.clone(), batches, runs })
}

/// The first batch of some bytes, with every checksum compared.
fn next_batch(partition: PartitionId, bytes: &Bytes) -> Result<Batch, String> {
    let say = |error: BatchError| error.to_string();
    let header = header::Header::parse(bytes).map_err(say)?;
    if header.size > bytes.len() {
        return Err(say(BatchError::Truncated { have: bytes.len(), need: header.size }));
    }
    if !stamp::is_sound(partition, bytes) {
        return Err("the sum of its first bytes is wrong".to_owned());
    }
    let bytes = bytes.slice(..header.size);
    header::verify_checksum(&header, &bytes).map_err(say)?;
    Batch::new(Offset(header.base_offset), bytes).map_err(say)
}

/// Whether the runs begin and end with batches, and cover all of them.
fn check_runs(batches: &[Batch], runs: &[WriterRun]) -> Result<(), SegmentError> {
    let mut batches = batches.iter().peekable();
    for run in runs {
        let first = batches.next().filter(|batch| batch.base_offset == run.first);
        let Some(mut last) = first.map(Batch::next_offset) else {
            return Err(SegmentError::Contradiction("a batch is of no run"));
        };
        while let Some(batch) = batches.next_if(|batch| batch.base_offset < run.end) {
            last = batch.next_offset();
        }
        if last != run.end {
            return Err(SegmentError::Contradiction("a run ends within a batch"));
        }
    }
    match batches.next() {
        None => Ok(()),
        Some(_) => Err(SegmentError::Contradiction("a batch is of no run")),
    }
}

/// The first bytes of every segment.
pub(crate) fn head() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(HEAD_MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_be_bytes());
    head
}
