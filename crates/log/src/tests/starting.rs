//! What a start compares: the pure parts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::*;
use crate::limits::UNEXPLAINED_OBJECTS_MAX;
use crate::map::extent::ExtentKey;
use crate::map::object::{Object, ObjectKind, Trash, object_key, object_of_key};
use crate::map::writer_number::{self, WriterNumber};
use crate::start::compare::{Differences, compare};
use crate::write::leases::{give_up_ids, lease_ids};
use std::time::Duration;

const WRITER: WriterNumber = WriterNumber(3);

fn id(count: u64) -> ObjectId {
    ObjectId(WRITER.number(count))
}

fn all() -> RangeInclusive<ObjectId> {
    ObjectId(0)..=ObjectId(u64::MAX)
}

/// A map that gave ten ids: 1 and 2 are objects, 3 is trash, the lease lasts.
fn used(tx: &mut Tx<'_>) {
    writer_number::note(tx, WRITER).unwrap();
    assert_eq!(lease_ids(tx, ObjectKind::Wal, WRITER, OWNER, 10, Duration::ZERO).unwrap(), id(1));
    tx.put(&id(1), &Object::raw(100, 1));
    tx.put(&id(2), &Object::raw(200, 1));
    tx.put(&id(3), &Trash { since: Timestamp(0), size: 0, lsn: Lsn(0) });
}

fn stored(counts: impl IntoIterator<Item = u64>) -> BTreeMap<ObjectId, u64> {
    counts.into_iter().map(|count| (id(count), 100 * count)).collect()
}

#[test]
fn every_difference_has_its_kind() {
    in_tx(|tx| {
        used(tx);
        let check = |objects: &BTreeMap<ObjectId, u64>| compare(tx, objects, all()).unwrap();
        assert_eq!(check(&stored(1..=3)), Differences::default());
        let missing = check(&stored([1, 4]));
        assert_eq!((missing.missing.clone(), missing.in_flight.clone()), (vec![id(2)], vec![id(4)]));
        assert_eq!(missing.older(), None);
        assert_eq!(missing.damage().collect::<Vec<_>>(), [format!("{} is missing", object_key(id(2)))]);
        let cut = check(&BTreeMap::from([(id(1), 99), (id(2), 200)]));
        assert_eq!(cut.cut, [(id(1), 100, 99)]);
        assert_eq!(compare(tx, &stored([2]), id(2)..=id(99)).unwrap(), Differences::default(), "only these");
    });
}

/// An id is given before anything is uploaded under it. One object under an id that was not given is proof.
#[test]
fn an_object_of_a_lost_lease_shows_that_the_map_is_old() {
    in_tx(|tx| {
        used(tx);
        let check = |objects: &BTreeMap<ObjectId, u64>| compare(tx, objects, all()).unwrap();
        assert_eq!(check(&stored([1, 2, 10])).older(), None, "the last id of the lease");
        let older = check(&stored([1, 2, 11]));
        assert_eq!(older.unknown, [id(11)]);
        assert!(older.older().unwrap().contains("under ids that this metadata never gave"));
        let newer = ObjectId(WriterNumber(4).number(5));
        assert_eq!(check(&BTreeMap::from([(id(1), 100), (id(2), 200), (newer, 1)])).unknown, [newer]);
    });
}

#[test]
fn more_objects_than_a_process_has_in_flight_show_that_the_map_is_old() {
    in_tx(|tx| {
        used(tx);
        lease_ids(tx, ObjectKind::Wal, WRITER, OWNER, 1_000, Duration::ZERO).unwrap();
        let most = UNEXPLAINED_OBJECTS_MAX as u64;
        let check = |last: u64| compare(tx, &stored(1..=last), all()).unwrap();
        assert_eq!(check(3 + most).older(), None);
        assert!(check(4 + most).older().unwrap().contains("in flight"));
        let ids: Vec<ObjectId> = (4..=4 + most).map(id).collect();
        give_up_ids(tx, OWNER + 1, &ids).unwrap();
        assert_eq!(compare(tx, &stored(1..=4 + most), all()).unwrap().in_flight.len(), ids.len());
        give_up_ids(tx, OWNER, &ids).unwrap();
        assert_eq!(compare(tx, &stored(1..=4 + most), all()).unwrap(), Differences::default());
    });
}

#[test]
fn a_key_names_its_object() {
    assert_eq!(object_key(id(12)), "wal/1/000003000000000c");
    assert_eq!(object_of_key(&object_key(id(12))), Some(id(12)));
    for other in ["wal/1/c", "wal/1/000003000000000C", "wal/2/000003000000000c", "lake/1/000003000000000c"] {
        assert_eq!(object_of_key(other), None, "{other}");
    }
}

#[test]
fn an_extent_continues_or_there_is_a_gap() {
    let partition = PartitionId::new(crate::TopicId(1), 0);
    let at = |base: i64, offsets: u64| {
        let extent = Extent::Data(counted(id(1), 0, 1, offsets, 0));
        (ExtentKey::new(partition, Offset(base)), extent)
    };
    for (next, (key, extent), first, expected) in [
        (5, at(5, 1), true, true),
        (5, at(5, 1), false, true),
        (5, at(3, 3), true, true),
        (5, at(3, 3), false, false),
        (5, at(3, 2), true, false),
        (5, at(6, 1), true, false),
        (5, at(6, 1), false, false),
    ] {
        assert_eq!(walk::continues(Offset(next), key, extent, first), expected, "{next} {key:?} {first}");
    }
}
