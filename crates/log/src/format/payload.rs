//! The bytes that ride with a commit: batches of many partitions, back to back.
//!
//! They are laid out as in a WAL object, grouped by partition and writer in order of arrival, without head and footer:
//! the commit beside them describes them, and the journal sums them. The sum is joined from those of large batches,
//! which were compared when they arrived. So it also tells when a large batch has changed in memory since.

use bytes::Bytes;

use crate::format::header::CRC_FROM;
use crate::format::wal::{self, WalEntry};
use crate::limits::CRC_JOINED_BYTES;

/// Batches that are laid out for a commit.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// The batches. They are not copied.
    pub(crate) pieces: Vec<Bytes>,
    /// Whether each of them keeps little else in memory.
    pub(crate) alone: Vec<bool>,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
    /// CRC-32C of all of them.
    pub(crate) crc: u32,
    /// The position of each entry's first byte, in the order of the entries.
    pub(crate) positions: Vec<u64>,
}

/// Lays batches out.
pub(crate) fn lay_out(entries: &[WalEntry]) -> Payload {
    let mut payload = Payload {
        pieces: Vec::with_capacity(entries.len()),
        alone: Vec::with_capacity(entries.len()),
        bytes: 0,
        crc: 0,
        positions: vec![0; entries.len()],
    };
    for index in wal::grouped(entries).into_values().flatten() {
        let WalEntry { bytes, header, .. } = &entries[index];
        payload.positions[index] = payload.bytes;
        payload.bytes += bytes.len() as u64;
        payload.crc = joined(payload.crc, bytes, header.crc);
        payload.pieces.push(bytes.clone());
        payload.alone.push(entries[index].alone);
    }
    payload
}

/// The CRC-32C of bytes with `crc` and of a batch behind them, which says that it has `of_batch` from its byte 21 on.
fn joined(crc: u32, batch: &Bytes, of_batch: u32) -> u32 {
    if batch.len() < CRC_JOINED_BYTES {
        return crc32c::crc32c_append(crc, batch);
    }
    let prefix = crc32c::crc32c_append(crc, &batch[..CRC_FROM]);
    crc32c::crc32c_combine(prefix, of_batch, batch.len() - CRC_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::codec::Compression;
    use crate::format::header;
    use crate::format::records::Builder;
    use crate::map::identity::Writer;
    use crate::map::ids::{PartitionId, TopicId};

    fn entry(partition: u32, writer: &str, value: &[u8]) -> WalEntry {
        let mut builder = Builder::new(Compression::None);
        let bytes = builder.push(1, None, Some(value), &[]).build();
        let header = header::validate(&bytes).expect("it is a batch");
        let partition = PartitionId { topic: TopicId(1), index: partition };
        WalEntry {
            partition,
            writer: Writer::new("User:test", writer),
            header,
            bytes,
            follows: false,
            alone: false,
        }
    }

    #[test]
    fn the_sum_and_the_positions_are_those_of_the_bytes_in_order_of_partition_writer_and_arrival() {
        let large = vec![7; CRC_JOINED_BYTES];
        let entries = [
            entry(1, "b", b"first"),
            entry(0, "b", &large),
            entry(1, "a", b"second"),
            entry(1, "b", &large),
            entry(0, "b", b"third"),
        ];
        let payload = lay_out(&entries);
        let order = [1, 4, 2, 0, 3];
        let all: Vec<u8> = order.iter().flat_map(|&at| entries[at].bytes.to_vec()).collect();
        assert_eq!(payload.pieces.concat(), all);
        assert_eq!((payload.bytes, payload.crc), (all.len() as u64, crc32c::crc32c(&all)));
        for (entry, position) in entries.iter().zip(&payload.positions) {
            assert_eq!(all[*position as usize..][..entry.bytes.len()], entry.bytes[..]);
        }
    }

    #[test]
    fn a_large_batch_that_changes_in_memory_does_not_match_its_sum() {
        let mut changed = entry(0, "a", &vec![7; CRC_JOINED_BYTES]);
        let mut bytes = changed.bytes.to_vec();
        *bytes.last_mut().expect("it has bytes") ^= 1;
        changed.bytes = bytes.into();
        let payload = lay_out(&[changed]);
        assert_ne!(payload.crc, crc32c::crc32c(&payload.pieces.concat()));
    }
}
