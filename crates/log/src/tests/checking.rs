//! `floe check` of objects: every changed byte is found, where it is, and nothing else is called damaged.

use std::ops::Range;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::check::{self, Fault, Named, Records, Source};
use crate::format::batch::Batch;
use crate::format::segment::{Origin, PlantedBug, SegmentBuilder};
use crate::format::wal::{self, WalEntry};
use crate::map::extent::{Data, Extent, ExtentKey, Marker, Outcome, Place, Spacing, WrittenBy};
use crate::map::ids::TopicId;
use crate::map::object::{Level, Object};
use floe_store::StoreError;

const SEGMENT: ObjectId = ObjectId(0x8000_0300_0001_1171);
const WAL: ObjectId = ObjectId(0x0300_0001_1171);

/// An object in memory; none if it is missing.
struct Stored(Option<Bytes>);

impl Source for Stored {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        let read = match &self.0 {
            None => Err(StoreError::NotFound(key.to_owned())),
            Some(bytes) if (bytes.len() as u64) < range.end => {
                Err(StoreError::Corrupt("it is short".to_owned()))
            }
            Some(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
        };
        std::future::ready(read).boxed()
    }
}

/// An object with the map that names it, and where each of its batches is.
struct Sample {
    map: Snapshot,
    named: Named,
    bytes: Bytes,
    batches: Vec<(Range<usize>, Records)>,
}

impl Sample {
    fn new(
        id: ObjectId,
        bytes: Bytes,
        extents: &[(ExtentKey, Data)],
        batches: Vec<(Range<usize>, Records)>,
    ) -> Sample {
        let mut map = Snapshot::default();
        let envelope = Envelope::broker("test");
        let mut tx = Tx::new(&map, &envelope);
        let object = Object { size: bytes.len() as u64, extents: extents.len() as u32, level: Level::Raw };
        tx.put(&id, &object);
        extents.iter().for_each(|(key, data)| tx.put(key, &Extent::Data(*data)));
        let changes = tx.into_changes();
        map.apply(map.lsn().next(), &changes);
        let named = check::objects(&map).unwrap().remove(0);
        Sample { map, named, bytes, batches }
    }

    /// Two partitions, batches of several sizes, two writers, a marker, and offsets without records.
    fn segment(large: usize, bug: Option<PlantedBug>) -> Sample {
        let mut builder = SegmentBuilder::new(SEGMENT);
        builder.bug = bug;
        let (mut extents, mut batches) = (Vec::new(), Vec::new());
        for index in [3, 5] {
            let partition = PartitionId::new(TopicId(7), index);
            let (first, mut next) = (Offset(100), Offset(100));
            builder.begin(partition, first);
            let mut position = 0;
            for number in 0..8 {
                if number == 4 {
                    next = next.plus(5);
                }
                let batch = match number {
                    6 => {
                        let (time, lsn) = (Timestamp(1 << 41), Lsn(9));
                        let outcome = Outcome::Commit;
                        let marker = Marker { producer_id: 9, producer_epoch: 1, outcome, time, lsn };
                        Batch::of_marker(next, &marker)
                    }
                    _ => Batch::new(next, records(number + 1, large)).unwrap(),
                };
                let writer = Writer::new("User:a", if number < 3 { "one" } else { "two" });
                let writer = (number != 6).then_some(&writer);
                builder.push(&batch, Origin { writer, lsn: Lsn(if number < 3 { 3 } else { 4 }) });
                let bytes = position..position + batch.bytes.len();
                (position, next) = (bytes.end, batch.next_offset());
                let records = Records { partition, from: batch.base_offset, to: next };
                batches.push((bytes, records));
            }
            let section = builder.end(next, 1 << 41).unwrap();
            let begin = section.data.position as usize;
            let of_section = batches.iter_mut().rev().take(8);
            of_section.for_each(|(bytes, _)| *bytes = bytes.start + begin..bytes.end + begin);
            extents.push((section.key, section.data));
        }
        let mut pieces = builder.take();
        pieces.extend(builder.finish().0);
        Sample::new(SEGMENT, pieces.concat().into(), &extents, batches)
    }

    /// Two partitions with three batches each, of which the last of the first partition is needed by nobody.
    fn wal() -> Sample {
        let partitions = [3, 5].map(|index| PartitionId::new(TopicId(7), index));
        let entries: Vec<WalEntry> = (0..6)
            .map(|number| {
                let (bytes, writer) = (records(number + 1, 10), Writer::new("User:a", "one"));
                let header = crate::format::header::validate(&bytes).unwrap();
                WalEntry {
                    partition: partitions[number / 3],
                    writer,
                    header,
                    bytes,
                    follows: false,
                    alone: false,
                }
            })
            .collect();
        let encoded = wal::encode(WAL, &entries);
        let (mut extents, mut batches) = (Vec::new(), Vec::new());
        for (index, partition) in partitions.into_iter().enumerate() {
            let (first, mut next) = (Offset(50), Offset(50));
            let needed = if index == 0 { 0..2 } else { 3..6 };
            let position = encoded.positions[needed.start];
            let mut bytes = 0;
            for number in needed {
                let begin = encoded.positions[number] as usize;
                let after = next.plus(entries[number].header.offsets());
                let records = Records { partition, from: next, to: after };
                batches.push((begin..begin + entries[number].bytes.len(), records));
                (next, bytes) = (after, bytes + entries[number].bytes.len() as u64);
            }
            let data = Data {
                place: Place::Object(WAL),
                position,
                bytes,
                offsets: next.0.abs_diff(first.0),
                spacing: Spacing::Counted,
                max_timestamp: 5,
                written_by: WrittenBy::One(WriterId(1)),
                lsn: Lsn(3),
            };
            extents.push((ExtentKey::new(partition, first), data));
        }
        Sample::new(WAL, encoded.payload.concat().into(), &extents, batches)
    }

    fn check(&self, bytes: Option<Bytes>) -> Vec<Fault> {
        let stored = Stored(bytes);
        let checked = check::object(&stored, &self.map, &self.named, &|_| {}).now_or_never();
        checked.expect("memory answers at once").expect("it answers")
    }

    /// What is found when a bit of one byte is flipped.
    fn flipped(&self, at: usize) -> Vec<Fault> {
        let mut bytes = self.bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        self.check(Some(bytes.into()))
    }

    /// The records of the batch that has a byte.
    fn records_at(&self, at: usize) -> Option<Records> {
        self.batches.iter().find(|(bytes, _)| bytes.contains(&at)).map(|(_, records)| *records)
    }

    /// All records of the partition of some.
    fn all_of(&self, of: PartitionId) -> Records {
        let mut all = self.batches.iter().map(|(_, records)| *records).filter(|one| one.partition == of);
        let first = all.next().unwrap();
        let last = all.next_back().unwrap_or(first);
        Records { to: last.to, ..first }
    }
}

fn records(count: usize, bytes: usize) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    for index in 0..count {
        builder.push(1 << 40, None, Some(&vec![index as u8; bytes]), &[]);
    }
    builder.build()
}

fn covers(faults: &[Fault], lost: Records) -> bool {
    faults.iter().filter_map(|fault| fault.records).any(|records| {
        records.partition == lost.partition && records.from <= lost.from && lost.to <= records.to
    })
}

#[test]
fn every_changed_byte_of_a_segment_is_found() {
    let sample = Sample::segment(10, None);
    assert_eq!(sample.check(Some(sample.bytes.clone())), []);
    for at in 0..sample.bytes.len() {
        let faults = sample.flipped(at);
        assert!(!faults.is_empty(), "byte {at} of {}", sample.bytes.len());
        assert!(faults.iter().all(|fault| fault.is_needed), "byte {at}: {faults:?}");
        let Some(lost) = sample.records_at(at) else { continue };
        assert!(covers(&faults, lost), "byte {at}, {lost:?}: {faults:?}");
        let other =
            faults.iter().filter_map(|fault| fault.records).any(|one| one.partition != lost.partition);
        assert!(!other, "byte {at}: {faults:?}");
    }
}

/// What lies behind damage is compared all the same, and the seek index says where it goes on.
#[test]
fn damage_in_a_large_section_costs_no_more_than_an_interval() {
    let sample = Sample::segment(40_000, None);
    assert_eq!(sample.check(Some(sample.bytes.clone())), []);
    for (bytes, lost) in &sample.batches {
        // In the head of the batch, in its checksum, and in its records.
        for at in [bytes.start + 2, bytes.start + 9, bytes.start + 18, bytes.start + 40, bytes.end - 1] {
            let faults = sample.flipped(at);
            let found: Vec<Records> = faults.iter().filter_map(|fault| fault.records).collect();
            assert!(covers(&faults, *lost), "byte {at}, {lost:?}: {faults:?}");
            let offsets: u64 = found.iter().map(|one| one.to.0.abs_diff(one.from.0)).sum();
            let all = sample.all_of(lost.partition);
            assert!(offsets < all.to.0.abs_diff(all.from.0) / 2, "byte {at}: {faults:?}");
        }
    }
    let (first, last) = (sample.batches[1].0.start + 30, sample.batches[13].0.start + 30);
    let mut bytes = sample.bytes.to_vec();
    (bytes[first], bytes[last]) = (bytes[first] ^ 1, bytes[last] ^ 1);
    let faults = sample.check(Some(bytes.into()));
    assert!(covers(&faults, sample.batches[1].1) && covers(&faults, sample.batches[13].1), "{faults:?}");
}

#[test]
fn every_changed_byte_of_a_wal_object_is_found() {
    let sample = Sample::wal();
    assert_eq!(sample.check(Some(sample.bytes.clone())), []);
    for at in 0..sample.bytes.len() {
        let faults = sample.flipped(at);
        assert!(!faults.is_empty(), "byte {at} of {}", sample.bytes.len());
        let Some(lost) = sample.records_at(at) else { continue };
        // Nobody looks at the first bytes of a batch but for its length, and one sum covers those of all.
        let begin = sample.batches.iter().find(|(bytes, _)| bytes.contains(&at)).unwrap().0.start;
        let is_unread = matches!(at - begin, 0..8 | 12..16);
        assert!(is_unread || covers(&faults, lost), "byte {at}, {lost:?}: {faults:?}");
    }
    // The third batch is needed by nobody.
    let unneeded = sample.batches[1].0.end + 30;
    assert!(sample.flipped(unneeded).iter().all(|fault| !fault.is_needed));
}

#[test]
fn what_is_missing_or_short_costs_all_extents() {
    for sample in [Sample::segment(10, None), Sample::wal()] {
        let partitions = [3, 5].map(|index| PartitionId::new(TopicId(7), index));
        for bytes in [None, Some(sample.bytes.slice(..sample.bytes.len() - 1)), Some(Bytes::new())] {
            let faults = sample.check(bytes);
            assert!(partitions.iter().all(|one| covers(&faults, sample.all_of(*one))), "{faults:?}");
        }
    }
}

#[test]
fn the_bugs_that_a_builder_can_have_are_found() {
    for (bug, what) in [(PlantedBug::IndexOneBatchLate, "seek index"), (PlantedBug::RunsLoseWriter, "run")] {
        let sample = Sample::segment(40_000, Some(bug));
        let faults = sample.check(Some(sample.bytes.clone()));
        assert!(faults.iter().any(|fault| fault.what.contains(what)), "{bug:?}: {faults:?}");
    }
}

/// The metadata names other bytes than the object has.
#[test]
fn an_extent_that_is_not_in_its_object_is_found() {
    let mut found = 0;
    for sample in [Sample::segment(10, None), Sample::wal()] {
        let key = sample.named.extents[0];
        let Some(Extent::Data(data)) = sample.map.get::<Extent>(&key).unwrap() else {
            panic!("it has batches")
        };
        for wrong in [Data { offsets: data.offsets + 1, ..data }, Data { bytes: data.bytes - 1, ..data }] {
            let mut map = sample.map.clone();
            let envelope = Envelope::broker("test");
            let mut tx = Tx::new(&map, &envelope);
            tx.put(&key, &Extent::Data(wrong));
            let changes = tx.into_changes();
            map.apply(map.lsn().next(), &changes);
            let sample =
                Sample { map, named: sample.named.clone(), bytes: sample.bytes.clone(), batches: Vec::new() };
            let faults = sample.check(Some(sample.bytes.clone()));
            assert!(
                faults.iter().any(|fault| fault.records.is_some_and(|one| one.partition == key.partition))
            );
            found += 1;
        }
    }
    assert_eq!(found, 4);
}
