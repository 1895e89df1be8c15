//! The pure parts of reading.

use proptest::prelude::*;

use super::*;
use crate::read::walk::{At, ReadError};
use crate::write::sequencer::sequence;

/// A partition with one extent per object. Each batch is given as (records, timestamp).
fn fill(tx: &mut Tx<'_>, objects: &[Vec<(u32, i64)>]) -> (PartitionId, Vec<Bytes>) {
    let partition = PartitionId::new(create(tx, "t", 1).id, 0);
    lease(tx, 1, 1000);
    let writer = Writer::new("User:a", "c");
    let mut bytes = Vec::new();
    for (id, batches) in (1..).zip(objects) {
        let batches: Vec<Bytes> = batches.iter().map(|&(count, time)| plain(count, time)).collect();
        let entries: Vec<_> = batches.iter().map(|bytes| (partition, &writer, bytes)).collect();
        assert!(sequence(tx, &uploaded(id, &entries)).iter().all(Result::is_ok));
        bytes.push(Bytes::from(batches.concat()));
    }
    (partition, bytes)
}

#[test]
fn bounds_are_checked_first() {
    in_tx(|tx| {
        let (partition, _) = fill(tx, &[vec![(3, 0)]]);
        let mut head = crate::map::partition::head(tx, partition).unwrap().unwrap();
        head.log_start = Offset(1);
        tx.put(&partition, &head);
        let check = |from| walk::check(tx, partition, Offset(from));
        let out = ReadError::OutOfRange { log_start: Offset(1), high_watermark: Offset(3) };
        assert_eq!(check(0), Err(out.clone()));
        assert_eq!(check(4), Err(out));
        assert_eq!(check(1).unwrap(), check(3).unwrap());
        let other = PartitionId::new(partition.topic, 1);
        assert_eq!(walk::check(tx, other, Offset(0)), Err(ReadError::UnknownPartition));
        assert_ne!(At::Earliest, At::Latest);
    });
}

#[test]
fn extents_begin_with_the_one_that_holds_the_offset() {
    in_tx(|tx| {
        let (partition, _) = fill(tx, &[vec![(2, 0), (1, 0)], vec![(4, 0)], vec![(1, 0)]]);
        create(tx, "neighbour", 1);
        for (from, expected) in [
            (0, vec![0, 3, 7]),
            (2, vec![0, 3, 7]),
            (3, vec![3, 7]),
            (6, vec![3, 7]),
            (7, vec![7]),
            (8, vec![]),
        ] {
            let bases: Vec<i64> = walk::extents(tx, partition, Offset(from))
                .unwrap()
                .map(|pair| pair.unwrap().0.base.0)
                .collect();
            assert_eq!(bases, expected, "from {from}");
        }
    });
}

#[test]
fn times_are_found_by_extent_batch_and_record() {
    in_tx(|tx| {
        // The records carry 100, 101; 50, 51, 52; 300; 200, 201; and no time.
        let objects = [vec![(2, 100), (3, 50)], vec![(1, 300), (2, 200)], vec![(1, -1)]];
        let (partition, bytes) = fill(tx, &objects);
        let at = |start: i64, time: i64| {
            let (key, extent) = walk::extent_at(tx, partition, Offset(start), Timestamp(time)).unwrap()?;
            let bytes = &bytes[extent.object().unwrap().0 as usize - 1];
            let batches = walk::batches(run(key.base), bytes, Offset(start), usize::MAX).unwrap().batches;
            walk::record_at(&batches, Offset(start), Timestamp(time), 1 << 20)
                .unwrap()
                .map(|(o, t)| (o.0, t.0))
        };
        assert_eq!(at(0, 0), Some((0, 100)));
        assert_eq!(at(0, 101), Some((1, 101)));
        assert_eq!(at(0, 102), Some((5, 300)));
        assert_eq!(at(2, 51), Some((3, 51)));
        assert_eq!(at(0, 301), None);

        let (key, extent) = walk::extent_of_max(tx, partition, Offset(0)).unwrap().unwrap();
        assert_eq!((key.base, extent.object()), (Offset(5), Some(ObjectId(2))));
        let batches = walk::batches(run(key.base), &bytes[1], Offset(0), usize::MAX).unwrap().batches;
        let found = walk::record_of_max(&batches, Offset(0), 1 << 20).unwrap();
        assert_eq!(found, Some((Offset(5), Timestamp(300))));
        assert_eq!(
            walk::record_of_max(&batches, Offset(6), 1 << 20).unwrap(),
            Some((Offset(7), Timestamp(201)))
        );
        let timeless = walk::batches(run(Offset(8)), &bytes[2], Offset(8), usize::MAX).unwrap().batches;
        assert_eq!(walk::record_of_max(&timeless, Offset(0), 1 << 20).unwrap(), None);
        assert_eq!(walk::extent_of_max(tx, partition, Offset(8)).unwrap(), None);
    });
}

/// Clients may store anything under a right checksum, and lookups by time must still work.
#[test]
fn a_batch_that_cannot_be_decoded_is_found_by_its_header() {
    let mut junk = plain(3, 100).to_vec();
    junk[crate::format::header::HEADER_BYTES..].fill(0xff);
    let crc = crc32c::crc32c(&junk[21..]);
    junk[17..21].copy_from_slice(&crc.to_be_bytes());
    let bytes = Bytes::from([junk.clone(), plain(1, 90).to_vec()].concat());
    let batches = walk::batches(run(Offset(10)), &bytes, Offset(10), usize::MAX).unwrap().batches;
    let at = |from, time| walk::record_at(&batches, Offset(from), Timestamp(time), 1 << 20).unwrap();
    assert_eq!(at(10, 50), Some((Offset(10), Timestamp(102))));
    assert_eq!(at(12, 50), Some((Offset(12), Timestamp(102))), "not before the log start");
    assert_eq!(at(13, 50), Some((Offset(13), Timestamp(90))), "the batch lies before the log start");
    assert_eq!(at(10, 103), None);
    let found = walk::record_of_max(&batches, Offset(10), 1 << 20).unwrap();
    assert_eq!(found, Some((Offset(10), Timestamp(102))));
    // Damage in the store is a different case.
    junk[70] ^= 1;
    let bytes = Bytes::from(junk);
    let batches = walk::batches(run(Offset(10)), &bytes, Offset(10), usize::MAX).unwrap().batches;
    assert!(walk::record_at(&batches, Offset(10), Timestamp(50), 1 << 20).is_err());
}

#[test]
fn rubbish_inside_an_extent_is_an_error() {
    let mut bytes = [plain(1, 0), plain(1, 0)].concat();
    let second = bytes.len() / 2;
    bytes[second + 16] = 9;
    assert!(walk::batches(run(Offset(0)), &Bytes::from(bytes), Offset(0), usize::MAX).is_err());
}

proptest! {
    /// For any part of an extent and any request, the walk returns whole batches in order. It begins with the batch
    /// that holds the offset, and says where to continue.
    #[test]
    fn walks_give_what_there_is(
        counts in prop::collection::vec(1u32..5, 1..8),
        cut in any::<prop::sample::Index>(),
        from in 0i64..40,
        bytes_max in 0usize..1000,
    ) {
        let batches: Vec<Bytes> = counts.iter().map(|&count| plain(count, 0)).collect();
        let whole = Bytes::from(batches.concat());
        let bytes = whole.slice(..cut.index(whole.len() + 1));
        let base = Offset(10);
        let walked = walk::batches(run(base), &bytes, Offset(from), bytes_max).unwrap();

        let (mut offset, mut position, mut taken) = (base, 0, 0);
        let mut expected = Vec::new();
        for (batch, count) in batches.iter().zip(&counts) {
            let next = offset.plus(*count);
            let wanted = next.0 > from;
            let full = wanted && !expected.is_empty() && taken + batch.len() > bytes_max;
            if position + batch.len() > bytes.len() || full {
                break;
            }
            if wanted {
                expected.push((offset, batch.clone()));
                taken += batch.len();
            }
            (offset, position) = (next, position + batch.len());
        }
        let got: Vec<_> = walked.batches.iter().map(|batch| (batch.base_offset, batch.bytes.clone())).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!((walked.next, walked.position), (offset, position));
        if walked.need > 0 {
            prop_assert!(walked.need > bytes.len() && walked.need <= whole.len());
            let more = walk::batches(run(base), &whole.slice(..walked.need), Offset(from), bytes_max).unwrap();
            // The header may show that the batch exceeds the budget.
            prop_assert!(more.position > walked.position || more.need != walked.need);
        }
        // Continuing from there misses nothing and repeats nothing.
        let rest = walk::batches(run(walked.next), &whole.slice(walked.position..), Offset(0), usize::MAX).unwrap();
        prop_assert_eq!(rest.next, base.plus(counts.iter().sum()));
    }
}
