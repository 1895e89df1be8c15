//! Reads every byte of the objects that the map names, for `floe check`: nothing is taken for sound that was not
//! compared.
//!
//! ```text
//! mod.rs       objects      the objects of a map, each with its extents
//!              object       checks one of them
//! faults.rs    Fault        what is not as it was written, and the records that it costs
//! reading.rs   Reading      the bytes of an object, a piece at a time
//! segment.rs   segment      head, footer, every batch with its stamp and checksum, seek indexes, runs
//! wal.rs       wal          head, footer, every batch with its checksum, the sum of their first bytes
//! ```
//! An object is read from its start to its end, [`CHECK_READ_BYTES`](crate::limits::CHECK_READ_BYTES) at a time or one
//! batch if that is larger. What is damaged does not keep the rest from being compared: in a segment, the next batch
//! after a damaged head is found by the seek index, and in a WAL object by the footer. A fault names the offsets that
//! may be lost, and never fewer.

mod faults;
mod reading;
mod segment;
mod wal;

use std::collections::BTreeMap;

use floe_meta::{DecodeError, Snapshot};
use floe_store::StoreError;

use crate::check::faults::Faults;
pub use crate::check::faults::{Fault, Records};
use crate::check::reading::Reading;
pub use crate::check::reading::Source;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::ObjectId;
use crate::map::object::{Object, ObjectKind, object_key};

/// An object that the map names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: ObjectId,
    /// Its bytes, as the map says.
    pub size: u64,
    /// The keys of the extents that need it.
    pub extents: Vec<ExtentKey>,
}

/// The objects of a map with their extents. Takes 24 bytes an extent.
///
/// # Errors
/// A record cannot be read.
pub fn objects(map: &Snapshot) -> Result<Vec<Named>, DecodeError> {
    let mut objects = BTreeMap::new();
    for pair in map.range::<Object>(..) {
        let (id, Object { size, .. }) = pair?;
        objects.insert(id, Named { id, size, extents: Vec::new() });
    }
    for pair in map.range::<Extent>(..) {
        let (key, extent) = pair?;
        let named = extent.object().and_then(|id| objects.get_mut(&id));
        if let Some(named) = named {
            named.extents.push(key);
        }
    }
    Ok(objects.into_values().collect())
}

/// Reads every byte of an object, and compares it with its checksums and with the map. `read` is told how many bytes it
/// reads, as it goes on. Returns what is wrong; if that is nothing, all of it is as it was written.
///
/// # Errors
/// A record of the map cannot be read, or the store does not answer: then nothing can be said of the object.
pub async fn object(
    source: &dyn Source,
    map: &Snapshot,
    named: &Named,
    read: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Fault>, CheckError> {
    let mut extents = Vec::with_capacity(named.extents.len());
    for key in &named.extents {
        if let Some(Extent::Data(data)) = map.get::<Extent>(key)? {
            extents.push((*key, data));
        }
    }
    extents.sort_unstable_by_key(|(_, data)| data.position);
    let mut reading = Reading::new(source, object_key(named.id), named.size, read);
    let mut faults = Faults { object: named.id, found: Vec::new() };
    let checked = match named.id.kind() {
        ObjectKind::Segment => segment::check(&mut reading, named.id, &extents, &mut faults).await,
        ObjectKind::Wal => wal::check(&mut reading, named.id, &extents, &mut faults).await,
    };
    match checked {
        Ok(()) => Ok(faults.found),
        // Nothing of it can be read, or the rest of it cannot.
        Err(error @ (StoreError::NotFound(_) | StoreError::Corrupt(_))) => {
            faults.found.clear();
            extents.iter().for_each(|(key, data)| faults.extent(*key, data, error.to_string()));
            if extents.is_empty() {
                faults.object(error.to_string());
            }
            Ok(faults.found)
        }
        Err(error) => Err(error.into()),
    }
}

/// Why nothing can be said of an object.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A record of the map cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
