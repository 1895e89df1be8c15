//! Deleted topics that can come back: the trash of topics.
//!
//! A deleted topic keeps its extents and producers under its id, and nothing finds them there: its record, its name
//! and the heads of its partitions are in records of this module. What hangs on the id from other crates (committed
//! offsets, a table) stays as long as [`exists`] says so. To come back, the topic moves to where it was, under its old
//! name or another. To leave for good, it becomes remains (`remains.rs`), which are freed in bounded steps.
//!
//! ```text
//!            delete                  time, bytes, purge                freed step by step
//!   Topic ───────────▶ Deleted ─────────────────────────▶ Remains ───────────────────────▶ (gone)
//!     ▲                   │
//!     └───────────────────┘ undelete
//! ```
//! What retention and DeleteRecords took of a topic counts here as well, in parts that have ids of their own
//! (`removed.rs`). A part comes back as another topic than the one that lost it.
//!
//! A command that moves topics here keeps the bounds on their number and on their partitions itself. The cleaner keeps
//! those on time, bytes and extents: an extent takes memory of every broker, whether its topic is deleted or not.
//!
//! Brokers of format level 1 do not know these records, so there a topic is deleted for good.

use std::collections::BTreeMap;

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup, Lsn, MapRecord as _, Tx, postcard_record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{
    DELETED_EXTENTS_MAX, DELETED_PARTITIONS_MAX, DELETED_PER_COMMIT, DELETED_TOPICS_MAX, TRASH_BYTES,
    TRASH_MS,
};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::format_level::{self, WITH_LSNS};
use crate::map::ids::{PartitionId, TopicId};
use crate::map::partition::Head;
use crate::map::remains;
use crate::map::removed::{self, Part, Removed};
use crate::map::topic::{self, Topic, TopicError, TopicRecord};
use crate::map::topic_config::TopicConfig;

/// What the trash keeps of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trash {
    /// How long a deleted topic can come back that does not say it itself with `floe.trash.ms`, in milliseconds; 0 for
    /// not at all.
    pub ms: u64,
    /// Bytes of all deleted topics and removed records. Beyond them, what went first goes for good.
    pub bytes: u64,
}

impl Default for Trash {
    fn default() -> Trash {
        Trash { ms: TRASH_MS, bytes: TRASH_BYTES }
    }
}

/// A deleted topic that can come back, or a part of the records that were removed from a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The topic as it was. Removed records have an id of their own, and the name and settings that their topic has
    /// now.
    pub topic: Topic,
    /// The time of its deletion, or that of the last removal.
    pub at: Timestamp,
    /// The commit that did it.
    pub lsn: Lsn,
    /// Bytes of its extents.
    pub bytes: u64,
    /// More about removed records; none for a topic.
    pub removed: Option<Removed>,
}

/// The value of a deleted topic (kind 24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DeletedRecord {
    topic: TopicRecord,
    at: Timestamp,
    lsn: u64,
    bytes: u64,
}

/// The heads of its partitions, in order (kind 25).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heads(Vec<Head>);

/// How much there is of deleted topics that can come back (kind 26).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Topics, and parts of removed records.
    pub topics: u64,
    /// Their partitions: those that lost records, of such a part.
    pub partitions: u64,
    /// Bytes of their extents.
    pub bytes: u64,
}

postcard_record!(DeletedRecord, 24, 1, TopicId);
postcard_record!(Heads, 25, 1, TopicId);
postcard_record!(Totals, 26, 1, ());

/// Ids that an error names.
const IDS_TOLD_MAX: usize = 10;

/// Which deleted topics somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// All of this name.
    Name(String),
    /// The one of this name with this Kafka topic id.
    Id(String, Uuid),
}

/// Deleted topics that left for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many.
    pub topics: u64,
    /// Bytes of their extents.
    pub bytes: u64,
    /// Whether the command left others that are meant, too.
    pub more: bool,
}

/// Whether a key of the metadata map is that of a deleted topic that can come back.
pub fn is_deleted(key: &[u8]) -> bool {
    key.first() == Some(&DeletedRecord::KIND)
}

/// Whether a topic can come back.
///
/// # Errors
/// The record cannot be read.
pub fn by_id(map: &impl Lookup, id: TopicId) -> Result<Option<Deleted>, DecodeError> {
    if let Some(record) = map.get::<DeletedRecord>(&id)? {
        return Ok(Some(Deleted::of(id, record)));
    }
    removed::by_id(map, id)?.map(|part| Deleted::of_part(map, id, part)).transpose()
}

/// Whether there is a topic or it can come back. Until then, nothing that belongs to it may be thrown away.
///
/// # Errors
/// A record cannot be read.
pub fn exists(map: &impl Lookup, id: TopicId) -> Result<bool, DecodeError> {
    let is_topic = topic::by_id(map, id)?.is_some() || map.get::<DeletedRecord>(&id)?.is_some();
    Ok(is_topic || removed::by_id(map, id)?.is_some())
}

/// All of them, in the order of their deletion.
///
/// # Errors
/// A record cannot be read.
pub fn all(map: &impl Lookup) -> Result<Vec<Deleted>, DecodeError> {
    let pairs = map.range::<DeletedRecord>(..);
    let mut all = pairs.map(|pair| pair.map(|(id, record)| Deleted::of(id, record)));
    let mut all: Vec<Deleted> = all.by_ref().collect::<Result<_, _>>()?;
    for pair in removed::all(map) {
        let (id, part) = pair?;
        all.push(Deleted::of_part(map, id, part)?);
    }
    all.sort_by_key(|deleted| (deleted.lsn, deleted.topic.id));
    Ok(all)
}

/// How much there is of them.
///
/// # Errors
/// The record cannot be read.
pub fn totals(map: &impl Lookup) -> Result<Totals, DecodeError> {
    Ok(map.get::<Totals>(&())?.unwrap_or_default())
}

impl Deleted {
    fn of(id: TopicId, record: DeletedRecord) -> Deleted {
        let DeletedRecord { topic, at, lsn, bytes } = record;
        Deleted { topic: Topic::of(id, topic), at, lsn: Lsn(lsn), bytes, removed: None }
    }

    /// As long as the topic is there, its name and settings of now count.
    fn of_part(map: &impl Lookup, id: TopicId, part: Part) -> Result<Deleted, DecodeError> {
        let removed = part.removed();
        let mut topic = Topic::of(id, part.topic);
        if let Some(living) = topic::by_id(map, part.of)? {
            (topic.name, topic.configs) = (living.name, living.configs);
        }
        let (at, lsn, bytes) = (part.at, Lsn(part.lsn), part.bytes);
        Ok(Deleted { topic, at, lsn, bytes, removed: Some(removed) })
    }

    /// The topic whose room it takes.
    fn owner(&self) -> TopicId {
        self.removed.map_or(self.topic.id, |removed| removed.of)
    }

    fn partitions(&self) -> u64 {
        u64::from(self.removed.map_or(self.topic.partitions, |removed| removed.partitions))
    }

    /// How long it can come back, in milliseconds.
    fn kept_ms(&self, trash: Trash) -> u64 {
        let own = TopicConfig::of(&self.topic).trash_ms;
        // Of records that were removed, nobody keeps anything who does not ask for it.
        own.unwrap_or(if self.removed.is_some() { 0 } else { trash.ms })
    }

    /// When it leaves for good; none if never.
    pub fn until(&self, trash: Trash) -> Option<Timestamp> {
        let ms = i64::try_from(self.kept_ms(trash)).ok()?;
        self.at.0.checked_add(ms).map(Timestamp)
    }
}

impl Which {
    /// All of a name, or the one of this id, as people write it.
    ///
    /// # Errors
    /// [`TopicError::NothingDeleted`] if the text is no id.
    pub fn told(name: String, id: Option<&str>) -> Result<Which, TopicError> {
        let Some(id) = id else { return Ok(Which::Name(name)) };
        let parsed = Uuid::parse_str(id);
        let wrong =
            |_| TopicError::NothingDeleted(format!("'{}' is no id of a deleted topic", topic::shown(id)));
        Ok(Which::Id(name, parsed.map_err(wrong)?))
    }

    fn means(&self, deleted: &Deleted) -> bool {
        match self {
            Which::All => true,
            Which::Name(name) => deleted.topic.name == *name,
            Which::Id(name, id) => deleted.topic.name == *name && deleted.topic.uuid() == *id,
        }
    }

    /// Why nothing was done.
    fn missing(&self, map: &impl Lookup) -> Result<TopicError, DecodeError> {
        let mut words = match self {
            Which::All => "no deleted topic can come back".to_owned(),
            Which::Name(name) => format!("no deleted topic '{}' can come back", topic::shown(name)),
            Which::Id(name, id) => {
                format!("no deleted topic '{}' with the id {id} can come back", topic::shown(name))
            }
        };
        if let Which::Name(name) = self
            && topic::by_name(map, name)?.is_some()
        {
            words.push_str(
                ", and the topic of that name exists (what DeleteRecords or retention took is kept only where \
                 floe.trash.ms is set)",
            );
        }
        Ok(TopicError::NothingDeleted(words))
    }
}

impl Totals {
    fn put(self, tx: &mut Tx<'_>) {
        if self == Totals::default() {
            tx.delete::<Totals>(&());
        } else {
            tx.put(&(), &self);
        }
    }

    fn with(self, deleted: &Deleted) -> Totals {
        Totals {
            topics: self.topics + 1,
            partitions: self.partitions + deleted.partitions(),
            bytes: self.bytes.saturating_add(deleted.bytes),
        }
    }

    fn without(self, deleted: &Deleted) -> Totals {
        Totals {
            topics: self.topics.saturating_sub(1),
            partitions: self.partitions.saturating_sub(deleted.partitions()),
            bytes: self.bytes.saturating_sub(deleted.bytes),
        }
    }

    /// Whether a command may leave so many.
    fn fits(self) -> bool {
        self.topics <= DELETED_TOPICS_MAX && self.partitions <= DELETED_PARTITIONS_MAX
    }
}

/// Command: deletes a topic so that it can come back, or for good if nobody wants that.
///
/// # Errors
/// [`TopicError::NotFound`].
pub fn delete(tx: &mut Tx<'_>, id: TopicId, trash: Trash) -> Result<Topic, TopicError> {
    let topic = topic::by_id(tx, id)?.ok_or(TopicError::NotFound)?;
    let ms = TopicConfig::of(&topic).trash_ms.unwrap_or(trash.ms);
    let is_kept = ms > 0 && format_level::get(tx)? >= WITH_LSNS;
    if !is_kept {
        return topic::delete(tx, id);
    }
    let (record, heads) = topic::take(tx, id)?;
    let bytes = heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.bytes));
    let record = DeletedRecord { topic: record, at: tx.now(), lsn: tx.lsn().0, bytes };
    tx.put(&id, &record);
    tx.put(&id, &Heads(heads));
    let totals = totals(tx)?.with(&Deleted::of(id, record));
    totals.put(tx);
    keep_within_bounds(tx)?;
    Ok(topic)
}

/// Part of a command: extents of a partition of a deleted topic, or of removed records, are replaced by others. Returns
/// `false` if no such topic can come back.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn resize(
    tx: &mut Tx<'_>,
    partition: PartitionId,
    old: u64,
    new: u64,
) -> Result<bool, DecodeError> {
    let resized = |bytes: u64| bytes.saturating_sub(old).saturating_add(new);
    if !resize_topic(tx, partition, resized)? && !removed::resize(tx, partition, resized)? {
        return Ok(false);
    }
    let totals = totals(tx)?;
    Totals { bytes: resized(totals.bytes), ..totals }.put(tx);
    Ok(true)
}

fn resize_topic(
    tx: &mut Tx<'_>,
    partition: PartitionId,
    resized: impl Fn(u64) -> u64,
) -> Result<bool, DecodeError> {
    let id = partition.topic;
    let (Some(record), Some(Heads(mut heads))) = (tx.get::<DeletedRecord>(&id)?, tx.get::<Heads>(&id)?)
    else {
        return Ok(false);
    };
    let Some(head) = heads.get_mut(partition.index as usize) else { return Ok(false) };
    head.bytes = resized(head.bytes);
    tx.put(&id, &DeletedRecord { bytes: resized(record.bytes), ..record });
    tx.put(&id, &Heads(heads));
    Ok(true)
}

/// Whether what a topic loses can come back.
///
/// # Errors
/// The format level cannot be read.
pub(crate) fn keeps_removed(map: &impl Lookup, config: &TopicConfig) -> Result<bool, DecodeError> {
    Ok(config.trash_ms.is_some_and(|ms| ms > 0) && format_level::get(map)? >= WITH_LSNS)
}

/// Part of a command: keeps adjacent extents that a partition of a topic has lost. The head of the partition is the
/// caller's, and so are the bounds ([`keep_within_bounds`]).
///
/// # Errors
/// A record cannot be read.
pub(crate) fn keep_removed(
    tx: &mut Tx<'_>,
    topic: &Topic,
    index: u32,
    gone: &[(ExtentKey, Extent)],
) -> Result<(), DecodeError> {
    let added = removed::add(tx, topic, index, gone)?;
    let before = totals(tx)?;
    let totals = Totals {
        topics: before.topics + u64::from(added.is_new_part),
        partitions: before.partitions + u64::from(added.is_new_partition),
        bytes: before.bytes.saturating_add(added.bytes),
    };
    totals.put(tx);
    Ok(())
}

/// Part of a command: lets those go that went first, if there are too many.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn keep_within_bounds(tx: &mut Tx<'_>) -> Result<(), DecodeError> {
    let totals = totals(tx)?;
    if totals.fits() { Ok(()) } else { make_room(tx, totals) }
}

/// Lets the topics go that were deleted first, until the others fit, or as many as one commit may.
fn make_room(tx: &mut Tx<'_>, totals: Totals) -> Result<(), DecodeError> {
    let mut left = totals;
    for deleted in all(tx)?.iter().take(DELETED_PER_COMMIT) {
        if left.fits() {
            break;
        }
        left = left.without(deleted);
        leave(tx, deleted)?;
    }
    left.put(tx);
    Ok(())
}

/// Lets a topic or removed records go for good. The totals are the caller's.
fn leave(tx: &mut Tx<'_>, deleted: &Deleted) -> Result<(), DecodeError> {
    let id = deleted.topic.id;
    match deleted.removed {
        Some(Removed { of, .. }) => removed::forget(tx, id, of)?,
        None => {
            tx.delete::<DeletedRecord>(&id);
            tx.delete::<Heads>(&id);
        }
    }
    remains::note(tx, id);
    Ok(())
}

/// Command: brings a deleted topic back as it was, under `new_name` if there is one. Of several it takes the one that
/// was deleted last. Removed records are meant by their id, or if no topic of the name was deleted and there is one
/// part of them. They come back as a topic of their own, with a new name.
///
/// # Errors
/// [`TopicError::NothingDeleted`], [`TopicError::NameTaken`], [`TopicError::NeedsName`], [`TopicError::Several`], and
/// as for [`topic::create`].
pub fn undelete(tx: &mut Tx<'_>, which: &Which, new_name: Option<&str>) -> Result<Topic, TopicError> {
    let deleted = chosen(tx, which)?;
    match deleted.removed {
        Some(Removed { of, .. }) => undelete_part(tx, &deleted, of, new_name),
        None => undelete_topic(tx, &deleted, new_name),
    }
}

/// The one that is meant to come back.
fn chosen(tx: &Tx<'_>, which: &Which) -> Result<Deleted, TopicError> {
    let mut meant: Vec<Deleted> = all(tx)?.into_iter().filter(|deleted| which.means(deleted)).collect();
    if let Some(last) = meant.iter().rposition(|deleted| deleted.removed.is_none()) {
        return Ok(meant.swap_remove(last));
    }
    let Some(last) = meant.pop() else { return Err(which.missing(tx)?) };
    if meant.is_empty() {
        return Ok(last);
    }
    let ids: Vec<String> =
        std::iter::once(&last).chain(meant.iter().rev()).map(|part| part.topic.uuid().to_string()).collect();
    let told = ids.iter().take(IDS_TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if ids.len() > IDS_TOLD_MAX { ", …" } else { "" };
    let (count, name) = (ids.len(), topic::shown(&last.topic.name));
    let words =
        format!("{count} parts of removed records of '{name}' can come back, the last first: {told}{more}");
    Err(TopicError::Several(words))
}

fn undelete_part(
    tx: &mut Tx<'_>,
    deleted: &Deleted,
    of: TopicId,
    new_name: Option<&str>,
) -> Result<Topic, TopicError> {
    let id = deleted.topic.id;
    let name = new_name.ok_or_else(|| TopicError::NeedsName(deleted.topic.name.clone()))?;
    let Some(part) = removed::by_id(tx, id)? else {
        return Err(DecodeError::corrupt(format!("the removed records {id} are gone")).into());
    };
    let heads = removed::whole(tx, id, &part)?;
    let topic = topic::put_back(tx, id, part.topic.kept_as(name), &heads)?;
    removed::forget(tx, id, of)?;
    removed::forget_heads(tx, id, topic.partitions);
    totals(tx)?.without(deleted).put(tx);
    Ok(topic)
}

fn undelete_topic(tx: &mut Tx<'_>, deleted: &Deleted, new_name: Option<&str>) -> Result<Topic, TopicError> {
    let id = deleted.topic.id;
    let record = tx.get::<DeletedRecord>(&id)?;
    let (Some(DeletedRecord { topic: mut record, .. }), Some(Heads(heads))) = (record, tx.get::<Heads>(&id)?)
    else {
        return Err(DecodeError::corrupt(format!("the deleted topic {id} has no heads")).into());
    };
    if let Some(name) = new_name {
        name.clone_into(&mut record.name);
    }
    let topic = topic::put_back(tx, id, record, &heads)?;
    tx.delete::<DeletedRecord>(&id);
    tx.delete::<Heads>(&id);
    totals(tx)?.without(deleted).put(tx);
    Ok(topic)
}

/// Command: lets deleted topics go for good, so many that a commit stays small.
///
/// # Errors
/// [`TopicError::NothingDeleted`] if a name is meant that no deleted topic has.
pub fn purge(tx: &mut Tx<'_>, which: &Which) -> Result<Purged, TopicError> {
    let meant: Vec<Deleted> = all(tx)?.into_iter().filter(|deleted| which.means(deleted)).collect();
    if meant.is_empty() && *which != Which::All {
        return Err(which.missing(tx)?);
    }
    let mut purged = let_go(tx, meant.iter().take(DELETED_PER_COMMIT))?;
    purged.more = meant.len() > DELETED_PER_COMMIT;
    Ok(purged)
}

/// Command: lets these go, as far as they are still as somebody saw them.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn expire(tx: &mut Tx<'_>, seen: &[(TopicId, Lsn)]) -> Result<Purged, DecodeError> {
    let mut still = Vec::new();
    for (id, lsn) in seen {
        still.extend(by_id(tx, *id)?.filter(|deleted| deleted.lsn == *lsn));
    }
    let_go(tx, still.iter())
}

fn let_go<'d>(tx: &mut Tx<'_>, deleted: impl Iterator<Item = &'d Deleted>) -> Result<Purged, DecodeError> {
    let (mut left, mut purged) = (totals(tx)?, Purged::default());
    for deleted in deleted {
        left = left.without(deleted);
        leave(tx, deleted)?;
        purged.topics += 1;
        purged.bytes = purged.bytes.saturating_add(deleted.bytes);
    }
    left.put(tx);
    Ok(purged)
}

/// The topics that are to leave for good at this time, in the order of their deletion: those whose time is over, of
/// each topic the first ones until the rest is within its own room, and of all others the first ones until the rest is
/// within all bounds. `extents` tells how many extents a topic has.
pub(crate) fn due(
    all: &[Deleted],
    trash: Trash,
    now: Timestamp,
    extents: impl Fn(&Deleted) -> u64,
) -> Vec<(TopicId, Lsn)> {
    let (mut kept, mut kept_extents, mut is_full) = (Totals::default(), 0_u64, false);
    let (mut due, mut rooms) = (Vec::new(), BTreeMap::new());
    for deleted in all.iter().rev() {
        let is_over = deleted.until(trash).is_some_and(|until| until <= now);
        // The settings of the last one count.
        let room = rooms.entry(deleted.owner()).or_insert_with(|| Some(own_bytes(deleted)));
        if !is_over && !is_full {
            *room = room.and_then(|room| room.checked_sub(deleted.bytes));
        }
        if !is_over && !is_full && room.is_some() {
            let with = kept.with(deleted);
            let with_extents = kept_extents.saturating_add(extents(deleted));
            is_full = !with.fits() || with.bytes > trash.bytes || with_extents > DELETED_EXTENTS_MAX;
            if !is_full {
                (kept, kept_extents) = (with, with_extents);
                continue;
            }
        }
        due.push((deleted.topic.id, deleted.lsn));
    }
    due.reverse();
    due
}

/// How many bytes a topic may keep in the trash.
fn own_bytes(deleted: &Deleted) -> u64 {
    TopicConfig::of(&deleted.topic).trash_bytes.unwrap_or(u64::MAX)
}

/// What does not add up, in words. For checkers.
///
/// # Errors
/// A record cannot be read.
pub fn miscounted(map: &impl Lookup) -> Result<Option<String>, DecodeError> {
    let mut counted = Totals::default();
    for deleted in &all(map)? {
        counted = counted.with(deleted);
    }
    let totals = totals(map)?;
    let mut heads = BTreeMap::new();
    for pair in map.range::<Heads>(..) {
        let (id, Heads(of_topic)) = pair?;
        heads.insert(id, of_topic.len());
    }
    let topics: Vec<Deleted> = all(map)?.into_iter().filter(|one| one.removed.is_none()).collect();
    let whole = topics.iter().all(|one| heads.get(&one.topic.id) == Some(&(one.topic.partitions as usize)));
    if counted != totals || !whole || heads.len() != topics.len() {
        return Ok(Some(format!(
            "deleted topics are {counted:?}, and {totals:?} with {heads:?} is recorded"
        )));
    }
    removed::miscounted(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::ids::Offset;

    fn check<R: floe_meta::MapRecord + PartialEq + std::fmt::Debug>(record: &R, golden: &[u8]) {
        let mut body = Vec::new();
        record.encode(&mut body);
        assert_eq!(body, golden);
        assert_eq!(R::decode(R::VERSION, &body).as_ref(), Ok(record));
    }

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn deleted_topics_are_as_they_were() {
        let configs = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let topic = TopicRecord::for_tests("t", 2, configs, Timestamp(1), 5);
        let record = DeletedRecord { topic, at: Timestamp(300), lsn: 300, bytes: 7 };
        check(&record, &[1, b't', 2, 1, 1, b'a', 1, b'b', 2, 5, 0xd8, 4, 0xac, 2, 7]);
        let head = Head { next: Offset(3), log_start: Offset(1), max_timestamp: -1, bytes: 300 };
        check(&Heads(vec![head, Head::default()]), &[2, 6, 2, 1, 0xac, 2, 0, 0, 1, 0]);
        check(&Totals { topics: 1, partitions: 300, bytes: 2 }, &[1, 0xac, 2, 2]);
        let kinds = [DeletedRecord::KIND, Heads::KIND, Totals::KIND];
        assert_eq!(kinds, [24, 25, 26]);
    }
}
