//! Batches that the broker makes: markers of transactions, and batches without records.
//!
//! Source: KIP-98, "Control Records". A marker is a control batch with one record.
//! ```text
//! key     version i16 = 0 | type i16: 0 abort, 1 commit
//! value   version i16 = 0 | coordinator epoch i32 = 0
//! ```

use bytes::Bytes;

use crate::format::header::{CONTROL, CRC_FROM, HEADER_BYTES, LENGTH_OVERHEAD, TRANSACTIONAL};
use crate::map::extent::{Marker, Outcome};

/// The record of a marker: its length, attributes, deltas of time and offset, key, value, no headers.
const MARKER_RECORD: [u8; 17] = [32, 0, 0, 0, 8, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0];
/// Where the type of a marker is in it.
const TYPE_AT: usize = 8;

/// The control batch of a marker.
pub(crate) fn marker(marker: &Marker) -> Bytes {
    let mut record = MARKER_RECORD;
    record[TYPE_AT] = match marker.outcome {
        Outcome::Abort => 0,
        Outcome::Commit => 1,
    };
    let fields = Fields {
        attributes: TRANSACTIONAL | CONTROL,
        last_offset_delta: 0,
        time: marker.time.0,
        producer: (marker.producer_id, marker.producer_epoch),
        count: 1,
    };
    fields.build(&record)
}

/// A batch without records that covers so many offsets, which are at most 2^31.
pub(crate) fn empty(offsets: u64) -> Bytes {
    let last = offsets.checked_sub(1).and_then(|last| i32::try_from(last).ok());
    let last_offset_delta = last.expect("a batch covers 1 to 2^31 offsets");
    Fields { attributes: 0, last_offset_delta, time: -1, producer: (-1, -1), count: 0 }.build(&[])
}

/// What differs between batches that the broker makes.
struct Fields {
    attributes: i16,
    last_offset_delta: i32,
    time: i64,
    producer: (i64, i16),
    count: i32,
}

impl Fields {
    fn build(&self, records: &[u8]) -> Bytes {
        let length = i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD + records.len()).expect("a few bytes");
        let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&0i32.to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.attributes.to_be_bytes());
        out.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.producer.0.to_be_bytes());
        out.extend_from_slice(&self.producer.1.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        assert_eq!(out.len(), HEADER_BYTES, "the header has its fixed size");
        out.extend_from_slice(records);
        let crc = crc32c::crc32c(&out[CRC_FROM..]);
        out[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use floe_env::Timestamp;
    use floe_meta::Lsn;

    use super::*;
    use crate::format::batch::Batch;
    use crate::format::header::{Header, verify_checksum};
    use crate::map::ids::Offset;

    #[test]
    fn a_marker_is_the_control_batch_of_kip_98() {
        for (outcome, kind) in [(Outcome::Abort, 0), (Outcome::Commit, 1)] {
            let time = Timestamp(1_767_225_600_000);
            let marker = Marker { producer_id: 4001, producer_epoch: 7, outcome, time, lsn: Lsn(9) };
            let batch = Batch::of_marker(Offset(12), &marker);
            let header = batch.header();
            assert!(header.is_control() && header.is_transactional() && !batch.has_records());
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (4001, 7, -1));
            assert_eq!((batch.base_offset, batch.next_offset()), (Offset(12), Offset(13)));
            verify_checksum(header, &batch.bytes).expect("its checksum is right");
            let records = batch.records(1_000).expect("it is a batch");
            let [record] = &records[..] else { panic!("{records:?}") };
            assert_eq!((record.offset, record.timestamp), (Offset(12), time.0));
            assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, kind][..]));
            assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 0][..]));
        }
    }

    #[test]
    fn a_gap_is_a_batch_without_records() {
        for (offsets, covered) in [(1, 1), (300, 300), (1 << 31, 1 << 31), (1 << 40, 1 << 31)] {
            let batch = Batch::of_gap(Offset(5), offsets);
            assert_eq!(batch.next_offset(), Offset(5 + covered));
            assert!(!batch.has_records() && batch.records(100).expect("it is a batch").is_empty());
            verify_checksum(&Header::parse(&batch.bytes).expect("a header"), &batch.bytes).expect("right");
        }
    }
}
