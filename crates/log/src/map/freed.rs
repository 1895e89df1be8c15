//! Extents that leave the map, with everything that counts them.

use std::collections::BTreeMap;

use floe_meta::{DecodeError, Tx};

use crate::map::extent::{Extent, ExtentKey};
use crate::map::identity;
use crate::map::ids::{ObjectId, WriterId};
use crate::map::object;

/// Part of a command: removes these extents. An object that loses its last extent becomes trash, and a writer is freed
/// with the last extent that names it. Frames are not counted in the map: whoever has the journal counts the extents in
/// them. The head of the partition is the caller's.
///
/// # Errors
/// A record cannot be read, or a count is smaller than it should be.
pub(crate) fn free(tx: &mut Tx<'_>, extents: &[(ExtentKey, Extent)]) -> Result<(), DecodeError> {
    let mut objects: BTreeMap<ObjectId, u32> = BTreeMap::new();
    let mut writers: BTreeMap<WriterId, u64> = BTreeMap::new();
    for (key, extent) in extents {
        tx.delete::<Extent>(key);
        if let Some(object) = extent.object() {
            *objects.entry(object).or_default() += 1;
        }
        if let Some(writer) = extent.writer() {
            *writers.entry(writer).or_default() += 1;
        }
    }
    for (object, extents) in objects {
        object::release(tx, object, extents)?;
    }
    for (writer, extents) in writers {
        identity::release(tx, writer, extents)?;
    }
    Ok(())
}
