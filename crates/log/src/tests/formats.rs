//! Golden bytes of everything that the log keeps in the metadata map, and the cost of an extent.
//!
//! Journals in the field hold these bytes, so they never change: a new layout is a new version beside the old one.

use std::fmt::Write;

use floe_meta::{Change, MapRecord as _};
use proptest::prelude::*;

use super::*;
use crate::map::extent::{ExtentKey, Gap, Marker, Outcome};
use crate::map::format_level::FormatLevel;
use crate::map::ids::TopicId;
use crate::map::object::{self, Object, ObjectKind, Trash};
use crate::map::partition::Head;
use crate::map::producer::{Producer, ProducerKey, Seen};
use crate::map::writer_number::WriterNumber;
use crate::write::sequencer::sequence;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes every write");
        out
    })
}

/// The changes of a command.
fn changes(command: impl FnOnce(&mut Tx<'_>)) -> Vec<Change> {
    let snapshot = Snapshot::default();
    let mut envelope = Envelope::broker("test");
    envelope.time = Timestamp(1_767_225_600_000);
    let mut tx = Tx::new(&snapshot, &envelope);
    command(&mut tx);
    tx.into_changes()
}

fn dump(changes: &[Change]) -> String {
    changes.iter().fold(String::new(), |mut out, change| {
        let value = change.value.as_deref().map_or("deleted".to_owned(), hex);
        writeln!(out, "{} = {value}", hex(&change.key)).expect("a string takes every write");
        out
    })
}

fn partition() -> PartitionId {
    PartitionId::new(TopicId(0x0102), 3)
}

fn extent() -> Extent {
    Extent::Data(counted(ObjectId(70_000), 1_000_000, 65_536, 64, 1_767_225_600_123))
}

fn producer() -> Producer {
    let seen = |base_sequence, last_sequence, base_offset| Seen {
        base_sequence,
        last_sequence,
        base_offset: Offset(base_offset),
    };
    let batches = vec![seen(i32::MAX - 2, i32::MAX - 1, 40), seen(i32::MAX, 1, 50), seen(2, 2, 1000)];
    Producer { epoch: 5, active_hour: 490_896, seen: batches }
}

#[test]
fn golden() {
    let written = changes(|tx| {
        cluster::open(tx, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).unwrap();
        let configs = BTreeMap::from([("floe.table".to_owned(), "json".to_owned())]);
        let new = NewTopic { name: "flights".to_owned(), partitions: 1, configs };
        topic::create(tx, &new).unwrap();
        Writer::new("User:alice", "loader").intern(tx, 3).unwrap();
        let head = Head {
            next: Offset(1234),
            log_start: Offset(1000),
            max_timestamp: 1_767_225_600_123,
            bytes: 99_999,
        };
        tx.put(&partition(), &head);
        tx.put(&ExtentKey::new(partition(), Offset(1170)), &extent());
        tx.put(&ProducerKey { partition: partition(), producer_id: 4001 }, &producer());
        tx.put(&ObjectId(70_000), &Object::raw(8 << 20, 17));
        let lease =
            ObjectLease { end: ObjectId(70_144), owner: 1 << 100, expires: Timestamp(1_767_225_660_000) };
        tx.put(&ObjectId(70_016), &lease);
        tx.put(&ObjectId(60_000), &Trash { since: Timestamp(1_767_225_600_000), size: 8 << 20, lsn: Lsn(0) });
    });
    let written = dump(&written);
    // Later records have lines of their own: the count of partitions, which an old map may lack, and writers, which
    // replace those of kinds 4 and 5 (`identity.rs` reads the old ones).
    let first = include_str!("../../tests/golden/records-1.txt").split_inclusive('\n');
    let first: Vec<&str> = first.filter(|line| !line.starts_with("04") && !line.starts_with("05")).collect();
    let (first_written, later): (Vec<&str>, Vec<&str>) =
        written.split_inclusive('\n').partition(|line| first.contains(line));
    assert_eq!(first_written, first);
    assert_eq!(later.concat(), include_str!("../../tests/golden/records-2.txt"));
    assert_eq!(object::object_key(ObjectId(70_000)), "wal/1/0000000000011170");
}

/// An extent of each shape, as version 2 has them.
fn extents_of_version_2() -> Vec<Extent> {
    let (time, lsn) = (Timestamp(1_767_225_600_123), Lsn(1_000_000));
    let wal = ObjectId::new(ObjectKind::Wal, WriterNumber(3), 70_000);
    let segment = ObjectId::new(ObjectKind::Segment, WriterNumber(3), 70_001);
    let plain = Data { lsn, ..counted(wal, 1_000_000, 65_536, 64, time.0) };
    let marker =
        |outcome| Extent::Marker(Marker { producer_id: 4001, producer_epoch: 5, outcome, time, lsn });
    vec![
        Extent::Data(plain),
        Extent::Data(Data { place: Place::Frame, ..plain }),
        Extent::Data(Data { place: Place::Object(segment), ..plain }),
        Extent::Data(Data {
            place: Place::Object(segment),
            spacing: Spacing::Stamped,
            written_by: WrittenBy::Footer,
            offsets: 1 << 40,
            ..plain
        }),
        marker(Outcome::Commit),
        marker(Outcome::Abort),
        Extent::Gap(Gap { offsets: 1 << 40, lsn }),
    ]
}

/// What format level 2 writes; the bytes of level 1 are those above.
#[test]
fn golden_of_level_2() {
    let written = changes(|tx| {
        tx.put(&(), &FormatLevel(2));
        for (at, extent) in (0..).zip(extents_of_version_2()) {
            tx.put(&ExtentKey::new(partition(), Offset(1000 + at)), &extent);
        }
        let trash = Trash { since: Timestamp(1_767_225_600_000), size: 8 << 20, lsn: Lsn(1_000_000) };
        tx.put(&ObjectId::new(ObjectKind::Segment, WriterNumber(3), 70_001), &trash);
    });
    assert_eq!(dump(&written), include_str!("../../tests/golden/records-3.txt"));
    let segment = ObjectId::new(ObjectKind::Segment, WriterNumber(3), 70_001);
    assert_eq!(object::object_key(segment), "segment/1/8000030000011171");
    assert_eq!(object::object_of_key("segment/1/8000030000011171"), Some(segment));
    assert_eq!(
        (segment.kind(), segment.writer(), segment.count()),
        (ObjectKind::Segment, WriterNumber(3), 70_001)
    );
    assert_eq!(
        object::object_of_key("wal/1/8000030000011171"),
        None,
        "a segment is not where WAL objects are"
    );
}

#[test]
fn every_extent_is_read_as_it_was_written() {
    let mut extents = extents_of_version_2();
    extents.push(extent());
    in_tx(|tx| {
        for (at, extent) in (0..).zip(&extents) {
            let key = ExtentKey::new(partition(), Offset(at));
            tx.put(&key, extent);
            assert_eq!(tx.get::<Extent>(&key).unwrap().as_ref(), Some(extent));
        }
    });
    let trash = Trash { since: Timestamp(5), size: 7, lsn: Lsn(0) };
    assert_eq!((trash.version(), Trash { lsn: Lsn(1), ..trash }.version()), (1, 2));
    assert_eq!(Trash::decode(1, &[10, 7]), Ok(trash));
}

/// Damaged values give an error or another extent, never a panic, and unknown flags are refused.
#[test]
fn damaged_extents_are_refused() {
    for extent in extents_of_version_2() {
        let mut body = Vec::new();
        extent.encode(&mut body);
        for cut in 0..body.len() {
            assert!(Extent::decode(2, &body[..cut]).is_err(), "{extent:?} cut at {cut}");
        }
        for bit in 5..8 {
            let mut damaged = body.clone();
            damaged[0] ^= 1 << bit;
            assert!(Extent::decode(2, &damaged).is_err(), "{extent:?} with bit {bit}");
        }
        for at in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let _ = Extent::decode(2, &damaged);
        }
    }
    let too_large = [vec![0], vec![0x80; 9], vec![1], vec![0; 6]].concat();
    assert!(Extent::decode(2, &too_large).is_err(), "no writer has this number");
}

/// Bytes of a value with its version.
fn value_bytes(extent: Extent) -> usize {
    let mut body = Vec::new();
    extent.encode(&mut body);
    1 + body.len()
}

/// The LSN costs three bytes and the flags one; splitting the object's id saves two. Bytes of a value in the map of a
/// broker that started a few times; its key takes 21 more.
#[test]
fn an_extent_of_version_2_takes_two_bytes_more_and_in_a_frame_two_less() {
    let wal = ObjectId::new(ObjectKind::Wal, WriterNumber(3), 70_000);
    let version_1 = counted(wal, 1_000_000, 65_536, 64, 1_767_225_600_123);
    let version_2 = Data { lsn: Lsn(1_000_000), ..version_1 };
    let in_frame = Data { place: Place::Frame, ..version_2 };
    let bytes = [version_1, version_2, in_frame].map(|data| value_bytes(Extent::Data(data)));
    assert_eq!(bytes, [21, 23, 19]);
}

/// The cost of one more extent in the journal, key and value, in a log that is already large. Also the whole cost
/// of committing an object with one batch of an idempotent producer.
#[test]
fn an_extent_is_small() {
    let extent_bytes = |written: &[Change]| -> usize {
        let of_extents = written.iter().filter(|change| change.key[0] == 13);
        of_extents.map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len)).sum()
    };
    let one = changes(|tx| tx.put(&ExtentKey::new(partition(), Offset(1 << 40)), &extent()));
    assert_eq!(extent_bytes(&one), 39);

    let mut beside = 0;
    let written = changes(|tx| {
        cluster::open(tx, 1 << 64).unwrap();
        let partition = PartitionId::new(create(tx, "t", 1).id, 0);
        lease(tx, 1, 1000);
        let writer = Writer::new("User:alice", "loader");
        for (object, sequence_number) in (1..).zip(0..10) {
            let bytes = idempotent(4001, 0, sequence_number, 1);
            assert!(sequence(tx, &uploaded(object, &[(partition, &writer, &bytes)]))[0].is_ok());
        }
    });
    for change in written.iter().filter(|change| matches!(change.key[0], 12 | 14)) {
        beside += change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
    }
    assert_eq!(beside, 58, "head and producer of one partition");
}

proptest! {
    #[test]
    fn producers_are_packed_without_loss(
        epoch in 0i16..i16::MAX,
        active_hour in any::<u32>(),
        start in 0..=i32::MAX,
        batches in prop::collection::vec((1..=i32::MAX, 0i64..1 << 32), 1..6),
    ) {
        let mut seen: Vec<Seen> = Vec::new();
        let (mut next, mut offset) = (start, 0);
        for (count, gap) in batches {
            let last_sequence = crate::map::producer::sequence_plus(next, count - 1);
            offset += gap;
            seen.push(Seen { base_sequence: next, last_sequence, base_offset: Offset(offset) });
            next = crate::map::producer::sequence_plus(last_sequence, 1);
        }
        let producer = Producer { epoch, active_hour, seen };
        let key = ProducerKey { partition: partition(), producer_id: 1 };
        in_tx(|tx| {
            tx.put(&key, &producer);
            assert_eq!(tx.get::<Producer>(&key).unwrap(), Some(producer));
        });
    }

    #[test]
    fn extents_lie_in_the_order_of_their_offsets(
        mut keys in prop::collection::vec((0u64..3, 0u32..3, -2i64..300), 0..20),
    ) {
        keys.sort_unstable();
        keys.dedup();
        let keys: Vec<ExtentKey> = keys
            .into_iter()
            .map(|(topic, index, base)| ExtentKey::new(PartitionId::new(TopicId(topic), index), Offset(base)))
            .collect();
        in_tx(|tx| {
            for key in keys.iter().rev() {
                tx.put(key, &extent());
            }
            let found: Vec<ExtentKey> = tx.range::<Extent>(..).map(|pair| pair.unwrap().0).collect();
            assert_eq!(found, keys);
        });
    }
}

/// Damaged values give an error, never a panic.
#[test]
fn impossible_producers_are_refused() {
    use floe_meta::MapRecord;
    for body in [
        &[][..],
        &[0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 6, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0],
        &[0, 0, 1, 0, 1, 1, 0],
        &[0, 0, 0, 0, 1, 0, 0],
    ] {
        assert!(Producer::decode(1, body).is_err(), "{body:?}");
    }
    assert!(Producer::decode(2, &[0, 0, 0, 0, 1, 1, 0]).is_err());
    assert!(Producer::decode(1, &[0, 0, 0, 0, 1, 1, 0]).is_ok());
}
