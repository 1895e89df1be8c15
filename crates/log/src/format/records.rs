//! Records inside a batch: decoder and builder, for views, clients and tests.
//!
//! Source: the Kafka protocol guide, "Record". Lengths and deltas are zigzag varints.
//! ```text
//! record:  length | attributes i8 | timestamp delta | offset delta | key | value | header count | headers
//! key, value, header value:  length (-1 for null) | bytes        header key:  length | bytes
//! ```
//! Header keys may repeat and need not be UTF-8. The decoder keeps both as they came.

use std::ops::Range;

use bytes::Bytes;

use crate::format::codec::{CodecError, Compression};
use crate::format::header::{BatchError, HEADER_BYTES, Header, RECORD_BYTES_MIN};
use crate::format::raw::{self, Cursor, Raw};
use crate::limits::RECORDS_DECODED_MAX;
use crate::map::ids::Offset;

/// The fewest bytes of a record header: two lengths.
const RECORD_HEADER_BYTES_MIN: usize = 2;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The offset in the partition.
    pub offset: Offset,
    /// Milliseconds since the epoch; -1 when the client set none.
    pub timestamp: i64,
    /// The key; null and empty differ.
    pub key: Option<Bytes>,
    /// The value; null is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// The headers in order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why the records of a batch could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The batch itself is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The compressed data is damaged or too large.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// More records and headers than [`RECORDS_DECODED_MAX`](crate::limits::RECORDS_DECODED_MAX).
    #[error("the batch has more than {RECORDS_DECODED_MAX} records and headers")]
    TooMany,
    /// The records contradict the format or the header.
    #[error("record {index} of the batch is damaged: {reason}")]
    Damaged {
        /// Which record, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl From<raw::Damaged> for RecordsError {
    fn from(raw::Damaged { index, reason }: raw::Damaged) -> RecordsError {
        RecordsError::Damaged { index, reason }
    }
}

/// Decodes the records of a batch whose checksum was compared. `body` is everything after the header.
pub(crate) fn decode(
    base: Offset,
    header: &Header,
    body: &Bytes,
    bytes_max: usize,
    memory: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Record>, RecordsError> {
    let data = header.compression()?.decompress_in(body, bytes_max, memory)?;
    let damaged = |index, reason| RecordsError::Damaged { index, reason };
    let count = usize::try_from(header.count).map_err(|_| damaged(0, "the count is negative"))?;
    if count > data.len() / RECORD_BYTES_MIN {
        return Err(damaged(0, "the batch promises more records than its bytes can hold"));
    }
    let room = RECORDS_DECODED_MAX.checked_sub(count).ok_or(RecordsError::TooMany)?;
    if !memory(count * size_of::<Record>()) {
        return Err(CodecError::NoMemory.into());
    }
    let mut decoder = Decoder { data: &data, room, memory };
    let mut records = Vec::with_capacity(count);
    for (index, raw) in raw::Walk::new(&data, header.count, header.last_offset_delta).enumerate() {
        let decoded = decoder.record(base, header, raw?);
        records.push(decoded.map_err(|fault| match fault {
            Fault::TooMany => RecordsError::TooMany,
            Fault::NoMemory => CodecError::NoMemory.into(),
            Fault::Damaged(reason) => damaged(index, reason),
        })?);
    }
    Ok(records)
}

/// Makes records of what the walk finds.
struct Decoder<'a> {
    data: &'a Bytes,
    /// Headers that may still be decoded.
    room: usize,
    /// Asked before the list of headers is allocated: a header takes two bytes encoded and sixty-four decoded.
    memory: &'a mut dyn FnMut(usize) -> bool,
}

/// Why a record cannot be decoded.
enum Fault {
    TooMany,
    NoMemory,
    Damaged(&'static str),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Fault {
        Fault::Damaged(reason)
    }
}

impl Decoder<'_> {
    fn record(&mut self, base: Offset, header: &Header, raw: Raw) -> Result<Record, Fault> {
        let headers = self.headers(raw.headers)?;
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp
        } else {
            // Wraps like Kafka's own arithmetic. A nonsensical timestamp is the client's choice, not damage.
            header.base_timestamp.wrapping_add(raw.timestamp_delta)
        };
        let offset = Offset(base.0.checked_add(i64::from(raw.delta)).ok_or("the offset overflows")?);
        let slice = |range: Option<Range<usize>>| range.map(|range| self.data.slice(range));
        Ok(Record { offset, timestamp, key: slice(raw.key), value: slice(raw.value), headers })
    }

    fn headers(&mut self, range: Range<usize>) -> Result<Vec<(Bytes, Option<Bytes>)>, Fault> {
        let mut cursor = Cursor { data: &self.data[..range.end], position: range.start };
        let count = usize::try_from(cursor.varint()?).map_err(|_| "the header count is negative")?;
        if count > (range.end - cursor.position) / RECORD_HEADER_BYTES_MIN {
            return Err(Fault::Damaged("it promises more headers than its bytes can hold"));
        }
        self.room = self.room.checked_sub(count).ok_or(Fault::TooMany)?;
        if count > 0 && !(self.memory)(count * size_of::<(Bytes, Option<Bytes>)>()) {
            return Err(Fault::NoMemory);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = cursor.bytes(range.end)?.ok_or("a header key is null")?;
            let value = cursor.bytes(range.end)?;
            headers.push((self.data.slice(key), value.map(|value| self.data.slice(value))));
        }
        match cursor.position == range.end {
            true => Ok(headers),
            false => Err(Fault::Damaged("its length differs from its contents")),
        }
    }
}

/// Builds one batch.
///
/// ```
/// use floe_log::codec::Compression;
/// use floe_log::records::Builder;
/// let mut builder = Builder::new(Compression::Zstd);
/// builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
/// let bytes = builder.build();
/// assert_eq!(floe_log::header::validate(&bytes).unwrap().count, 1);
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    compression: Compression,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl Builder {
    /// An empty batch that belongs to no producer.
    pub fn new(compression: Compression) -> Builder {
        Builder {
            compression,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
            records: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Marks the batch as one of an idempotent producer.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Builder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Adds a record; `timestamp` in milliseconds since the epoch.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Builder {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let body = &mut self.scratch;
        body.clear();
        body.push(0);
        put_varlong(body, timestamp.wrapping_sub(self.base_timestamp));
        put_varlong(body, i64::from(self.count));
        put_nullable(body, key);
        put_nullable(body, value);
        put_varlong(body, length_of(headers.len()));
        for (key, value) in headers {
            put_nullable(body, Some(key));
            put_nullable(body, *value);
        }
        put_varlong(&mut self.records, length_of(self.scratch.len()));
        self.records.extend_from_slice(&self.scratch);
        self.count = self.count.checked_add(1).expect("a batch has fewer than 2^31 records");
        self
    }

    /// Adds a whole record. Ignores its offset: the sequencer assigns one.
    pub fn push_record(&mut self, record: &Record) -> &mut Builder {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        self.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
    }

    /// How many records were added.
    pub fn count(&self) -> usize {
        usize::try_from(self.count).expect("the count is never negative")
    }

    /// Bytes of the batch if it were built now without compression.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The finished batch, as a client sends it: base offset 0, leader epoch -1.
    ///
    /// # Panics
    /// When no record was added, or the batch exceeds 2 GiB: no reader could take it.
    pub fn build(&self) -> Bytes {
        assert!(self.count > 0, "a batch has at least one record");
        let compressed;
        let body = match self.compression {
            Compression::None => &self.records,
            codec => {
                compressed = codec.compress(&self.records);
                &compressed
            }
        };
        let length = i32::try_from(HEADER_BYTES - crate::format::header::LENGTH_OVERHEAD + body.len())
            .expect("a batch has less than 2 GiB");
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.compression as i16).to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&self.producer_id.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        assert_eq!(out.len(), HEADER_BYTES, "the header has its fixed size");
        out.extend_from_slice(body);
        let crc = crc32c::crc32c(&out[crate::format::header::CRC_FROM..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(out)
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return put_varlong(out, -1);
    };
    put_varlong(out, length_of(bytes.len()));
    out.extend_from_slice(bytes);
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn length_of(length: usize) -> i64 {
    i64::try_from(length).expect("what is in memory is shorter than 2^63 bytes")
}
