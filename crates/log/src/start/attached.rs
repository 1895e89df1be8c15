//! Compares the bytes of commits that the journal keeps with the extents of the map.

use std::collections::BTreeMap;

use floe_meta::{DecodeError, Lookup, Lsn, Meta, Snapshot};

use crate::limits::DAMAGE_LINES_MAX;
use crate::map::extent::{Extent, ExtentKey, Place};
use crate::read::damage::{Damages, FoundBy, Met, Part};
use crate::read::frames::Frames;

/// Counts the commits whose bytes are needed. Where this process alone has the journal, missing ones are damage. It is
/// named at once, and everything else stays in service.
pub(crate) fn count(meta: &Meta, sole: bool, damages: &Damages) -> Frames {
    let (frames, lacks) = Frames::begin(meta);
    // Another broker may just have released some that this map still needs.
    if !sole || !lacks {
        return frames;
    }
    let snapshot = meta.snapshot();
    match unattached(&snapshot, &meta.attachments()) {
        Ok(missing) => {
            note(damages, &snapshot, &missing);
            metrics::gauge!("floe_log_damaged_frames").set(missing.len() as f64);
            for line in damage(&missing).take(DAMAGE_LINES_MAX) {
                tracing::error!("acknowledged records cannot be read: {line}");
            }
            tracing::error!(
                commits = missing.len(),
                "acknowledged records are missing from the journal. Restore its files from a copy; until then reads of \
                 these records fail, and everything else is served. `floe check` names every commit"
            );
        }
        Err(error) => tracing::error!(%error, "it cannot be said what is missing from the journal"),
    }
    frames
}

/// Notes the records of commits that are lost.
fn note(damages: &Damages, snapshot: &Snapshot, missing: &BTreeMap<Lsn, ExtentKey>) {
    let extents = snapshot.range::<Extent>(..).filter_map(Result::ok);
    for (key, extent) in extents {
        let in_frame = extent.data().filter(|data| data.place == Place::Frame);
        if in_frame.is_some_and(|data| missing.contains_key(&data.lsn)) {
            let what = "the journal does not have it".to_owned();
            let (by, part, at) = (FoundBy::Start, Part::Bytes, key.base);
            damages.met(snapshot, Met { by, part, key, extent: Some(extent), at, what });
        }
    }
}

/// The commits whose bytes a map needs and a journal does not keep, with the first extent of each. `kept` are those
/// that it keeps, in order.
///
/// # Errors
/// A record cannot be read.
pub fn unattached(map: &impl Lookup, kept: &[Lsn]) -> Result<BTreeMap<Lsn, ExtentKey>, DecodeError> {
    let mut missing = BTreeMap::new();
    for pair in map.range::<Extent>(..) {
        let (key, extent) = pair?;
        if let Some(data) = extent.data()
            && data.place == Place::Frame
            && kept.binary_search(&data.lsn).is_err()
        {
            missing.entry(data.lsn).or_insert(key);
        }
    }
    Ok(missing)
}

/// The damage of [`unattached`], one line for each commit.
pub fn damage(missing: &BTreeMap<Lsn, ExtentKey>) -> impl Iterator<Item = String> {
    missing.iter().map(|(lsn, ExtentKey { partition, base })| {
        format!("the journal lacks the bytes of commit {lsn}: the records of partition {partition} at {base}")
    })
}
