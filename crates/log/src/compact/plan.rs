//! Which partitions are due for compaction, and from where to where. Pure: no clock, no I/O.
//!
//! The dirty part of a partition begins where the last pass ended. It ends in front of the first extent that is younger
//! than `min.compaction.lag.ms`, or that a view has not read for which the topic waits. A partition is due when its
//! dirty part is more than `min.cleanable.dirty.ratio` of it, or when its last pass was `max.compaction.lag.ms` ago: so
//! no record stays out of compaction for longer, whatever time its client gave it.
//!
//! Kafka leaves the newest segment of a partition alone, which has up to `segment.bytes` and `segment.ms`. Here is no
//! such segment. A dirty part that is small waits for a while instead, so that a trickle does not cost an object in
//! every round.

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup};

use crate::clean::retention::Age;
use crate::config::Compaction;
use crate::map::compacted::Compacted;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId};
use crate::map::partition;
use crate::map::topic_config::TopicConfig;
use crate::read::walk;

/// What a topic wants of compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policy {
    /// `min.cleanable.dirty.ratio`.
    pub(crate) ratio: f64,
    /// `min.compaction.lag.ms`.
    pub(crate) min_lag_ms: u64,
    /// `max.compaction.lag.ms`; none for no limit.
    pub(crate) max_lag_ms: Option<u64>,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// Whether records wait for views that have not read them.
    pub(crate) waits: bool,
}

impl Policy {
    /// The policy of a topic; none if it is not compacted.
    pub(crate) fn of(config: &TopicConfig) -> Option<Policy> {
        let max = u64::try_from(config.max_compaction_lag_ms).unwrap_or_default();
        config.compacted.then(|| Policy {
            ratio: config.min_cleanable_dirty_ratio,
            min_lag_ms: u64::try_from(config.min_compaction_lag_ms).unwrap_or_default(),
            max_lag_ms: (max < i64::MAX.unsigned_abs()).then_some(max),
            delete_retention_ms: config.delete_retention_ms,
            waits: config.retention_waits,
        })
    }
}

/// The dirty part of a partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dirty {
    pub(crate) partition: PartitionId,
    /// The end of the last pass.
    pub(crate) covered: Offset,
    /// The first dirty offset.
    pub(crate) from: Offset,
    /// The offset after the last that a pass may cover.
    pub(crate) limit: Offset,
    /// Bytes between the two, about.
    pub(crate) bytes: u64,
    /// Its share of the bytes that a pass would read.
    pub(crate) ratio: f64,
    /// Whether a pass should run.
    pub(crate) is_due: bool,
    /// Whether a record is in the way whose age nobody knows, so that a mark is wanted (`map/mark.rs`).
    pub(crate) wants_mark: bool,
}

/// Looks at a partition; none if it has nothing dirty that may be compacted, and needs no mark. `ceiling` is the first
/// offset that a view has not read.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn look(
    map: &impl Lookup,
    policy: &Policy,
    partition: PartitionId,
    ceiling: Option<Offset>,
    now: Timestamp,
    config: &Compaction,
) -> Result<Option<Dirty>, DecodeError> {
    let Some(head) = partition::head(map, partition)? else { return Ok(None) };
    let compacted = map.get::<Compacted>(&partition)?;
    let from = compacted.map_or(head.log_start, |compacted| compacted.next.max(head.log_start));
    if from >= head.next {
        return Ok(None);
    }
    let covered = compacted.map_or(Offset::ZERO, |compacted| compacted.next);
    let age = Age::of(map, partition, now)?;
    let (mut limit, mut dirty, mut later, mut wants_mark) = (from, 0u64, 0u64, false);
    for pair in walk::extents(map, partition, from)? {
        let (key, extent) = pair?;
        let bytes = bytes_from(from, key, &extent);
        // What lies behind the limit counts neither as clean nor as dirty.
        let is_behind = later > 0 || limit < key.base.max(from);
        if is_behind || !is_old(policy, age, (key, extent)) {
            wants_mark |= !is_behind && age.is_unknown((key, extent));
            later = later.saturating_add(bytes.max(1));
            continue;
        }
        dirty = dirty.saturating_add(bytes);
        limit = extent.next_offset(key.base);
    }
    limit = limit.min(ceiling.unwrap_or(limit)).max(from);
    if limit == from {
        return Ok(wants_mark.then_some(Dirty {
            partition,
            covered,
            from,
            limit,
            bytes: 0,
            ratio: 0.0,
            is_due: false,
            wants_mark,
        }));
    }
    let clean = head.bytes.saturating_sub(dirty).saturating_sub(later);
    let ratio = dirty as f64 / clean.saturating_add(dirty).max(1) as f64;
    let since = compacted.map(|compacted| now.0.saturating_sub(compacted.time.0));
    // The time of the last pass is unknown, or in the future: both clocks may have been put right since.
    let is_after = |ms: u64| since.is_none_or(|since| since < 0 || since.unsigned_abs() >= ms);
    let small_pause = u64::try_from(config.small_pause.as_millis()).unwrap_or(u64::MAX);
    let is_large = dirty >= config.small_bytes || is_after(small_pause);
    let is_late = policy.max_lag_ms.is_some_and(is_after);
    let is_due = is_late || (is_large && ratio > policy.ratio);
    Ok(Some(Dirty { partition, covered, from, limit, bytes: dirty, ratio, is_due, wants_mark }))
}

/// Whether the records of an extent are as old as the topic asks. Nobody knows how old some are.
fn is_old(policy: &Policy, age: Age, extent: (ExtentKey, Extent)) -> bool {
    policy.min_lag_ms == 0 || age.of_extent(extent).is_some_and(|age| age >= policy.min_lag_ms)
}

/// Bytes of an extent from an offset on, as if its records were of one size.
fn bytes_from(from: Offset, key: ExtentKey, extent: &Extent) -> u64 {
    let offsets = extent.offsets().max(1);
    let passed = from.0.saturating_sub(key.base.0).max(0).unsigned_abs().min(offsets);
    let bytes = u128::from(extent.bytes()) * u128::from(offsets - passed) / u128::from(offsets);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
