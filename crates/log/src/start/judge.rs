//! Judges a whole map and a whole store beside each other, for `floe check`. A start looks at less of a remote store.

use std::collections::BTreeMap;

use bytes::Bytes;
use floe_meta::{Counter, DecodeError, Lookup, Lsn, Snapshot};

use crate::claim::{CLAIM_KEY, Claim};
use crate::map::cluster;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::{self, object_of_key};
use crate::map::partition::{self, Head};
use crate::map::writer_number::{self, WriterNumber};
use crate::read::walk;
use crate::start::attached::{self, unattached};
use crate::start::compare::compare;
use crate::start::writers::{HighWater, number_of_key, older};

/// What a look at everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Why the map is older than the store, or of another one. A broker with it does not start.
    pub refused: Vec<String>,
    /// Acknowledged records that cannot be read.
    pub damage: Vec<String>,
    /// What is odd and does no harm.
    pub notes: Vec<String>,
}

/// Compares a map with the commits whose bytes its journal keeps, in order, and with all objects of a store, by key
/// with their lengths. `small` has the contents of those in [`floe_store::CLUSTER_FOLDER`].
///
/// # Errors
/// A record of the map cannot be read.
pub fn judge(
    map: &Snapshot,
    kept: &[Lsn],
    objects: &BTreeMap<String, u64>,
    small: &BTreeMap<String, Bytes>,
) -> Result<Judgement, DecodeError> {
    let mut judgement = Judgement::default();
    let stored: BTreeMap<ObjectId, u64> =
        objects.iter().filter_map(|(key, bytes)| Some((object_of_key(key)?, *bytes))).collect();
    let differences = compare(map, &stored, ObjectId(0)..=ObjectId(u64::MAX))?;
    claimed(map, small, !stored.is_empty(), &mut judgement)?;
    judgement.refused.extend(differences.older());
    judgement.damage.extend(differences.damage());
    judgement.damage.extend(attached::damage(&unattached(map, kept)?));
    if !differences.in_flight.is_empty() && differences.older().is_none() {
        let count = differences.in_flight.len();
        judgement.notes.push(format!(
            "{count} objects were in flight when the broker ended; they were not acknowledged, and it deletes them"
        ));
    }
    if !differences.orphans.is_empty() {
        let (count, first) = (differences.orphans.len(), differences.orphans[0]);
        judgement
            .notes
            .push(format!("no record names {count} objects, the first is {first}; they take up room"));
    }
    let known = writer_number::known(map)?;
    let given = map.get::<Counter>(&object::IDS)?.unwrap_or_default().0;
    for (number, bytes) in small.iter().filter_map(|(key, bytes)| Some((number_of_key(key)?, bytes))) {
        match HighWater::decode(bytes) {
            Some(water) => judgement.refused.extend(older(number, &water, known, map.lsn(), given)),
            None => judgement.refused.push(format!("the high water of writer {} is damaged", number.0)),
        }
    }
    if known > WriterNumber(0) && !small.keys().any(|key| number_of_key(key) == Some(known)) {
        judgement
            .notes
            .push(format!("the store does not know writer {}: it may be older than this metadata", known.0));
    }
    judgement.damage.extend(gaps(map)?);
    judgement.notes.extend(below_log_starts(map)?);
    Ok(judgement)
}

fn claimed(
    map: &impl Lookup,
    small: &BTreeMap<String, Bytes>,
    used: bool,
    judgement: &mut Judgement,
) -> Result<(), DecodeError> {
    match (cluster::get(map)?, small.get(CLAIM_KEY)) {
        // Whether it names this journal was found before the journal was read.
        (Some(cluster), Some(claim)) if Claim::decode(claim).is_none_or(|it| it.cluster != cluster.id()) => {
            judgement.refused.push(format!("the store belongs to another cluster than {}", cluster.id()));
        }
        (None, Some(_)) if used => {
            judgement
                .refused
                .push("the store has objects of a cluster, and this metadata is empty".to_owned());
        }
        (Some(_), None) if map.range::<crate::object::Object>(..).next().is_some() => {
            judgement.refused.push("this metadata has its records in another store".to_owned());
        }
        _ => {}
    }
    Ok(())
}

/// Offsets between the log start and the high watermark that no extent holds.
fn gaps(map: &Snapshot) -> Result<Vec<String>, DecodeError> {
    let mut found = Vec::new();
    for pair in map.range::<Head>(..) {
        let (partition, head) = pair?;
        if let Some(at) = gap(map, partition, &head)? {
            found.push(format!(
                "partition {partition} has no record at offset {at}, although later ones exist"
            ));
        }
    }
    Ok(found)
}

/// Extents that no reader can reach. No commit leaves any.
fn below_log_starts(map: &Snapshot) -> Result<Option<String>, DecodeError> {
    let (mut count, mut first) = (0_u64, None);
    for pair in map.range::<Head>(..) {
        let (partition, head) = pair?;
        let below = ExtentKey::new(partition, Offset(i64::MIN))..ExtentKey::new(partition, head.log_start);
        for pair in map.range::<Extent>(below) {
            let (key, extent) = pair?;
            if extent.next_offset(key.base) <= head.log_start {
                (count, first) = (count + 1, first.or(Some(partition)));
            }
        }
    }
    Ok(first.map(|first| {
        format!("{count} extents lie below the log start, the first in partition {first}; they take up room")
    }))
}

fn gap(map: &Snapshot, partition: PartitionId, head: &Head) -> Result<Option<Offset>, DecodeError> {
    let partition::Bounds { log_start, high_watermark } = head.bounds();
    let mut next = log_start;
    for pair in walk::extents(map, partition, log_start)? {
        let (key, extent): (_, Extent) = pair?;
        if !walk::continues(next, key, extent, next == log_start) {
            return Ok(Some(next));
        }
        next = extent.next_offset(key.base);
    }
    Ok((next < high_watermark).then_some(next))
}
