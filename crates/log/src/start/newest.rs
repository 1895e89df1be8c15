//! Which objects of the store a start looks at, and what it does about differences.

use std::collections::BTreeMap;
use std::sync::Arc;

use floe_meta::{DecodeError, Snapshot};
use floe_store::Store;

use crate::error::OpenError;
use crate::limits::{DAMAGE_LINES_MAX, NEWEST_OBJECTS_COMPARED, NEWEST_OBJECTS_LISTED};
use crate::map::ids::ObjectId;
use crate::map::object::{Object, WAL_FOLDER, object_of_key, wal_key};
use crate::start::compare::{Differences, compare};
use crate::start::writers::Writers;

/// Compares the map with a local store's objects, or with the newest objects of a remote one.
///
/// # Errors
/// The map is older than the store, or one of the two cannot be read.
pub(crate) async fn check(writers: &Writers<'_>, snapshot: &Snapshot) -> Result<Differences, OpenError> {
    let unreadable = |error: DecodeError| OpenError::Metadata(error.to_string());
    let store = writers.store;
    let (from, count) = match store.remote() {
        true => (newest(snapshot).map_err(unreadable)?, NEWEST_OBJECTS_LISTED),
        false => (ObjectId(0), usize::MAX),
    };
    let after = wal_key(ObjectId(from.0.saturating_sub(1)));
    let listed = writers.retry(|| store.list(WAL_FOLDER, &after, count)).await?.unwrap_or_default();
    let full = listed.len() == count;
    let stored: BTreeMap<ObjectId, u64> =
        listed.into_iter().filter_map(|listed| Some((object_of_key(&listed.key)?, listed.bytes))).collect();
    let mut differences = compare(snapshot, &stored, from).map_err(unreadable)?;
    if full {
        // What follows the last one was not listed.
        let last = stored.keys().next_back().copied().unwrap_or(from);
        differences.missing.retain(|id| *id <= last);
    }
    if let Some(reason) = differences.older() {
        return Err(OpenError::Older { url: store.url(WAL_FOLDER), reason });
    }
    report(store, &differences);
    Ok(differences)
}

/// The id from which on the newest objects are compared.
fn newest(snapshot: &Snapshot) -> Result<ObjectId, DecodeError> {
    let some = snapshot.range::<Object>(..).rev().take(NEWEST_OBJECTS_COMPARED);
    let last = some.last().transpose()?;
    Ok(last.map_or(ObjectId(0), |(id, _)| id))
}

/// Damage is named at once, and everything else stays in service.
fn report(store: &Arc<dyn Store>, differences: &Differences) {
    let count = differences.missing.len() + differences.cut.len();
    metrics::gauge!("floe_log_damaged_objects").set(count as f64);
    for line in differences.damage().take(DAMAGE_LINES_MAX) {
        tracing::error!(store = store.url(WAL_FOLDER), "acknowledged records cannot be read: {line}");
    }
    if count > 0 {
        tracing::error!(
            objects = count,
            "acknowledged records are missing from the store. Put back what was moved away, or restore it from a copy; \
             until then reads of these records fail, and everything else is served. `floe check` names every object"
        );
    }
}
