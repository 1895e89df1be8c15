//! Reads every byte of the objects that the map names, for `floe check`: nothing is taken for sound that was not
//! compared.
//!
//! ```text
//! mod.rs       objects      the objects of a map, each with its extents
//!              object       checks one of them
//! reading.rs   Reading      the bytes of an object, a piece at a time
//! segment.rs   segment      head, footer, every batch with its stamp and checksum, seek indexes, runs
//! wal.rs       wal          head, footer, every batch with its checksum, the sum of their first bytes
//! ```
//! An object is read from its start to its end, [`CHECK_READ_BYTES`](crate::limits::CHECK_READ_BYTES) at a time or one
//! batch if that is larger. What is damaged does not keep the rest from being compared: in a segment, the next batch
//! after a damaged head is found by the seek index, and in a WAL object by the footer. A fault names the offsets that may
//! be lost, and never fewer.

mod reading;
mod segment;
mod wal;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use floe_meta::{DecodeError, Snapshot};
use floe_store::{Store, StoreError};
use futures::future::BoxFuture;

use crate::check::reading::Reading;
use crate::map::extent::{Data, Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::{Object, ObjectKind, object_key};

/// Where the bytes of objects come from.
pub trait Source: Sync {
    /// A range of an object. The result is as long as the range.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>>;
}

impl Source for Arc<dyn Store> {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.get(key, Some(range))
    }
}

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

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The object.
    pub object: ObjectId,
    /// The records that it costs. None if all records can be read.
    pub records: Option<Records>,
    /// What is wrong.
    pub what: String,
    /// Whether an extent of the map needs what is damaged.
    pub is_needed: bool,
}

/// Offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
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

/// The faults of one object.
struct Faults {
    object: ObjectId,
    found: Vec<Fault>,
}

impl Faults {
    /// A fault that costs no records.
    fn object(&mut self, what: String) {
        self.found.push(Fault { object: self.object, records: None, what, is_needed: true });
    }

    /// All records of an extent.
    fn extent(&mut self, key: ExtentKey, data: &Data, what: String) {
        let to = Extent::Data(*data).next_offset(key.base);
        self.records(key.partition, key.base..to, what, true);
    }

    fn records(&mut self, partition: PartitionId, offsets: Range<Offset>, what: String, is_needed: bool) {
        let Range { start: from, end: to } = offsets;
        let records = Some(Records { partition, from, to });
        self.found.push(Fault { object: self.object, records, what, is_needed });
    }
}
