//! Objects, their leases, and the trash: what the map knows about the store.
//!
//! ```text
//!            lease                commit                  last extent gone            deleted from the store
//! (id free) ───────▶ leased ids ───────────▶ Object ──────────────────────▶ Trash ──────────────────────────▶ (gone)
//!                         │ lease ends without a commit                       ▲
//!                         └────────────────────────────────────────────────────┘
//! ```
//! At any time, exactly one record of the map names each object that may exist in the store. Nothing ever has to be
//! found by listing the store.
//!
//! # Kinds
//! An object is a WAL object or a segment. Its kind is the highest bit of its id, so the key follows from the id alone,
//! also of an object that nobody committed. Bytes in a frame of the journal are of no object: they have no id, no lease
//! and no record, and their extents name the commit.
//! ```text
//! id    bit 63: 1 for a segment   bits 40 to 62: writer number   bits 0 to 39: count
//! key   wal/1/<id, 16 hex>   segment/1/<id, 16 hex>
//! ```
//! # Trash
//! Trash knows the commit at which it fell, because snapshots before that commit still refer to it. The cleaner deletes
//! it when its grace is over and no session uses such a snapshot (`session.rs`). What no snapshot ever referred to has
//! LSN 0, as all trash of version 1. Such a record is written as version 1.

use std::collections::BTreeMap;

use floe_env::Timestamp;
use floe_meta::{CounterKey, DecodeError, Lookup, Lsn, MapRecord, Tx, postcard_record};
use floe_meta::{put_postcard, take_postcard};
use serde::{Deserialize, Serialize};

use crate::map::format_level::{self, WITH_LSNS};
use crate::map::ids::ObjectId;
use crate::map::session::Session;
use crate::map::writer_number::{COUNT_MAX, NUMBER_BITS, WRITER_NUMBER_MAX, WriterNumber};

/// The kind of an object. The numbers are persisted and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ObjectKind {
    /// Batches of many partitions as they came.
    Wal = 0,
    /// Batches sorted by partition and offset, written by merging.
    Segment = 1,
}

/// An object with live extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Bytes in the store.
    pub size: u64,
    /// How many live extents point into it; at least 1.
    pub extents: u32,
    /// How far its bytes have been merged.
    pub level: Level,
}

/// How far the bytes of an object have been merged. The numbers are persisted and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Not at all: a WAL object.
    #[default]
    Raw = 0,
    /// Small objects were gathered in it, in the order in which they came.
    Gathered = 1,
    /// It has few partitions and much of each. It stays as it is.
    Sorted = 2,
}

/// A range of object ids that one process may use. While the lease exists, the store may hold objects of the range
/// that no other record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLease {
    /// The id after the last of the range. The first id is the key.
    pub end: ObjectId,
    /// The process that took the lease: random bits that it drew at its start.
    pub owner: u128,
    /// Grows with every renewal. Others end the lease when its process has no session, and they have not seen this grow
    /// for its time to live, each on its own monotonic clock. Nobody compares it with a clock.
    pub expires: Timestamp,
}

/// An object that no extent needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trash {
    /// When the object became useless. It is deleted a grace period later at the earliest.
    pub since: Timestamp,
    /// Bytes in the store; 0 if unknown.
    pub size: u64,
    /// The commit that removed its last extent. Snapshots before it refer to the object. 0 if none does.
    pub lsn: Lsn,
}

postcard_record!(ObjectLease, 16, 1, ObjectId);

impl Object {
    /// An object that nobody has merged.
    pub fn raw(size: u64, extents: u32) -> Object {
        Object { size, extents, level: Level::Raw }
    }
}

/// Version 1 has no level: its bytes have not been merged. Such an object is written as version 1.
impl MapRecord for Object {
    const KIND: u8 = 15;
    const VERSION: u8 = 2;
    type Key = ObjectId;

    fn version(&self) -> u8 {
        if self.level == Level::Raw { 1 } else { 2 }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self.version() {
            1 => put_postcard(&(self.size, self.extents), out),
            _ => put_postcard(&(self.size, self.extents, self.level as u8), out),
        }
    }

    fn decode(version: u8, body: &[u8]) -> Result<Object, DecodeError> {
        let (size, extents, level) = match version {
            1 => take_postcard(body).map(|(size, extents)| (size, extents, 0))?,
            _ => take_postcard::<(u64, u32, u8)>(body)?,
        };
        let level = match level {
            0 => Level::Raw,
            1 => Level::Gathered,
            2 => Level::Sorted,
            other => return Err(DecodeError::corrupt(format!("{other} is no level of an object"))),
        };
        Ok(Object { size, extents, level })
    }
}

impl MapRecord for Trash {
    const KIND: u8 = 17;
    const VERSION: u8 = 2;
    type Key = ObjectId;

    fn version(&self) -> u8 {
        if self.lsn == Lsn(0) { 1 } else { 2 }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self.version() {
            1 => put_postcard(&(self.since, self.size), out),
            _ => put_postcard(&(self.since, self.size, self.lsn.0), out),
        }
    }

    fn decode(version: u8, body: &[u8]) -> Result<Trash, DecodeError> {
        let (since, size, lsn) = match version {
            1 => take_postcard(body).map(|(since, size)| (since, size, 0))?,
            _ => take_postcard(body)?,
        };
        Ok(Trash { since, size, lsn: Lsn(lsn) })
    }
}

/// The counter of object ids, of all kinds.
pub(crate) const IDS: CounterKey = CounterKey::named("object");

impl ObjectKind {
    /// All kinds.
    pub const ALL: [ObjectKind; 2] = [ObjectKind::Wal, ObjectKind::Segment];

    /// The folder of its objects. The number is the version of the key scheme.
    pub const fn folder(self) -> &'static str {
        match self {
            ObjectKind::Wal => "wal/1",
            ObjectKind::Segment => "segment/1",
        }
    }

    const fn bit(self) -> u64 {
        (self as u64) << NUMBER_BITS
    }

    /// Its first id.
    pub const fn first(self) -> ObjectId {
        ObjectId(self.bit())
    }

    /// Its last id.
    pub const fn last(self) -> ObjectId {
        ObjectId(self.bit() | ((1 << NUMBER_BITS) - 1))
    }
}

impl ObjectId {
    /// The object of a kind that is `count` for this writer.
    ///
    /// # Panics
    /// As [`WriterNumber::number`].
    pub fn new(kind: ObjectKind, writer: WriterNumber, count: u64) -> ObjectId {
        ObjectId(kind.bit() | writer.number(count))
    }

    /// As [`ObjectId::new`], for numbers that a map holds.
    pub(crate) fn checked(kind: ObjectKind, writer: u64, count: u64) -> Result<ObjectId, DecodeError> {
        if writer > WRITER_NUMBER_MAX || count > COUNT_MAX {
            return Err(DecodeError::corrupt(format!("{count} of writer {writer} is no object id")));
        }
        Ok(ObjectId::new(kind, WriterNumber(writer), count))
    }

    /// Its kind.
    pub fn kind(self) -> ObjectKind {
        if self.0 < ObjectKind::Segment.bit() { ObjectKind::Wal } else { ObjectKind::Segment }
    }

    /// The writer that put it.
    pub fn writer(self) -> WriterNumber {
        WriterNumber::of(self.0 & !ObjectKind::Segment.bit())
    }

    /// The part of the id that counts.
    pub fn count(self) -> u64 {
        WriterNumber::count(self.0)
    }
}

/// The key of an object in the store. Within a kind, keys sort like ids.
pub fn object_key(object: ObjectId) -> String {
    format!("{}/{:016x}", object.kind().folder(), object.0)
}

/// The object of a key; `None` if it is the key of something else.
pub fn object_of_key(text: &str) -> Option<ObjectId> {
    let (_, digits) = text.rsplit_once('/')?;
    let id = ObjectId(u64::from_str_radix(digits, 16).ok()?);
    (object_key(id) == text).then_some(id)
}

/// The lease that covers an object id, with the first id of its range.
///
/// # Errors
/// A record cannot be read.
pub fn lease_of(map: &impl Lookup, object: ObjectId) -> Result<Option<(ObjectId, ObjectLease)>, DecodeError> {
    let Some(found) = map.range::<ObjectLease>(..=object).next_back() else {
        return Ok(None);
    };
    let (first, lease) = found?;
    Ok(Some((first, lease)).filter(|(_, lease)| object < lease.end))
}

/// Whether the leases of a writer need no renewal, because its session lives and all brokers know sessions.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn hangs_on_session(map: &impl Lookup, writer: WriterNumber) -> Result<bool, DecodeError> {
    Ok(format_level::get(map)? >= WITH_LSNS && map.get::<Session>(&writer)?.is_some())
}

/// Whether a record names the object. One that cannot be read names it too.
pub fn is_named(map: &impl Lookup, id: ObjectId) -> bool {
    !matches!((map.get::<Object>(&id), map.get::<Trash>(&id)), (Ok(None), Ok(None)))
}

/// Why an object may not be committed, which `owner` has put into the store; `None` if it may.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn admit(map: &impl Lookup, id: ObjectId, owner: u128) -> Result<Option<String>, DecodeError> {
    let held = lease_of(map, id)?.is_some_and(|(_, lease)| lease.owner == owner);
    if !held {
        return Ok(Some(format!("the lease on object {id} ended before its commit")));
    }
    if map.get::<Object>(&id)?.is_some() || map.get::<Trash>(&id)?.is_some() {
        return Ok(Some(format!("object {id} was committed before")));
    }
    Ok(None)
}

/// Command: removes `extents` live extents of an object. An object without extents becomes trash, which knows this
/// commit.
///
/// # Errors
/// The record cannot be read, or the count exceeds what the map says.
pub fn release(tx: &mut Tx<'_>, id: ObjectId, extents: u32) -> Result<(), DecodeError> {
    let object = tx.get::<Object>(&id)?;
    let object =
        object.ok_or_else(|| DecodeError::corrupt(format!("object {id} has extents but no record")))?;
    let left = object.extents.checked_sub(extents);
    let left =
        left.ok_or_else(|| DecodeError::corrupt(format!("object {id} has fewer extents than were freed")))?;
    if left > 0 {
        tx.put(&id, &Object { extents: left, ..object });
    } else {
        tx.delete::<Object>(&id);
        let lsn = if format_level::get(tx)? >= WITH_LSNS { tx.lsn() } else { Lsn(0) };
        tx.put(&id, &Trash { since: tx.now(), size: object.size, lsn });
    }
    Ok(())
}

/// Part of a command: an object becomes trash that no extent ever named.
pub(crate) fn discard(tx: &mut Tx<'_>, id: ObjectId, size: u64) {
    tx.put(&id, &Trash { since: tx.now(), size, lsn: Lsn(0) });
}

/// Counts live objects, trash, and leased ids, for metrics and checkers.
///
/// # Errors
/// A record cannot be read.
pub fn census(map: &impl Lookup) -> Result<BTreeMap<&'static str, u64>, DecodeError> {
    let mut counts = BTreeMap::from([("live", 0), ("trash", 0), ("leased", 0)]);
    let mut count = |what: &'static str, more: u64| *counts.entry(what).or_default() += more;
    for pair in map.range::<Object>(..) {
        pair?;
        count("live", 1);
    }
    for pair in map.range::<Trash>(..) {
        pair?;
        count("trash", 1);
    }
    for pair in map.range::<ObjectLease>(..) {
        let (first, lease) = pair?;
        count("leased", lease.end.0 - first.0);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn merged_objects_are_as_they_were() {
        for (level, last) in [(Level::Gathered, 1), (Level::Sorted, 2)] {
            let object = Object { size: 300, extents: 17, level };
            let mut body = Vec::new();
            object.encode(&mut body);
            assert_eq!((Object::KIND, object.version()), (15, 2));
            assert_eq!(body, [0xac, 0x02, 17, last], "persisted: a change needs a new version");
            assert_eq!(Object::decode(2, &body), Ok(object));
        }
        assert_eq!(Object::raw(300, 17).version(), 1);
        assert_eq!(Object::decode(1, &[0xac, 0x02, 17]), Ok(Object::raw(300, 17)));
        assert!(Object::decode(2, &[0xac, 0x02, 17, 3]).is_err(), "an unknown level");
    }
}
