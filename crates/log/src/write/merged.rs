//! The commit of a merge: extents of a new object take the place of others that cover the same offsets.

use floe_meta::{DecodeError, Tx};

use crate::map::extent::{Extent, ExtentKey};
use crate::map::format_level::{self, FormatLevel, WITH_LSNS};
use crate::map::freed;
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::{self, Object};
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
    /// What changes, a partition each.
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
    if let Some(reason) = object::admit(tx, merged.object, merged.owner)? {
        return Err(MergeError::Object(reason));
    }
    let mut extents = 0;
    for Swap { partition, old, new } in &merged.swaps {
        assert_eq!(span(old), span(new), "a merge leaves no offset out");
        let keyed = |(base, extent): &(Offset, Extent)| (ExtentKey::new(*partition, *base), *extent);
        let gone: Vec<_> = old.iter().map(keyed).collect();
        for (key, extent) in &gone {
            if tx.get::<Extent>(key)? != Some(*extent) {
                return Err(MergeError::Changed(*partition));
            }
        }
        let head = partition::head(tx, *partition)?.ok_or(MergeError::Changed(*partition))?;
        freed::free(tx, &gone)?;
        for (key, extent) in new.iter().map(keyed) {
            if let Some(object) = extent.object() {
                assert_eq!(object, merged.object, "a merge writes one object");
                extents += 1;
            }
            tx.put(&key, &extent);
        }
        let bytes = head.bytes.saturating_sub(bytes(old)) + bytes(new);
        tx.put(partition, &Head { bytes, ..head });
    }
    assert!(extents > 0, "an object has extents");
    tx.put(&merged.object, &Object { size: merged.size, extents });
    Ok(())
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
