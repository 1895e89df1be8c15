//! The commit of a merge: extents of a new object take the place of others that cover the same offsets.
//!
//! A merge may come in several commits, each with some of the partitions: the first names the object, and the others
//! add extents to it. So no commit is large, and one partition that has changed meanwhile holds up no other. A process
//! that dies in between leaves the rest where it was.

use std::collections::BTreeMap;

use floe_meta::{DecodeError, Tx};

use crate::map::deleted;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::format_level::{self, FormatLevel, WITH_LSNS};
use crate::map::freed;
use crate::map::identity;
use crate::map::ids::{ObjectId, Offset, PartitionId, WriterId};
use crate::map::object::{self, Level, Object};
use crate::map::partition::{self, Head};

/// An object that a merge has put into the store, and what it replaces.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The object. All data of [`Swap::new`] is in it.
    pub object: ObjectId,
    /// The owner of the lease on the object's id.
    pub owner: u128,
    /// Bytes in the store.
    pub size: u64,
    /// How far the bytes have been merged now.
    pub level: Level,
    /// Whether an earlier commit has named the object. Then this one adds extents to it.
    pub continues: bool,
    /// What changes. A partition may be there several times.
    pub swaps: Vec<Swap>,
}

/// Extents of one partition and those that take their place.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The partition.
    pub partition: PartitionId,
    /// Adjacent extents, as the merge has read them.
    pub old: Vec<(Offset, Extent)>,
    /// Extents that cover the same offsets.
    pub new: Vec<(Offset, Extent)>,
}

/// Why a merge was not committed. Its object is trash once its lease ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Brokers of an older build use the map.
    #[error("the format level is {}, merging needs {}: upgrade all brokers", found.0, WITH_LSNS.0)]
    Level {
        /// The level in force.
        found: FormatLevel,
    },
    /// The extents are not as the merge has read them: retention, a client or another merge was first.
    #[error("the extents of {0} have changed")]
    Changed(PartitionId),
    /// The object may not be committed.
    #[error("{0}")]
    Object(String),
    /// The lease under which the merge was made is over: another broker may merge the same.
    #[error(transparent)]
    Lease(#[from] floe_meta::lease::LeaseError),
    /// A record cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

/// Command: swaps the extents. Readers of older snapshots go on with the old objects.
///
/// # Errors
/// See [`MergeError`]; on an error nothing changes.
///
/// # Panics
/// The new extents do not cover what the old ones do, or point into another object.
pub fn merge(tx: &mut Tx<'_>, merged: &Merged) -> Result<(), MergeError> {
    let found = format_level::get(tx)?;
    if found < WITH_LSNS {
        return Err(MergeError::Level { found });
    }
    let before = admit(tx, merged)?;
    let (mut extents, mut gone, mut put) = (0, Vec::new(), Vec::new());
    let mut writers: BTreeMap<WriterId, u64> = BTreeMap::new();
    for Swap { partition, old, new } in &merged.swaps {
        assert_eq!(span(old), span(new), "a merge leaves no offset out");
        let keyed = |(base, extent): &(Offset, Extent)| (ExtentKey::new(*partition, *base), *extent);
        for (key, extent) in old.iter().map(keyed) {
            if tx.get::<Extent>(&key)? != Some(extent) {
                return Err(MergeError::Changed(*partition));
            }
            gone.push((key, extent));
        }
        if !resize(tx, *partition, bytes(old), bytes(new))? {
            return Err(MergeError::Changed(*partition));
        }
        for (key, extent) in new.iter().map(keyed) {
            if let Some(object) = extent.object() {
                assert_eq!(object, merged.object, "a merge writes one object");
                extents += 1;
            }
            if let Some(writer) = extent.writer() {
                *writers.entry(writer).or_default() += 1;
            }
            put.push((key, extent));
        }
    }
    assert!(extents > 0, "an object has extents");
    // Before the old ones are freed: a writer is freed with the last extent that names it.
    for (writer, extents) in writers {
        identity::retain(tx, writer, extents)?;
    }
    freed::free(tx, &gone)?;
    put.iter().for_each(|(key, extent)| tx.put(key, extent));
    let Merged { object, size, level, .. } = *merged;
    tx.put(&object, &Object { size, extents: before + extents, level });
    Ok(())
}

/// How many extents the object has; an error if it may not be committed.
fn admit(tx: &Tx<'_>, merged: &Merged) -> Result<u32, MergeError> {
    let Merged { object: id, owner, size, level, continues, .. } = *merged;
    if !continues {
        return match object::admit(tx, id, owner)? {
            None => Ok(0),
            Some(reason) => Err(MergeError::Object(reason)),
        };
    }
    // Its first extents may have gone meanwhile.
    let named = tx.get::<Object>(&id)?.filter(|object| (object.size, object.level) == (size, level));
    let held = object::lease_of(tx, id)?.is_some_and(|(_, lease)| lease.owner == owner);
    match named.filter(|_| held) {
        Some(object) => Ok(object.extents),
        None => Err(MergeError::Object(format!("object {id} is gone before all of it was committed"))),
    }
}

/// Changes the size of a partition, also of one whose topic can come back. Returns `false` if there is none.
fn resize(tx: &mut Tx<'_>, partition: PartitionId, old: u64, new: u64) -> Result<bool, DecodeError> {
    let Some(head) = partition::head(tx, partition)? else {
        return deleted::resize(tx, partition, old, new);
    };
    tx.put(&partition, &Head { bytes: head.bytes.saturating_sub(old) + new, ..head });
    Ok(true)
}

/// The first offset of adjacent extents, and the one after the last.
fn span(extents: &[(Offset, Extent)]) -> Option<(Offset, Offset)> {
    let (first, _) = extents.first()?;
    let mut next = *first;
    for (base, extent) in extents {
        assert_eq!(*base, next, "they are adjacent");
        next = extent.next_offset(*base);
    }
    Some((*first, next))
}

fn bytes(extents: &[(Offset, Extent)]) -> u64 {
    extents.iter().map(|(_, extent)| extent.bytes()).sum()
}
