//! What retention and DeleteRecords took of topics that set `floe.trash.ms`: their removed records, in parts.
//!
//! A part has an id of its own, as a topic has. The commit that moves the log start moves the extents below it to that
//! id, with their offsets. So their objects stay alive, and the part can become a topic. Until then it counts as a
//! deleted topic (`deleted.rs`): the same bounds hold for both, and the same remains are left of them.
//!
//! ```text
//!             what goes in an eighth of floe.trash.ms             floe.trash.ms after the last of it
//!   extents ───────────────────────────────────────▶ Part ───────────────────────────────────────▶ Remains
//!                                                      │
//!                                                      └───▶ Topic, under another name (undelete)
//! ```
//! A part collects what goes within a span, so a topic has a few of them. Its time counts from the last that it took.
//! Of each partition a part has one run of offsets: whatever does not follow on begins another part. An extent goes
//! when all of it lies below the log start, and then all of its records can come back.
//!
//! Heads have a record for each partition that lost something, because a commit may touch a few partitions of many.
//! The cleaner frees them with the extents.

use floe_env::Timestamp;
use floe_meta::key::put_u64;
use floe_meta::{DecodeError, Lookup, MapRecord as _, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::limits::{REMOVED_PART_EXTENTS, REMOVED_PARTS_PER_TIME, REMOVED_SPAN_MIN};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::map::partition::{Head, PartHead};
use crate::map::topic::{self, Topic, TopicRecord};
use crate::map::topic_config::TopicConfig;

/// What tells removed records from a deleted topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The topic that lost them.
    pub of: TopicId,
    /// How many of its partitions did.
    pub partitions: u32,
    /// How many extents they had when they went. Merging makes fewer of them.
    pub extents: u64,
}

/// Offsets of a partition that were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The number of the partition.
    pub partition: u32,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

/// The value of a part (kind 28).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The topic as it was when it lost the last of them.
    pub(crate) topic: TopicRecord,
    pub(crate) of: TopicId,
    /// When it lost the first of them.
    begun: Timestamp,
    /// When it lost the last of them.
    pub(crate) at: Timestamp,
    /// The commit of that time.
    pub(crate) lsn: u64,
    pub(crate) bytes: u64,
    extents: u64,
    partitions: u32,
}

/// The part to which a topic's records go at present (kind 60).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OpenPart(TopicId);

postcard_record!(Part, 28, 1, TopicId);
postcard_record!(OpenPart, 60, 1, TopicId);

/// How a command has changed the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) is_new_part: bool,
    pub(crate) is_new_partition: bool,
    pub(crate) bytes: u64,
}

impl Part {
    pub(crate) fn removed(&self) -> Removed {
        Removed { of: self.of, partitions: self.partitions, extents: self.extents }
    }

    /// Whether it takes what its topic loses at this time.
    fn is_open(&self, now: Timestamp, config: &TopicConfig) -> bool {
        let age = u64::try_from(now.0.saturating_sub(self.begun.0)).unwrap_or(0);
        let part_of = |whole: Option<u64>| whole.unwrap_or(u64::MAX) / REMOVED_PARTS_PER_TIME;
        let is_small = self.extents < REMOVED_PART_EXTENTS && self.bytes <= part_of(config.trash_bytes);
        // So that no client makes parts as fast as it makes requests.
        age < REMOVED_SPAN_MIN.as_millis() as u64 || (age < part_of(config.trash_ms) && is_small)
    }
}

/// Whether a key of the metadata map is that of a part.
pub fn is_removed(key: &[u8]) -> bool {
    key.first() == Some(&Part::KIND)
}

/// All parts with their ids.
pub(crate) fn all(map: &impl Lookup) -> impl Iterator<Item = Result<(TopicId, Part), DecodeError>> {
    map.range::<Part>(..)
}

pub(crate) fn by_id(map: &impl Lookup, id: TopicId) -> Result<Option<Part>, DecodeError> {
    map.get::<Part>(&id)
}

/// The removed offsets of the first `count` partitions that lost any.
///
/// # Errors
/// A record cannot be read.
pub fn ranges(map: &impl Lookup, id: TopicId, count: usize) -> Result<Vec<Range>, DecodeError> {
    let range = |pair: Result<(PartitionId, PartHead), DecodeError>| {
        let (partition, PartHead(head)) = pair?;
        Ok(Range { partition: partition.index, from: head.log_start, to: head.next })
    };
    heads(map, id).take(count).map(range).collect()
}

fn heads(
    map: &impl Lookup,
    id: TopicId,
) -> impl Iterator<Item = Result<(PartitionId, PartHead), DecodeError>> {
    map.prefix::<PartHead>(move |out| put_u64(out, id.0))
}

/// About how many bytes the record of a part of this topic takes.
pub(crate) fn record_bytes(topic: &Topic) -> usize {
    let configs = topic.configs.iter().map(|(name, value)| name.len() + value.len() + 8);
    topic.name.len() + configs.sum::<usize>() + 100
}

/// Part of a command: moves extents that a partition of a topic has lost to the topic's part. They are adjacent. The
/// head of the partition is the caller's.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn add(
    tx: &mut Tx<'_>,
    topic: &Topic,
    index: u32,
    gone: &[(ExtentKey, Extent)],
) -> Result<Added, DecodeError> {
    let Some((first, _)) = gone.first() else { return Ok(Added::default()) };
    let open = open_for(tx, topic, index, first.base)?;
    let is_new_part = open.is_none();
    let (id, mut part) = match open {
        Some(open) => open,
        None => begin(tx, topic)?,
    };
    let target = PartitionId::new(id, index);
    let before = tx.get::<PartHead>(&target)?;
    let begins = Head { next: first.base, log_start: first.base, ..Head::default() };
    let mut head = before.map_or(begins, |PartHead(head)| head);
    let mut bytes = 0_u64;
    for (key, extent) in gone {
        assert_eq!(key.base, head.next, "what goes is adjacent");
        tx.delete::<Extent>(key);
        tx.put(&ExtentKey::new(target, key.base), extent);
        head.next = extent.next_offset(key.base);
        head.max_timestamp = head.max_timestamp.max(extent.max_timestamp());
        bytes = bytes.saturating_add(extent.bytes());
    }
    head.bytes = head.bytes.saturating_add(bytes);
    tx.put(&target, &PartHead(head));
    part.topic = TopicRecord::of(topic);
    (part.at, part.lsn) = (tx.now(), tx.lsn().0);
    part.bytes = part.bytes.saturating_add(bytes);
    part.extents += gone.len() as u64;
    part.partitions += u32::from(before.is_none());
    tx.put(&id, &part);
    Ok(Added { is_new_part, is_new_partition: before.is_none(), bytes })
}

/// The part that takes what a partition loses from this offset on.
fn open_for(
    tx: &Tx<'_>,
    topic: &Topic,
    index: u32,
    base: Offset,
) -> Result<Option<(TopicId, Part)>, DecodeError> {
    let Some(OpenPart(id)) = tx.get::<OpenPart>(&topic.id)? else { return Ok(None) };
    let Some(part) = by_id(tx, id)? else { return Ok(None) };
    let follows = match tx.get::<PartHead>(&PartitionId::new(id, index))? {
        Some(PartHead(head)) => head.next == base,
        None => true,
    };
    let is_open = follows && part.is_open(tx.now(), &TopicConfig::of(topic));
    Ok(is_open.then_some((id, part)))
}

fn begin(tx: &mut Tx<'_>, topic: &Topic) -> Result<(TopicId, Part), DecodeError> {
    let id = topic::next_id(tx)?;
    tx.put(&topic.id, &OpenPart(id));
    let (begun, record) = (tx.now(), TopicRecord::of(topic));
    let part =
        Part { topic: record, of: topic.id, begun, at: begun, lsn: 0, bytes: 0, extents: 0, partitions: 0 };
    Ok((id, part))
}

/// A part as a topic: the record, and the heads of all partitions. Those that lost nothing are empty.
pub(crate) fn whole(map: &impl Lookup, id: TopicId, part: &Part) -> Result<Vec<Head>, DecodeError> {
    let mut all = vec![Head::default(); part.topic.partitions() as usize];
    for pair in heads(map, id) {
        let (partition, PartHead(head)) = pair?;
        let slot = all.get_mut(partition.index as usize);
        let wrong = || DecodeError::corrupt(format!("removed records of the unknown partition {partition}"));
        *slot.ok_or_else(wrong)? = head;
    }
    Ok(all)
}

/// Part of a command: extents of a part's partition are replaced by others. Returns `false` if there is no such part.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn resize(
    tx: &mut Tx<'_>,
    partition: PartitionId,
    resized: impl Fn(u64) -> u64,
) -> Result<bool, DecodeError> {
    let (Some(part), Some(PartHead(head))) = (by_id(tx, partition.topic)?, tx.get::<PartHead>(&partition)?)
    else {
        return Ok(false);
    };
    tx.put(&partition.topic, &Part { bytes: resized(part.bytes), ..part });
    tx.put(&partition, &PartHead(Head { bytes: resized(head.bytes), ..head }));
    Ok(true)
}

/// Part of a command: the part is no part any more, but its extents and heads stay.
pub(crate) fn forget(tx: &mut Tx<'_>, id: TopicId, of: TopicId) -> Result<(), DecodeError> {
    tx.delete::<Part>(&id);
    if tx.get::<OpenPart>(&of)? == Some(OpenPart(id)) {
        tx.delete::<OpenPart>(&of);
    }
    Ok(())
}

/// Part of a command: the heads are those of a topic now.
pub(crate) fn forget_heads(tx: &mut Tx<'_>, id: TopicId, partitions: u32) {
    for index in 0..partitions {
        tx.delete::<PartHead>(&PartitionId::new(id, index));
    }
}

/// What does not add up, in words. For checkers.
pub(crate) fn miscounted(map: &impl Lookup) -> Result<Option<String>, DecodeError> {
    for pair in all(map) {
        let (id, part) = pair?;
        let (mut partitions, mut bytes) = (0, 0);
        for pair in heads(map, id) {
            let (partition, PartHead(head)) = pair?;
            (partitions, bytes) = (partitions + 1, bytes + head.bytes);
            let (mut next, mut of_extents) = (head.log_start, 0);
            let all = map.prefix::<Extent>(|out| partition.put(out));
            for pair in all {
                let (key, extent) = pair?;
                if key.base != next {
                    return Ok(Some(format!(
                        "removed records of {partition} end at {next}, not {}",
                        key.base
                    )));
                }
                next = extent.next_offset(key.base);
                of_extents += extent.bytes();
            }
            if (next, of_extents) != (head.next, head.bytes) {
                return Ok(Some(format!("removed records of {partition} end at {next}, and are {head:?}")));
            }
        }
        if (partitions, bytes) != (part.partitions, part.bytes) {
            return Ok(Some(format!("{part:?} has {partitions} partitions and {bytes} bytes")));
        }
    }
    for pair in map.range::<OpenPart>(..) {
        let (of, OpenPart(id)) = pair?;
        if by_id(map, id)?.is_none_or(|part| part.of != of) {
            return Ok(Some(format!("the records that topic {of} loses go to {id}, which is not there")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check<R: floe_meta::MapRecord + PartialEq + std::fmt::Debug>(record: &R, golden: &[u8]) {
        let mut body = Vec::new();
        record.encode(&mut body);
        assert_eq!(body, golden);
        assert_eq!(R::decode(R::VERSION, &body).as_ref(), Ok(record));
    }

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn removed_records_are_as_they_were() {
        let topic = TopicRecord::for_tests("t", 2, BTreeMap::new(), Timestamp(1), 5);
        let (begun, at) = (Timestamp(2), Timestamp(3));
        let part = Part { topic, of: TopicId(300), begun, at, lsn: 300, bytes: 7, extents: 8, partitions: 9 };
        check(&part, &[1, b't', 2, 0, 2, 5, 0xac, 2, 4, 6, 0xac, 2, 7, 8, 9]);
        let head = Head { next: Offset(3), log_start: Offset(1), max_timestamp: -1, bytes: 300 };
        check(&PartHead(head), &[6, 2, 1, 0xac, 2]);
        check(&OpenPart(TopicId(300)), &[0xac, 2]);
        assert_eq!([Part::KIND, PartHead::KIND, OpenPart::KIND], [28, 29, 60]);
    }
}
