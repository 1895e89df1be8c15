//! What to merge next. Pure: a map and its index in, a plan out.
//!
//! Objects are in tiers by their size, each [`FANOUT`] times the one before. When a tier has [`FANOUT`] objects, its
//! oldest become one object, of a higher tier or large enough to stay. So a byte is written at most once for each tier
//! from that in which it came: once if it came in objects of [`MERGED_BYTES`] / [`FANOUT`], three times from 256 KiB,
//! [`TIERS`] times at most. After the merges that are due, a tier has fewer than [`FANOUT`] objects.

use floe_meta::{DecodeError, Lookup};

use crate::limits::MERGE_EXTENTS_MAX;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{ObjectId, Offset, PartitionId};
use crate::map::object::Object;
use crate::merge::index::Index;
use crate::read::walk;

/// Objects that one merge takes.
pub const FANOUT: usize = 8;
/// Objects below this size are of the lowest tier. None is so small that as many as [`FANOUT`] stay there.
pub const SMALLEST_BYTES: u64 = 256;
/// An object of this size stays.
pub const MERGED_BYTES: u64 = 64 << 20;
/// Tiers below that size.
pub const TIERS: usize = 7;

const _: () = assert!(SMALLEST_BYTES * (FANOUT as u64).pow(TIERS as u32 - 1) == MERGED_BYTES);

/// One merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Adjacent extents that become one, in the order of partitions and offsets.
    pub runs: Vec<Run>,
    /// The objects that lose extents, the oldest first.
    pub objects: Vec<ObjectId>,
    /// Bytes of all batches.
    pub bytes: u64,
}

/// Adjacent extents of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The partition.
    pub partition: PartitionId,
    /// The extents with their first offsets. Markers and gaps between two of the merged objects are among them.
    pub extents: Vec<(Offset, Extent)>,
}

/// The tier of an object; none if it stays.
pub fn tier(bytes: u64) -> Option<usize> {
    let mut limit = SMALLEST_BYTES;
    for tier in 0..TIERS {
        if bytes < limit {
            return Some(tier);
        }
        limit *= FANOUT as u64;
    }
    None
}

/// The next merge; none if no tier has enough objects. Takes the lowest tier that has.
///
/// # Errors
/// A record cannot be read.
pub fn next(map: &impl Lookup, index: &Index) -> Result<Option<Plan>, DecodeError> {
    let mut tiers: [Vec<ObjectId>; TIERS] = Default::default();
    for pair in map.range::<Object>(..) {
        let (id, object) = pair?;
        let Some(tier) = tier(object.size) else { continue };
        tiers[tier].push(id);
        // The records are in the order of kinds, writers and counts. What came first is merged first.
        if tiers[tier].len() == FANOUT && tier == 0 {
            break;
        }
    }
    match tiers.into_iter().find(|tier| tier.len() >= FANOUT) {
        Some(objects) => plan(map, index, &objects[..FANOUT]).map(Some),
        None => Ok(None),
    }
}

/// The merge of these objects, or of the first of them if they have too many extents.
fn plan(map: &impl Lookup, index: &Index, objects: &[ObjectId]) -> Result<Plan, DecodeError> {
    let (mut plan, mut all) = (Plan::default(), Vec::new());
    for object in objects {
        let extents = index.extents(map, *object)?;
        if !all.is_empty() && all.len() + extents.len() > MERGE_EXTENTS_MAX {
            break;
        }
        plan.objects.push(*object);
        all.extend(extents);
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    plan.bytes = all.iter().map(|(_, extent)| extent.bytes()).sum();
    let mut all = all.into_iter().peekable();
    while let Some((key, extent)) = all.next() {
        let mut run = Run { partition: key.partition, extents: vec![(key.base, extent)] };
        let mut end = extent.next_offset(key.base);
        while let Some((next, _)) = all.peek().filter(|(next, _)| next.partition == key.partition) {
            let Some(between) = between(map, key.partition, end, next.base)? else { break };
            run.extents.extend(between);
            let (next, extent) = all.next().expect("it was looked at");
            run.extents.push((next.base, extent));
            end = extent.next_offset(next.base);
        }
        plan.runs.push(run);
    }
    Ok(plan)
}

/// The markers and gaps between two offsets; none if there is something else.
fn between(
    map: &impl Lookup,
    partition: PartitionId,
    from: Offset,
    to: Offset,
) -> Result<Option<Vec<(Offset, Extent)>>, DecodeError> {
    let (mut found, mut next) = (Vec::new(), from);
    if from == to {
        return Ok(Some(found));
    }
    for pair in walk::extents(map, partition, from)? {
        let (ExtentKey { base, .. }, extent) = pair?;
        if base != next || extent.data().is_some() || found.len() == MERGE_EXTENTS_MAX {
            return Ok(None);
        }
        found.push((base, extent));
        next = extent.next_offset(base);
        if next >= to {
            break;
        }
    }
    Ok((next == to).then_some(found))
}
