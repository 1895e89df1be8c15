//! The header of a Kafka record batch, version 2: parsing, validation, append time. The records are the matter of
//! `verify.rs`, which looks at them once on the way in, and of `records.rs`, which decodes them for views.
//!
//! Source: the Kafka protocol guide, "Record Batch". All numbers are big endian.
//! ```text
//!  0 base offset i64      assigned by the client from 0; replaced on the way out, not under the checksum
//!  8 length i32           bytes that follow this field
//! 12 leader epoch i32     replaced on the way out, not under the checksum
//! 16 magic i8             2
//! 17 crc u32              CRC-32C of everything from byte 21 on
//! 21 attributes i16       0-2 compression, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//! 23 last offset delta i32
//! 27 base timestamp i64   milliseconds since the epoch
//! 35 max timestamp i64    milliseconds since the epoch, -1 for none
//! 43 producer id i64      -1 for none
//! 51 producer epoch i16   -1 for none
//! 53 base sequence i32    -1 for none
//! 57 records count i32
//! 61 records              compressed as the attributes say (`records.rs`)
//! ```

use bytes::Bytes;

use crate::format::codec::Compression;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of a batch that its `length` field does not count: the base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;
/// The fewest bytes of a record: seven fields of one byte each.
pub(crate) const RECORD_BYTES_MIN: usize = 7;
/// The first byte that the checksum covers.
pub(crate) const CRC_FROM: usize = 21;

pub(crate) const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;
const MAGIC: i8 = 2;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const TRANSACTIONAL: i16 = 0x10;
pub(crate) const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// The parsed fixed part of a batch. Trust nothing in it before [`validate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The base offset as the client wrote it. The sequencer assigns the real offsets.
    pub base_offset: i64,
    /// Bytes of the whole batch, this header included.
    pub size: usize,
    /// The partition leader epoch as the client wrote it.
    pub leader_epoch: i32,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: u32,
    /// Flags and compression, see the accessors.
    pub attributes: i16,
    /// The offset of the last record minus the base offset.
    pub last_offset_delta: i32,
    /// Milliseconds since the epoch of the first record.
    pub base_timestamp: i64,
    /// The largest timestamp of a record in milliseconds since the epoch, -1 for none.
    pub max_timestamp: i64,
    /// The idempotent producer, -1 for none.
    pub producer_id: i64,
    /// The epoch of the producer, -1 for none.
    pub producer_epoch: i16,
    /// The sequence number of the first record, -1 for none.
    pub base_sequence: i32,
    /// How many records the batch says it has.
    pub count: i32,
}

/// Why bytes may not be stored as a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header takes, or than the header promises.
    #[error("batch is cut off: {have} bytes of {need}")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The length field is less than a header or more than the format allows.
    #[error("batch length {0} is impossible")]
    Length(i32),
    /// An older message format; Kafka 4 refuses them as well (KIP-724).
    #[error("message format {0} is not supported, only 2 is")]
    Magic(i8),
    /// The stored and the computed checksum differ.
    #[error("batch checksum is {stored:08x} but its bytes give {computed:08x}")]
    Checksum {
        /// The checksum in the batch.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// The record count and the last offset delta contradict each other.
    #[error("batch of {count} records has last offset delta {last_offset_delta}")]
    Count {
        /// The record count of the header.
        count: i32,
        /// The last offset delta of the header.
        last_offset_delta: i32,
    },
    /// The compression bits name no codec.
    #[error("compression type {0} is unknown")]
    Compression(i16),
    /// More bytes follow the batch. A produce request carries one batch per partition.
    #[error("{0} bytes follow the batch, send one batch per partition and request")]
    Trailing(usize),
    /// The client chose an offset.
    #[error("the base offset must be 0, it is {0}: the broker assigns offsets")]
    BaseOffset(i64),
    /// A control batch, which only brokers may write.
    #[error("clients may not write control batches")]
    Control,
    /// A transactional batch. Floe does not offer transactions.
    #[error("transactional batches are not supported")]
    Transactional,
    /// A producer id without a sequence.
    #[error("producer id {producer_id} with epoch {producer_epoch} needs a sequence, it is {base_sequence}")]
    Producer {
        /// The producer id of the header.
        producer_id: i64,
        /// The producer epoch of the header.
        producer_epoch: i16,
        /// The base sequence of the header.
        base_sequence: i32,
    },
}

impl BatchError {
    /// How the error is answered. The kinds are those of Apache Kafka (measured by `interop/run --peer`).
    pub fn blame(&self) -> Blame {
        match self {
            BatchError::Length(_) | BatchError::Checksum { .. } => Blame::Transport,
            BatchError::Magic(magic) if *magic > MAGIC => Blame::Transport,
            BatchError::Compression(_) => Blame::Undecodable,
            BatchError::Truncated { .. }
            | BatchError::Magic(_)
            | BatchError::Count { .. }
            | BatchError::BaseOffset(_)
            | BatchError::Trailing(_)
            | BatchError::Control
            | BatchError::Transactional
            | BatchError::Producer { .. } => Blame::Client,
        }
    }
}

/// Who has to do something about a batch that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The bytes were damaged on their way: clients send them again (Kafka: `CORRUPT_MESSAGE`).
    Transport,
    /// The client made a batch that is not allowed (Kafka: `INVALID_RECORD`, which is final).
    Client,
    /// Nobody can decode the records (Kafka: `UNKNOWN_SERVER_ERROR`, which is final too).
    Undecodable,
}

impl Header {
    /// Parses the first 61 bytes. Checks what is needed to find the end of the batch (length, magic). Does not
    /// check its contents, nor that all its bytes are present.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Length`], [`BatchError::Magic`].
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        let fixed: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(BatchError::Truncated { have: bytes.len(), need: HEADER_BYTES })?;
        let magic = i8::from_be_bytes(at(fixed, MAGIC_AT));
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let length = i32::from_be_bytes(at(fixed, LENGTH_AT));
        let size = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(LENGTH_OVERHEAD))
            .filter(|&size| size >= HEADER_BYTES)
            .ok_or(BatchError::Length(length))?;
        Ok(Header {
            base_offset: i64::from_be_bytes(at(fixed, 0)),
            size,
            leader_epoch: i32::from_be_bytes(at(fixed, 12)),
            crc: u32::from_be_bytes(at(fixed, CRC_AT)),
            attributes: i16::from_be_bytes(at(fixed, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(at(fixed, 23)),
            base_timestamp: i64::from_be_bytes(at(fixed, 27)),
            max_timestamp: i64::from_be_bytes(at(fixed, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(at(fixed, 43)),
            producer_epoch: i16::from_be_bytes(at(fixed, 51)),
            base_sequence: i32::from_be_bytes(at(fixed, 53)),
            count: i32::from_be_bytes(at(fixed, 57)),
        })
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::Compression`] when the bits name no codec.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let bits = self.attributes & COMPRESSION_MASK;
        Compression::from_bits(bits).ok_or(BatchError::Compression(bits))
    }

    /// Whether all records carry the broker's time (the max timestamp) instead of their own.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// When the tombstones of the batch, or its marker, may go, in milliseconds since the epoch (KIP-534). Compaction
    /// writes it in place of the base timestamp.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether the batch comes from an idempotent producer.
    pub fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }

    /// How many offsets the batch takes, once validated; at least 1.
    pub fn offsets(&self) -> u32 {
        u32::try_from(self.last_offset_delta).map_or(1, |delta| delta + 1)
    }

    /// Checks all rules for a stored batch except its checksum.
    fn check(&self) -> Result<(), BatchError> {
        if self.count < 1 || self.last_offset_delta != self.count - 1 {
            let Header { count, last_offset_delta, .. } = *self;
            return Err(BatchError::Count { count, last_offset_delta });
        }
        let uncompressed = self.compression()? == Compression::None;
        if uncompressed && self.offsets() as usize > (self.size - HEADER_BYTES) / RECORD_BYTES_MIN {
            let Header { count, last_offset_delta, .. } = *self;
            return Err(BatchError::Count { count, last_offset_delta });
        }
        if self.is_control() {
            return Err(BatchError::Control);
        }
        if self.is_transactional() {
            return Err(BatchError::Transactional);
        }
        // Without a producer id epoch and sequence mean nothing: clients write 0 there as well as -1.
        if self.is_idempotent() && self.base_sequence < 0 {
            let Header { producer_id, producer_epoch, base_sequence, .. } = *self;
            return Err(BatchError::Producer { producer_id, producer_epoch, base_sequence });
        }
        Ok(())
    }
}

/// Validates the bytes that a client wants to store. They must be exactly one whole batch of format 2, with the
/// right checksum and count, neither control nor transactional. Reads every byte once, for the checksum, and
/// decodes no record.
///
/// # Errors
/// The first [`BatchError`] found.
pub fn validate(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = Header::parse(bytes)?;
    if bytes.len() < header.size {
        return Err(BatchError::Truncated { have: bytes.len(), need: header.size });
    }
    if bytes.len() > header.size {
        return Err(BatchError::Trailing(bytes.len() - header.size));
    }
    verify_checksum(&header, bytes)?;
    header.check()?;
    Ok(header)
}

/// Compares the checksum of one whole batch with its bytes.
pub(crate) fn verify_checksum(header: &Header, batch: &[u8]) -> Result<(), BatchError> {
    assert_eq!(batch.len(), header.size, "a checksum covers exactly one batch");
    let computed = crc32c::crc32c(&batch[CRC_FROM..]);
    if computed != header.crc {
        return Err(BatchError::Checksum { stored: header.crc, computed });
    }
    Ok(())
}

/// A copy of a validated batch in which all records carry `time` (milliseconds since the epoch), as a topic with
/// `message.timestamp.type=LogAppendTime` requires. The records stay as they are: readers use the max timestamp for
/// all of them.
///
/// # Panics
/// When `bytes` is not one whole batch: validate it first.
pub fn with_append_time(bytes: &[u8], time: i64) -> Bytes {
    let header = Header::parse(bytes).expect("only validated batches are stamped");
    assert_eq!(bytes.len(), header.size, "only whole batches are stamped");
    let mut out = bytes.to_vec();
    let attributes = header.attributes | LOG_APPEND_TIME;
    put(&mut out, ATTRIBUTES_AT, attributes.to_be_bytes());
    put(&mut out, MAX_TIMESTAMP_AT, time.to_be_bytes());
    let crc = crc32c::crc32c(&out[CRC_FROM..]);
    put(&mut out, CRC_AT, crc.to_be_bytes());
    Bytes::from(out)
}

/// A copy of a validated batch in which each record has its own time, whatever the attributes said before.
///
/// # Panics
/// When `bytes` is not one whole batch: validate it first.
pub(crate) fn without_append_time(bytes: &[u8]) -> Bytes {
    let header = Header::parse(bytes).expect("only validated batches are changed");
    let mut out = bytes.to_vec();
    put(&mut out, ATTRIBUTES_AT, (header.attributes & !LOG_APPEND_TIME).to_be_bytes());
    let crc = crc32c::crc32c(&out[CRC_FROM..header.size]);
    put(&mut out, CRC_AT, crc.to_be_bytes());
    Bytes::from(out)
}

/// What a producer writes anew when it sends the records of a built batch another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The time of the first record, in milliseconds since the epoch. The others keep their distance to it.
    pub timestamp: i64,
    /// The idempotent producer, its epoch and the sequence number of the first record; `None` for no producer.
    pub producer: Option<(i64, i16, i32)>,
}

/// A copy of a batch with another time and another producer. Its records are neither encoded nor compressed again.
///
/// # Panics
/// When `bytes` is not one whole batch.
pub fn with_stamp(bytes: &[u8], stamp: Stamp) -> Bytes {
    let header = Header::parse(bytes).expect("only batches are stamped");
    assert_eq!(bytes.len(), header.size, "only whole batches are stamped");
    let span = header.max_timestamp.saturating_sub(header.base_timestamp);
    let (id, epoch, sequence) = stamp.producer.unwrap_or((-1, -1, -1));
    let mut out = bytes.to_vec();
    put(&mut out, BASE_TIMESTAMP_AT, stamp.timestamp.to_be_bytes());
    put(&mut out, MAX_TIMESTAMP_AT, stamp.timestamp.saturating_add(span).to_be_bytes());
    put(&mut out, PRODUCER_ID_AT, id.to_be_bytes());
    put(&mut out, PRODUCER_EPOCH_AT, epoch.to_be_bytes());
    put(&mut out, BASE_SEQUENCE_AT, sequence.to_be_bytes());
    let crc = crc32c::crc32c(&out[CRC_FROM..]);
    put(&mut out, CRC_AT, crc.to_be_bytes());
    Bytes::from(out)
}

/// What compaction changes in the header of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    /// The offset that the log gave to the batch.
    pub(crate) base_offset: i64,
    /// How many records are left.
    pub(crate) count: i32,
    /// The largest timestamp among them.
    pub(crate) max_timestamp: i64,
    /// A new delete horizon, which takes the place of the base timestamp.
    pub(crate) delete_horizon: Option<i64>,
}

/// A batch with the header of another one, but for what changes, and with these records. It covers the same offsets,
/// and keeps producer, sequence and codec.
///
/// # Panics
/// When `bytes` does not begin with the header of a batch, or the records exceed 2 GiB.
pub(crate) fn rewritten(bytes: &[u8], change: Rewrite, body: &[u8]) -> Bytes {
    let header = Header::parse(bytes).expect("only batches are rewritten");
    let length =
        i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD + body.len()).expect("a batch has less than 2 GiB");
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&bytes[..HEADER_BYTES]);
    put(&mut out, 0, change.base_offset.to_be_bytes());
    put(&mut out, LENGTH_AT, length.to_be_bytes());
    put(&mut out, LEADER_EPOCH_AT, 0i32.to_be_bytes());
    if let Some(horizon) = change.delete_horizon {
        put(&mut out, ATTRIBUTES_AT, (header.attributes | DELETE_HORIZON).to_be_bytes());
        put(&mut out, BASE_TIMESTAMP_AT, horizon.to_be_bytes());
    }
    put(&mut out, MAX_TIMESTAMP_AT, change.max_timestamp.to_be_bytes());
    put(&mut out, COUNT_AT, change.count.to_be_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[CRC_FROM..]);
    put(&mut out, CRC_AT, crc.to_be_bytes());
    Bytes::from(out)
}

/// Writes a field of the header of a whole batch.
fn put<const N: usize>(batch: &mut [u8], position: usize, field: [u8; N]) {
    batch[position..position + N].copy_from_slice(&field);
}

/// `N` bytes of the header from `position`. Both are constants, so the bounds hold by construction.
fn at<const N: usize>(fixed: &[u8; HEADER_BYTES], position: usize) -> [u8; N] {
    *fixed[position..].first_chunk().expect("a field lies within the header")
}
