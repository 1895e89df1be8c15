//! The first bytes of a batch whose offset is stamped in it.
//!
//! The client's checksum covers a batch from byte 21 on. In a WAL object the offset is not in the batch, and the footer
//! sums the rest of those bytes. In a segment each batch has its offset, and readers read a few batches of it. So each
//! batch has a sum of its own, where Kafka has the leader epoch: Floe replaces that field on the way out anyway.
//! ```text
//!  0  base offset i64     as assigned
//!  8  length i32
//! 12  sum u32             CRC-32C of the partition's index u32, bytes 0 to 11, bytes 16 to 20
//! 16  magic, checksum     as the client sent them
//! ```
//! The index is in the sum: so a batch of one partition is not taken for that of another. The topic is not: extents
//! move to another topic's id when their records are removed and can come back (`map/removed.rs`).

use crate::format::batch::PREFIX_BYTES;
use crate::format::header::{CRC_FROM, LENGTH_AT};
use crate::map::ids::{Offset, PartitionId};

/// Where the sum is.
const SUM_AT: usize = 12;

/// The first bytes of a batch that is stored with its offset. The others are stored as they are.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn stamp(partition: PartitionId, base_offset: Offset, batch: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut stamped = [0; PREFIX_BYTES];
    stamped[..LENGTH_AT].copy_from_slice(&base_offset.0.to_be_bytes());
    stamped[LENGTH_AT..SUM_AT].copy_from_slice(&batch[LENGTH_AT..SUM_AT]);
    let sum = sum(partition, &stamped[..SUM_AT], &batch[PREFIX_BYTES..CRC_FROM]);
    stamped[SUM_AT..].copy_from_slice(&sum.to_be_bytes());
    stamped
}

/// Whether the first bytes of a batch are those that were stored with it for this partition.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn is_sound(partition: PartitionId, batch: &[u8]) -> bool {
    let stored = batch[SUM_AT..PREFIX_BYTES].first_chunk().expect("it has four bytes");
    u32::from_be_bytes(*stored) == sum(partition, &batch[..SUM_AT], &batch[PREFIX_BYTES..CRC_FROM])
}

fn sum(partition: PartitionId, front: &[u8], back: &[u8]) -> u32 {
    // One call, because each costs more than the copy.
    let mut summed = [0; 4 + SUM_AT + CRC_FROM - PREFIX_BYTES];
    summed[..4].copy_from_slice(&partition.index.to_be_bytes());
    summed[4..4 + SUM_AT].copy_from_slice(front);
    summed[4 + SUM_AT..].copy_from_slice(back);
    crc32c::crc32c(&summed)
}

const _: () = assert!(SUM_AT + 4 == PREFIX_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::Batch;
    use crate::format::{codec::Compression, header, records::Builder};
    use crate::map::ids::TopicId;

    #[test]
    fn every_flip_of_the_first_bytes_is_found_and_the_way_out_is_as_kafka_has_it() {
        let mut builder = Builder::new(Compression::None);
        let bytes = builder.push(5, None, Some(b"v"), &[]).build();
        let partition = PartitionId::new(TopicId(7), 3);
        let mut stored = bytes.to_vec();
        stored[..PREFIX_BYTES].copy_from_slice(&stamp(partition, Offset(1 << 40), &bytes));
        assert!(is_sound(partition, &stored));
        assert!(!is_sound(PartitionId::new(TopicId(7), 2), &stored), "of another partition");
        assert!(is_sound(PartitionId::new(TopicId(6), 3), &stored), "extents move to other topics");
        for bit in 0..CRC_FROM * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sound(partition, &flipped), "bit {bit}");
        }
        assert!(header::validate(&stored).is_ok(), "the client's checksum holds");
        let batch = Batch::new(Offset(1 << 40), stored.into()).expect("a batch");
        assert_eq!(batch.header().base_offset, 1 << 40);
        assert_eq!(batch.stamped()[12..16], [0; 4], "clients get leader epoch 0");
        assert_eq!(batch.stamped()[16..], bytes[16..]);
    }
}
