//! The WAL object format: batches of many partitions, grouped, with a checksummed footer.
//!
//! ```text
//!  0  magic "FLOE-WAL"                                      8 bytes
//!  8  version u16 = 1, zero u16, zero u32                   8 bytes
//! 16  batches, whole and back to back, grouped by (partition, writer), in order of arrival within a group
//!  …  footer: object, writers, groups (partition, writer, batch lengths), checksum of the batches' prefixes
//!  …  footer length u32 | CRC-32C of header, footer and footer length u32 | magic "EWALFLOE"   16 bytes, the end
//! ```
//! Numbers outside the footer are big endian; the footer is postcard.
//!
//! The footer makes an object self-describing. The metadata map can be checked against the store and, if all else
//! is lost, be rebuilt from it. Readers do not need the footer: an extent says where its batches are.
//!
//! The client's checksum protects each batch from byte 21 on. One more checksum in the footer covers the first 21
//! bytes of every batch, which include the length and the client's checksum. A flipped bit anywhere in the object
//! is therefore found, and no payload byte is summed twice on the way in.
//!
//! Batches are grouped by writer as well as by partition, so each pair gets one extent, however the requests
//! interleave. Requests of one writer keep their order. Requests of two writers in one object were concurrent,
//! because an object holds nothing that was answered before the object closed.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::format::header::{self, BatchError, CRC_FROM, HEADER_BYTES, Header};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, PartitionId};

/// The version that is written. Readers refuse any other.
pub const VERSION: u16 = 1;
/// Bytes before the first batch.
pub const HEAD_BYTES: usize = 16;
/// Bytes after the footer.
pub const TAIL_BYTES: usize = 16;

const HEAD_MAGIC: &[u8; 8] = b"FLOE-WAL";
const TAIL_MAGIC: &[u8; 8] = b"EWALFLOE";

/// A validated batch on its way into a WAL object.
#[derive(Clone, Debug)]
pub struct WalEntry {
    /// The partition that it is for.
    pub partition: PartitionId,
    /// The client that sent it.
    pub writer: Writer,
    /// The result of [`header::validate`] for `bytes`.
    pub header: Header,
    /// The whole batch, as it will be stored.
    pub bytes: Bytes,
    /// An earlier batch of the same producer and partition was in flight when this one arrived.
    pub follows: bool,
    /// `bytes` keeps little else in memory.
    pub alone: bool,
}

/// An encoded WAL object.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The object in pieces. The batches are not copied.
    pub payload: Vec<Bytes>,
    /// Bytes of the object.
    pub size: u64,
    /// The position of each entry's first byte in the object, in the order of the entries.
    pub positions: Vec<u64>,
}

/// A decoded and fully verified WAL object.
#[derive(Clone, Debug)]
pub struct WalObject {
    /// The id that the footer names.
    pub object: ObjectId,
    /// The batches in the order of their positions.
    pub entries: Vec<WalEntry>,
}

/// Why bytes are not a whole WAL object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Fewer bytes than the fixed parts take.
    #[error("WAL object is cut off at {0} bytes")]
    Truncated(usize),
    /// The magic at the beginning or at the end is missing.
    #[error("these bytes are not a WAL object")]
    Magic,
    /// A newer version of Floe wrote the object.
    #[error("WAL object has version {0}, this broker reads version {VERSION}: upgrade it")]
    Version(u16),
    /// The footer's checksum does not match.
    #[error("the footer of the WAL object is damaged")]
    Footer,
    /// The footer is sound but contradicts the object.
    #[error("the footer of the WAL object contradicts it: {0}")]
    Contradiction(&'static str),
    /// A batch is damaged.
    #[error("batch at byte {position} of the WAL object is damaged")]
    Batch {
        /// The batch's first byte in the object.
        position: usize,
        /// What is wrong with it.
        source: BatchError,
    },
}

/// The serialised footer. Every change of a field needs a new [`VERSION`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    pub(crate) object: ObjectId,
    writers: Vec<(String, String)>,
    pub(crate) groups: Vec<Group>,
    /// Of the first [`CRC_FROM`] bytes of all batches.
    pub(crate) prefixes_crc: u32,
}

/// Batches of one partition and writer, back to back.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) partition: PartitionId,
    writer: u32,
    pub(crate) lengths: Vec<u32>,
}

/// The places of entries, by partition and writer, in order of arrival within these.
pub(crate) fn grouped(entries: &[WalEntry]) -> BTreeMap<(PartitionId, &Writer), Vec<usize>> {
    let mut groups: BTreeMap<(PartitionId, &Writer), Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.bytes.len(), entry.header.size, "an entry is exactly one batch");
        groups.entry((entry.partition, &entry.writer)).or_default().push(index);
    }
    groups
}

/// Lays out a WAL object. The batches of one partition and writer become one group and keep their order.
pub fn encode(object: ObjectId, entries: &[WalEntry]) -> Encoded {
    let groups = grouped(entries);
    let mut writers: Vec<&Writer> = groups.keys().map(|(_, writer)| *writer).collect();
    writers.sort_unstable();
    writers.dedup();

    let head = head();
    let mut payload = Vec::with_capacity(entries.len() + 2);
    payload.push(Bytes::copy_from_slice(&head));
    let mut positions = vec![0; entries.len()];
    let mut position = HEAD_BYTES as u64;
    let mut prefixes_crc = 0;
    let mut footer_groups = Vec::with_capacity(groups.len());
    for ((partition, writer), indexes) in groups {
        let writer = writers.binary_search(&writer).expect("every writer of a group is in the list");
        let mut group =
            Group { partition, writer: to_u32(writer), lengths: Vec::with_capacity(indexes.len()) };
        for index in indexes {
            let bytes = &entries[index].bytes;
            positions[index] = position;
            position += bytes.len() as u64;
            prefixes_crc = crc32c::crc32c_append(prefixes_crc, &bytes[..CRC_FROM]);
            group.lengths.push(to_u32(bytes.len()));
            payload.push(bytes.clone());
        }
        footer_groups.push(group);
    }
    let writers = writers.iter().map(|w| (w.principal.to_string(), w.client_id.to_string())).collect();
    let tail = encode_tail(&head, &Footer { object, writers, groups: footer_groups, prefixes_crc });
    let size = position + tail.len() as u64;
    payload.push(tail);
    Encoded { payload, size, positions }
}

/// Decodes a whole WAL object and compares every checksum in it.
///
/// # Errors
/// [`WalError`]. A damaged object yields no batches.
pub fn decode(bytes: &Bytes) -> Result<WalObject, WalError> {
    let (footer, batches) = decode_footer(bytes)?;
    let mut entries = Vec::new();
    let mut position = batches.start;
    let mut prefixes_crc = 0;
    for group in footer.groups {
        let (principal, client_id) = usize::try_from(group.writer)
            .ok()
            .and_then(|writer| footer.writers.get(writer))
            .ok_or(WalError::Contradiction("a group names a writer that is not listed"))?;
        let writer = Writer::new(principal, client_id);
        for length in group.lengths {
            let end = usize::try_from(length).ok().and_then(|length| position.checked_add(length));
            let Some(end) = end.filter(|&end| end <= batches.end) else {
                return Err(WalError::Contradiction("the batches exceed the object"));
            };
            let batch = bytes.slice(position..end);
            let header = verify_batch(&batch).map_err(|source| WalError::Batch { position, source })?;
            prefixes_crc = crc32c::crc32c_append(prefixes_crc, &batch[..CRC_FROM]);
            entries.push(WalEntry {
                partition: group.partition,
                writer: writer.clone(),
                header,
                bytes: batch,
                follows: false,
                alone: false,
            });
            position = end;
        }
    }
    if position != batches.end {
        return Err(WalError::Contradiction("bytes lie between the batches and the footer"));
    }
    if prefixes_crc != footer.prefixes_crc {
        return Err(WalError::Contradiction("the first bytes of a batch changed"));
    }
    Ok(WalObject { object: footer.object, entries })
}

/// The header of exactly one batch whose checksum is right.
pub(crate) fn verify_batch(batch: &[u8]) -> Result<Header, BatchError> {
    let header = Header::parse(batch)?;
    if header.size != batch.len() {
        return Err(BatchError::Truncated { have: batch.len(), need: header.size });
    }
    header::verify_checksum(&header, batch)?;
    Ok(header)
}

/// The footer, and the range of the batches.
fn decode_footer(bytes: &[u8]) -> Result<(Footer, Range<usize>), WalError> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(WalError::Truncated(bytes.len()))?;
    if rest.len() < TAIL_BYTES {
        return Err(WalError::Truncated(bytes.len()));
    }
    let batches_bytes = rest.len().checked_sub(footer_bytes(rest)?).ok_or(WalError::Footer)?;
    let footer = Footer::decode(head, &rest[batches_bytes..])?;
    Ok((footer, HEAD_BYTES..HEAD_BYTES + batches_bytes))
}

/// How many of the last bytes of an object are its footer and tail, by its last [`TAIL_BYTES`].
///
/// # Errors
/// The bytes are not the end of a WAL object.
pub(crate) fn footer_bytes(end: &[u8]) -> Result<usize, WalError> {
    let tail = end.last_chunk::<TAIL_BYTES>().ok_or(WalError::Truncated(end.len()))?;
    if tail[8..] != *TAIL_MAGIC {
        return Err(WalError::Magic);
    }
    let footer_bytes = u32::from_be_bytes(*tail.first_chunk().expect("the tail has 16 bytes"));
    let footer_bytes = usize::try_from(footer_bytes).ok();
    footer_bytes.and_then(|bytes| bytes.checked_add(TAIL_BYTES)).ok_or(WalError::Footer)
}

impl Footer {
    /// The footer of an object, out of its first and its last bytes: exactly as many as [`footer_bytes`] says.
    ///
    /// # Errors
    /// They are damaged.
    pub(crate) fn decode(head: &[u8; HEAD_BYTES], end: &[u8]) -> Result<Footer, WalError> {
        let (footer, tail) = end.split_last_chunk::<TAIL_BYTES>().ok_or(WalError::Truncated(end.len()))?;
        if head[..8] != *HEAD_MAGIC || tail[8..] != *TAIL_MAGIC {
            return Err(WalError::Magic);
        }
        let footer_bytes = u32::from_be_bytes(*tail.first_chunk().expect("the tail has 16 bytes"));
        let crc = u32::from_be_bytes(*tail[4..].first_chunk().expect("the tail has 16 bytes"));
        if checksum(head, footer, footer_bytes) != crc {
            return Err(WalError::Footer);
        }
        // The version is checked last: before the checksum, any bit of it could be flipped.
        let version = u16::from_be_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(WalError::Version(version));
        }
        postcard::from_bytes(footer).map_err(|_| WalError::Contradiction("it does not decode"))
    }
}

fn head() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(HEAD_MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_be_bytes());
    head
}

fn encode_tail(head: &[u8; HEAD_BYTES], footer: &Footer) -> Bytes {
    let mut tail = postcard::to_allocvec(footer).expect("a footer of plain values always encodes");
    let footer_bytes = to_u32(tail.len());
    let crc = checksum(head, &tail, footer_bytes);
    tail.extend_from_slice(&footer_bytes.to_be_bytes());
    tail.extend_from_slice(&crc.to_be_bytes());
    tail.extend_from_slice(TAIL_MAGIC);
    Bytes::from(tail)
}

fn checksum(head: &[u8], footer: &[u8], footer_bytes: u32) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), footer);
    crc32c::crc32c_append(crc, &footer_bytes.to_be_bytes())
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a WAL object is far below 4 GiB")
}

const _: () = assert!(CRC_FROM < HEADER_BYTES, "the prefix of a batch lies within its header");
