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

use std::collections::BTreeMap;

use floe_env::Timestamp;
use floe_meta::{CounterKey, DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::ids::ObjectId;

/// An object with live extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Bytes in the store.
    pub size: u64,
    /// How many live extents point into it; at least 1.
    pub extents: u32,
}

/// A range of object ids that one process may use. While the lease exists, the store may hold objects of the range
/// that no other record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLease {
    /// The id after the last of the range. The first id is the key.
    pub end: ObjectId,
    /// The process that took the lease: random bits that it drew at its start.
    pub owner: u128,
    /// Grows with every renewal. Others end the lease when they have not seen it grow for its time to live, each on its
    /// own monotonic clock. Nobody compares it with a clock.
    pub expires: Timestamp,
}

/// An object that no extent needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    /// When the object became useless. It is deleted a grace period later, when no reader can hold an extent of it.
    pub since: Timestamp,
    /// Bytes in the store; 0 if unknown.
    pub size: u64,
}

postcard_record!(Object, 15, 1, ObjectId);
postcard_record!(ObjectLease, 16, 1, ObjectId);
postcard_record!(Trash, 17, 1, ObjectId);

/// The counter of object ids.
pub(crate) const IDS: CounterKey = CounterKey::named("object");

/// The folder of WAL objects. The number is the version of the key scheme.
pub const WAL_FOLDER: &str = "wal/1";

/// The key of a WAL object in the store. Keys sort like ids.
pub fn wal_key(object: ObjectId) -> String {
    format!("{WAL_FOLDER}/{:016x}", object.0)
}

/// The object of a key; `None` if it is no WAL object.
pub fn object_of_key(key: &str) -> Option<ObjectId> {
    let digits = key.strip_prefix(WAL_FOLDER)?.strip_prefix('/')?;
    let id = ObjectId(u64::from_str_radix(digits, 16).ok()?);
    (wal_key(id) == key).then_some(id)
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

/// Whether a record names the object. One that cannot be read names it too.
pub fn is_named(map: &impl Lookup, id: ObjectId) -> bool {
    !matches!((map.get::<Object>(&id), map.get::<Trash>(&id)), (Ok(None), Ok(None)))
}

/// Command: removes `extents` live extents of an object. An object without extents becomes trash.
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
        tx.put(&id, &Trash { since: tx.now(), size: object.size });
    }
    Ok(())
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
