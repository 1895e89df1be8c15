//! Which objects of the store a start looks at, and what it does about differences.

use std::collections::BTreeMap;
use std::sync::Arc;

use floe_meta::{DecodeError, Snapshot};
use floe_store::Store;

use crate::error::OpenError;
use crate::limits::{DAMAGE_LINES_MAX, NEWEST_OBJECTS_COMPARED, NEWEST_OBJECTS_LISTED};
use crate::map::extent::Extent;
use crate::map::ids::ObjectId;
use crate::map::object::{Object, ObjectKind, object_key, object_of_key};
use crate::read::damage::{Damages, FoundBy, Met, Part};
use crate::start::compare::{Differences, compare};
use crate::start::writers::Writers;

/// Compares the map with a local store's objects, or with the newest objects of each kind of a remote one.
///
/// # Errors
/// The map is older than the store, or one of the two cannot be read.
pub(crate) async fn check(
    writers: &Writers<'_>,
    snapshot: &Snapshot,
    damages: &Damages,
) -> Result<Differences, OpenError> {
    let store = writers.store;
    let mut differences = Differences::default();
    for kind in ObjectKind::ALL {
        let found = check_kind(writers, snapshot, kind).await?;
        if let Some(reason) = found.older() {
            return Err(OpenError::Older { url: store.url(kind.folder()), reason });
        }
        differences.extend(found);
    }
    report(store, &differences);
    note(damages, snapshot, &differences).map_err(|error| OpenError::Metadata(error.to_string()))?;
    Ok(differences)
}

async fn check_kind(
    writers: &Writers<'_>,
    snapshot: &Snapshot,
    kind: ObjectKind,
) -> Result<Differences, OpenError> {
    let unreadable = |error: DecodeError| OpenError::Metadata(error.to_string());
    let store = writers.store;
    let (from, count) = match store.remote() {
        true => (newest(snapshot, kind).map_err(unreadable)?, NEWEST_OBJECTS_LISTED),
        false => (kind.first(), usize::MAX),
    };
    let after = object_key(ObjectId(from.0.max(kind.first().0 + 1) - 1));
    let listed = writers.retry(|| store.list(kind.folder(), &after, count)).await?.unwrap_or_default();
    let full = listed.len() == count;
    let stored: BTreeMap<ObjectId, u64> =
        listed.into_iter().filter_map(|listed| Some((object_of_key(&listed.key)?, listed.bytes))).collect();
    let mut differences = compare(snapshot, &stored, from..=kind.last()).map_err(unreadable)?;
    if full {
        // What follows the last one was not listed.
        let last = stored.keys().next_back().copied().unwrap_or(from);
        differences.missing.retain(|id| *id <= last);
    }
    Ok(differences)
}

/// The id from which on the newest objects of a kind are compared.
fn newest(snapshot: &Snapshot, kind: ObjectKind) -> Result<ObjectId, DecodeError> {
    let some = snapshot.range::<Object>(kind.first()..=kind.last()).rev().take(NEWEST_OBJECTS_COMPARED);
    let last = some.last().transpose()?;
    Ok(last.map_or(kind.first(), |(id, _)| id))
}

/// Notes the records that are lost: all of a missing object, and what lies behind the end of one that was cut.
fn note(damages: &Damages, snapshot: &Snapshot, differences: &Differences) -> Result<(), DecodeError> {
    let missing = differences.missing.iter().map(|id| (*id, (0, "the store does not have it".to_owned())));
    let cut = differences.cut.iter().map(|(id, wanted, found)| {
        (*id, (*found, format!("the store has {found} bytes of it instead of {wanted}")))
    });
    let lost: BTreeMap<ObjectId, (u64, String)> = missing.chain(cut).collect();
    if lost.is_empty() {
        return Ok(());
    }
    for pair in snapshot.range::<Extent>(..) {
        let (key, extent) = pair?;
        let Some(data) = extent.data() else { continue };
        let of_lost = data.place.object().and_then(|id| lost.get(&id));
        if let Some((_, what)) = of_lost.filter(|(there, _)| data.end() > *there) {
            let (by, part, at, what) = (FoundBy::Start, Part::Bytes, key.base, what.clone());
            damages.met(snapshot, Met { by, part, key, extent: Some(extent), at, what });
        }
    }
    Ok(())
}

/// Damage is named at once, and everything else stays in service.
fn report(store: &Arc<dyn Store>, differences: &Differences) {
    let count = differences.missing.len() + differences.cut.len();
    metrics::gauge!("floe_log_damaged_objects").set(count as f64);
    for line in differences.damage().take(DAMAGE_LINES_MAX) {
        tracing::error!(store = store.url(""), "acknowledged records cannot be read: {line}");
    }
    if count > 0 {
        tracing::error!(
            objects = count,
            "acknowledged records are missing from the store. Put back what was moved away, or restore it from a copy; \
             until then reads of these records fail, and everything else is served. `floe check` names every object"
        );
    }
}
