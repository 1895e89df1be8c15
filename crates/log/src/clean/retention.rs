//! Which records are too old or too many, and the command that removes them. Pure: no clock, no I/O.
//!
//! The unit is an extent, as a segment is Kafka's. The oldest extent of a partition goes if its largest timestamp is
//! older than `retention.ms`, or if the rest still has `retention.bytes` without it; and then the next one. The first
//! that stays ends the search, so nobody looks at more extents than there are to remove, and one more.
//!
//! The log start moves in the commit that removes the extents. Where the topic wants to keep what it loses, they become
//! a part of its removed records (`map/removed.rs`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup, Tx};

use crate::limits::REMOVED_RECORDS_BYTES;
use crate::map::deleted;
use crate::map::extent::{Extent, ExtentKey};
use crate::map::freed;
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::map::mark::{self, Mark};
use crate::map::partition;
use crate::map::removed;
use crate::map::topic::{self, Topic};
use crate::map::topic_config::TopicConfig;
use crate::read::walk;

/// What a topic keeps. `None`: without this limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Records that are older go.
    pub(crate) ms: Option<u64>,
    /// The oldest records go while so many bytes are left without them.
    pub(crate) bytes: Option<u64>,
    /// Whether they wait for views that have not read them.
    pub(crate) waits: bool,
}

/// What applies to topics that do not say it themselves; -1 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Kafka's `log.retention.ms`.
    pub ms: i64,
    /// Kafka's `log.retention.bytes`.
    pub bytes: i64,
}

impl Policy {
    /// The policy of a topic; none if it keeps everything.
    pub(crate) fn of(config: &TopicConfig, defaults: Defaults) -> Option<Policy> {
        // A negative number is no limit.
        let limit = |set: Option<i64>, default| u64::try_from(set.unwrap_or(default)).ok();
        let ms = limit(config.retention_ms, defaults.ms);
        let bytes = limit(config.retention_bytes, defaults.bytes);
        (config.deletes && (ms.is_some() || bytes.is_some())).then_some(Policy {
            ms,
            bytes,
            waits: config.retention_waits,
        })
    }
}

/// A partition that retention is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) partition: PartitionId,
    /// The first offset that must stay, because a view has not read it.
    pub(crate) ceiling: Option<Offset>,
}

/// What retention finds at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It keeps what it has.
    Nothing,
    /// There is something to do.
    Work,
    /// Its oldest records would go if no view needed them.
    Waits,
}

/// Looks at the oldest extent of a partition.
pub(crate) fn look(
    map: &impl Lookup,
    policy: Policy,
    due: Due,
    now: Timestamp,
) -> Result<Found, DecodeError> {
    let Some(head) = partition::head(map, due.partition)?.filter(|head| head.log_start < head.next) else {
        return Ok(Found::Nothing);
    };
    let Some(oldest) = walk::extents(map, due.partition, head.log_start)?.next().transpose()? else {
        return Ok(Found::Nothing);
    };
    let age = Age::of(map, due.partition, now)?;
    Ok(match policy.takes(head.bytes, age, oldest) {
        true if due.allows(oldest) => Found::Work,
        true => Found::Waits,
        false if policy.ms.is_some() && age.is_unknown(oldest) => Found::Work,
        false => Found::Nothing,
    })
}

impl Due {
    /// Whether no view needs any record of the extent.
    fn allows(&self, (key, extent): (ExtentKey, Extent)) -> bool {
        self.ceiling.is_none_or(|ceiling| extent.next_offset(key.base) <= ceiling)
    }
}

impl Policy {
    /// Whether the oldest extent of a partition goes that has so many bytes.
    fn takes(&self, bytes: u64, age: Age, (key, extent): (ExtentKey, Extent)) -> bool {
        let is_surplus = |least| bytes.checked_sub(extent.bytes()).is_some_and(|rest| rest >= least);
        let is_old = |ms| age.of_extent((key, extent)).is_some_and(|age| age > ms);
        self.bytes.is_some_and(is_surplus) || self.ms.is_some_and(is_old)
    }
}

/// How old the extents of a partition are.
#[derive(Clone, Copy)]
pub(crate) struct Age {
    now: Timestamp,
    mark: Option<Mark>,
}

impl Age {
    pub(crate) fn of(map: &impl Lookup, partition: PartitionId, now: Timestamp) -> Result<Age, DecodeError> {
        Ok(Age { now, mark: map.get::<Mark>(&partition)? })
    }

    /// The age in milliseconds: by the largest timestamp or by the mark, whichever is earlier. None if the first is in
    /// the future, or missing, and the second is too.
    pub(crate) fn of_extent(&self, (key, extent): (ExtentKey, Extent)) -> Option<u64> {
        let told = (extent.max_timestamp() >= 0).then_some(extent.max_timestamp());
        let covers = |mark: &Mark| extent.next_offset(key.base) <= mark.next;
        let marked = self.mark.filter(covers).map(|mark| mark.time.0);
        let since = told.into_iter().chain(marked).min()?;
        u64::try_from(self.now.0.saturating_sub(since)).ok()
    }

    /// Whether the extent needs a mark, and none covers it.
    pub(crate) fn is_unknown(&self, (key, extent): (ExtentKey, Extent)) -> bool {
        let is_told = (0..=self.now.0).contains(&extent.max_timestamp());
        !is_told && self.mark.is_none_or(|mark| extent.next_offset(key.base) > mark.next)
    }
}

/// What a command of retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Partitions that are done, from the first on.
    pub(crate) partitions: usize,
    /// Extents that are gone.
    pub(crate) extents: usize,
    /// Records that can be read no more. Markers do not count.
    pub(crate) records: u64,
    /// Bytes of the extents.
    pub(crate) bytes: u64,
}

/// Command: removes what is due of these partitions, `extents_max` extents at most. It decides anew, because the map
/// may have changed since somebody looked.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn take(
    tx: &mut Tx<'_>,
    due: &[Due],
    defaults: Defaults,
    now: Timestamp,
    extents_max: usize,
) -> Result<Taken, DecodeError> {
    let mut topics: BTreeMap<TopicId, Option<Ruled>> = BTreeMap::new();
    let (mut taken, mut record_bytes) = (Taken::default(), 0);
    let mut freed = Vec::new();
    for due in due {
        let room = extents_max - taken.extents;
        if room == 0 {
            break;
        }
        let id = due.partition.topic;
        let ruled = match topics.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Ruled::of(tx, id, defaults)?),
        };
        if let Some(ruled) = ruled {
            // Each of its partitions writes the record anew.
            let more = ruled.record_bytes();
            if record_bytes > 0 && record_bytes + more > REMOVED_RECORDS_BYTES {
                break;
            }
            record_bytes += more;
            let (some, is_done) = take_of(tx, ruled.policy, *due, now, room, &mut taken)?;
            taken.extents += some.len();
            match ruled.keeps {
                true => deleted::keep_removed(tx, &ruled.topic, due.partition.index, &some)?,
                false => freed.extend(some),
            }
            if !is_done {
                break;
            }
        }
        taken.partitions += 1;
    }
    freed::free(tx, &freed)?;
    deleted::keep_within_bounds(tx)?;
    Ok(taken)
}

/// A topic under retention.
struct Ruled {
    topic: Topic,
    policy: Policy,
    /// Whether what it loses can come back.
    keeps: bool,
}

impl Ruled {
    fn of(tx: &Tx<'_>, id: TopicId, defaults: Defaults) -> Result<Option<Ruled>, DecodeError> {
        let Some(topic) = topic::by_id(tx, id)? else { return Ok(None) };
        let config = TopicConfig::of(&topic);
        let Some(policy) = Policy::of(&config, defaults) else { return Ok(None) };
        Ok(Some(Ruled { topic, policy, keeps: deleted::keeps_removed(tx, &config)? }))
    }

    /// Bytes of the record of what it loses.
    fn record_bytes(&self) -> usize {
        if self.keeps { removed::record_bytes(&self.topic) } else { 0 }
    }
}

/// Moves the log start of one partition. Returns the extents that lie below it then, and whether they are all that is
/// due.
fn take_of(
    tx: &mut Tx<'_>,
    policy: Policy,
    due: Due,
    now: Timestamp,
    room: usize,
    taken: &mut Taken,
) -> Result<(Vec<(ExtentKey, Extent)>, bool), DecodeError> {
    let Some(head) = partition::head(tx, due.partition)? else { return Ok((Vec::new(), true)) };
    let age = Age::of(tx, due.partition, now)?;
    let (mut left, mut gone, mut young, mut is_done) = (head, Vec::new(), None, true);
    for pair in walk::extents(tx, due.partition, head.log_start)? {
        let extent = pair?;
        if !policy.takes(left.bytes, age, extent) {
            young = Some(extent);
            break;
        }
        if !due.allows(extent) {
            break;
        }
        if gone.len() == room {
            is_done = false;
            break;
        }
        left.log_start = extent.1.next_offset(extent.0.base);
        left.bytes = left.bytes.saturating_sub(extent.1.bytes());
        gone.push(extent);
    }
    let others: u64 = gone.iter().map(|(_, extent)| extent.offsets() - extent.records()).sum();
    taken.records += (left.log_start.0 - head.log_start.0).cast_unsigned().saturating_sub(others);
    taken.bytes += head.bytes - left.bytes;
    tx.put(&due.partition, &left);
    if policy.ms.is_some() && young.is_some_and(|young| age.is_unknown(young)) {
        tx.put(&due.partition, &Mark { time: tx.now(), next: head.next });
    }
    mark::forget_covered(tx, due.partition, left.log_start)?;
    Ok((gone, is_done))
}
