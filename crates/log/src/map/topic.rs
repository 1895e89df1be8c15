//! Topics: the record, look-ups, and the pure commands that create and delete them.

use std::collections::BTreeMap;

use floe_env::Timestamp;
use floe_meta::{
    Change, Counter, CounterKey, DecodeError, Lookup, MapRecord as _, Tx, decode_value, postcard_record,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::map::cluster;
use crate::map::ids::{PartitionId, TopicId};
use crate::map::mark::Mark;
use crate::map::partition::Head;
use crate::map::remains;
use crate::map::topic_config::{self, ConfigError, TopicConfig};

/// Bytes of a topic's name, as in Kafka.
pub const NAME_BYTES_MAX: usize = 249;
/// Partitions of one topic.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Topics of one cluster.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of one cluster. Each is a record that every broker loads at its start and holds in memory.
pub const PARTITIONS_TOTAL_MAX: u64 = 500_000;

const COUNTER: CounterKey = CounterKey::named("topic");
/// The counter of existing partitions.
const PARTITIONS: CounterKey = CounterKey::named("partition");

/// A topic with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The number; never reused.
    pub id: TopicId,
    /// The name; free again after the topic is deleted.
    pub name: String,
    /// The number of partitions; at least 1.
    pub partitions: u32,
    /// The settings that differ from the defaults, by canonical name (`topic_config.rs`).
    pub configs: BTreeMap<String, String>,
    /// When it was created.
    pub created: Timestamp,
    uuid_high: u64,
}

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The name, which must pass [`check_name`].
    pub name: String,
    /// How many partitions; at least 1.
    pub partitions: u32,
    /// Settings by canonical name or alias.
    pub configs: BTreeMap<String, String>,
}

/// Why a topic was not created or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Another topic has the name.
    #[error("topic '{0}' already exists")]
    Exists(String),
    /// Another topic has the name of a deleted one that is to come back.
    #[error("there is a topic '{0}': bring the deleted one back under another name, as with --as {0}-2")]
    NameTaken(String),
    /// No deleted topic is meant.
    #[error("{0}: `floe topic list --deleted` shows what can")]
    NothingDeleted(String),
    /// Removed records come back beside their topic.
    #[error(
        "what DeleteRecords or retention took of '{0}' comes back as another topic: give it a name, as with --as \
         {0}-removed"
    )]
    NeedsName(String),
    /// Several parts of removed records are meant.
    #[error("{0}; say which with --id; `floe topic list --deleted` shows them")]
    Several(String),
    /// There is no such topic.
    #[error("this topic does not exist")]
    NotFound,
    /// The name breaks a rule.
    #[error("topic name '{name}' is not allowed: {reason}")]
    InvalidName {
        /// The refused name.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// The partition count is 0 or too large.
    #[error("a topic has 1 to {PARTITIONS_MAX} partitions, not {0}")]
    InvalidPartitions(u32),
    /// A setting is unknown or has a value out of its range.
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),
    /// The cluster has [`TOPICS_MAX`] topics.
    #[error("the cluster has {TOPICS_MAX} topics, delete some first")]
    TooMany,
    /// The cluster has no room for this many partitions.
    #[error("the cluster has room for {PARTITIONS_TOTAL_MAX} partitions, {0} are taken: delete topics first")]
    TooManyPartitions(u64),
    /// Nothing changed. The caller may try again.
    #[error("nothing was changed, try again: {0}")]
    Unavailable(String),
    /// The outcome is not known. The caller should look before trying again.
    #[error("it is not known whether the change was made, look before trying again: {0}")]
    Unknown(String),
}

/// A command that meets an unreadable record changes nothing.
impl From<DecodeError> for TopicError {
    fn from(error: DecodeError) -> TopicError {
        TopicError::Unavailable(error.to_string())
    }
}

/// The value of a topic (kind 10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) name: String,
    partitions: u32,
    configs: BTreeMap<String, String>,
    created: Timestamp,
    uuid_high: u64,
}

impl TopicRecord {
    /// The record of a topic.
    pub(crate) fn of(topic: &Topic) -> TopicRecord {
        let Topic { id: _, name, partitions, configs, created, uuid_high } = topic.clone();
        TopicRecord { name, partitions, configs, created, uuid_high }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Brings removed records back under this name, so that retention does not take them again.
    #[must_use]
    pub(crate) fn kept_as(mut self, name: &str) -> TopicRecord {
        name.clone_into(&mut self.name);
        for limit in ["retention.ms", "retention.bytes"] {
            self.configs.insert(limit.to_owned(), "-1".to_owned());
        }
        self
    }
}

/// The number of a topic (kind 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TopicNumber(TopicId);

postcard_record!(TopicRecord, 10, 1, TopicId);
postcard_record!(TopicNumber, 11, 1, String);

/// Whether a key of the metadata map is that of a topic.
pub fn is_topic(key: &[u8]) -> bool {
    key.first() == Some(&TopicRecord::KIND)
}

/// The topic that a change gives a name, if it does.
///
/// # Errors
/// The record cannot be read.
pub fn named_by(change: &Change) -> Result<Option<TopicId>, DecodeError> {
    match (&change.value, change.key.first() == Some(&TopicNumber::KIND)) {
        (Some(value), true) => decode_value::<TopicNumber>(value).map(|TopicNumber(id)| Some(id)),
        _ => Ok(None),
    }
}

impl Topic {
    /// The topic's id in Kafka's protocol: the high 64 bits of the cluster's uuid, then the topic's number. Never
    /// zero, and never the same in two clusters.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_u64_pair(self.uuid_high, self.id.0)
    }

    /// The partitions in order.
    pub fn partition_ids(&self) -> impl DoubleEndedIterator<Item = PartitionId> + ExactSizeIterator + use<> {
        let topic = self.id;
        (0..self.partitions).map(move |index| PartitionId { topic, index })
    }

    pub(crate) fn of(id: TopicId, record: TopicRecord) -> Topic {
        let TopicRecord { name, partitions, configs, created, uuid_high } = record;
        Topic { id, name, partitions, configs, created, uuid_high }
    }
}

impl TopicConfig {
    /// The typed settings of a topic.
    pub fn of(topic: &Topic) -> TopicConfig {
        TopicConfig::of_configs(&topic.configs)
    }
}

/// The topic with a number.
///
/// # Errors
/// The record cannot be read.
pub fn by_id(map: &impl Lookup, id: TopicId) -> Result<Option<Topic>, DecodeError> {
    Ok(map.get::<TopicRecord>(&id)?.map(|record| Topic::of(id, record)))
}

/// The topic with a name.
///
/// # Errors
/// A record cannot be read.
pub fn by_name(map: &impl Lookup, name: &str) -> Result<Option<Topic>, DecodeError> {
    if check_name(name).is_err() {
        return Ok(None); // also keeps names of any length away from the map's keys
    }
    match map.get::<TopicNumber>(&name.to_owned())? {
        None => Ok(None),
        Some(TopicNumber(id)) => by_id(map, id),
    }
}

/// The topic with a Kafka topic id.
///
/// # Errors
/// A record cannot be read.
pub fn by_uuid(map: &impl Lookup, uuid: Uuid) -> Result<Option<Topic>, DecodeError> {
    let (_, low) = uuid.as_u64_pair();
    Ok(by_id(map, TopicId(low))?.filter(|topic| topic.uuid() == uuid))
}

/// All topics in the order of their names.
///
/// # Errors
/// A record cannot be read.
pub fn all(map: &impl Lookup) -> Result<Vec<Topic>, DecodeError> {
    let mut topics = Vec::new();
    for pair in map.range::<TopicNumber>(..) {
        let (name, TopicNumber(id)) = pair?;
        let topic = by_id(map, id)?;
        topics.push(topic.ok_or_else(|| DecodeError::corrupt(format!("topic {name} has no record")))?);
    }
    Ok(topics)
}

/// Checks Kafka's rules for a topic's name: 1 to 249 characters out of `a-z A-Z 0-9 . _ -`, and not `.` or `..`.
///
/// # Errors
/// [`TopicError::InvalidName`] with the rule.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name == "." || name == ".." {
        "it may not be '.' or '..'".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("it is longer than {NAME_BYTES_MAX} characters")
    } else if !name.chars().all(legal) {
        "it may hold only letters and digits of ASCII, '.', '_' and '-'".to_owned()
    } else {
        return Ok(());
    };
    Err(TopicError::InvalidName { name: shown(name), reason })
}

/// As much of a name as an error shows.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(NAME_BYTES_MAX).collect()
}

/// Command: creates a topic with its partitions.
///
/// # Errors
/// See [`TopicError`]; on an error nothing changes.
pub fn create(tx: &mut Tx<'_>, new: &NewTopic) -> Result<Topic, TopicError> {
    check_name(&new.name)?;
    if new.partitions == 0 || new.partitions > PARTITIONS_MAX {
        return Err(TopicError::InvalidPartitions(new.partitions));
    }
    let configs = topic_config::check(&new.configs)?;
    if tx.get::<TopicNumber>(&new.name)?.is_some() {
        return Err(TopicError::Exists(new.name.clone()));
    }
    let partitions = check_place(tx, &new.name, new.partitions)?;
    let cluster = cluster::get(tx)?;
    let cluster =
        cluster.ok_or_else(|| TopicError::Unavailable("the cluster is not opened yet".to_owned()))?;

    let id = next_id(tx)?;
    let record = TopicRecord {
        name: new.name.clone(),
        partitions: new.partitions,
        configs,
        created: tx.now(),
        uuid_high: cluster.uuid_high(),
    };
    tx.put(&id, &record);
    tx.put(&new.name, &TopicNumber(id));
    tx.put(&PARTITIONS, &Counter(partitions));
    let topic = Topic::of(id, record);
    for partition in topic.partition_ids() {
        tx.put(&partition, &Head::default());
    }
    Ok(topic)
}

/// Part of a command: the id of a new topic, or of something that may become one.
pub(crate) fn next_id(tx: &mut Tx<'_>) -> Result<TopicId, DecodeError> {
    tx.next_counter(&COUNTER).map(TopicId)
}

/// Checks that there is a place for one more topic. Returns how many partitions there are with it.
fn check_place(tx: &Tx<'_>, name: &str, partitions: u32) -> Result<u64, TopicError> {
    check_room(tx)?;
    let taken = count_partitions(tx)?;
    let partitions = taken + u64::from(partitions);
    if partitions > PARTITIONS_TOTAL_MAX {
        return Err(TopicError::TooManyPartitions(taken));
    }
    check_neighbours(tx, name)?;
    Ok(partitions)
}

/// Checks that the cluster has room for one more topic. Counts the topics only after as many were ever created.
fn check_room(tx: &Tx<'_>) -> Result<(), TopicError> {
    let Counter(created) = tx.get(&COUNTER)?.unwrap_or_default();
    let room = created < TOPICS_MAX as u64 || tx.range::<TopicNumber>(..).count() < TOPICS_MAX;
    if room { Ok(()) } else { Err(TopicError::TooMany) }
}

/// The number of partitions. Maps written before this counter existed are counted once.
fn count_partitions(tx: &Tx<'_>) -> Result<u64, DecodeError> {
    match tx.get::<Counter>(&PARTITIONS)? {
        Some(Counter(partitions)) => Ok(partitions),
        None => tx.range::<TopicRecord>(..).map(|pair| Ok(u64::from(pair?.1.partitions))).sum(),
    }
}

/// Refuses a name that differs from an existing one only in `.` and `_`, because names of metrics and tables cannot
/// tell them apart. Kafka refuses such names for the same reason. Colliding names are equal up to the first of
/// these characters, so only names with the same beginning are compared.
fn check_neighbours(tx: &Tx<'_>, name: &str) -> Result<(), TopicError> {
    let folded = |name: &str| name.replace('.', "_");
    let Some(first) = name.find(['.', '_']) else {
        return Ok(());
    };
    let begin = &name[..first];
    // Each range ends at the character after `.` or `_`.
    for (from, to) in [('.', '/'), ('_', '`')] {
        for pair in tx.range::<TopicNumber>(format!("{begin}{from}")..format!("{begin}{to}")) {
            let (other, _) = pair?;
            if folded(&other) == folded(name) {
                let reason = format!("it collides with topic '{other}', '.' and '_' count as the same");
                return Err(TopicError::InvalidName { name: name.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Command: replaces the settings of a topic.
///
/// # Errors
/// [`TopicError::NotFound`], [`TopicError::InvalidConfig`].
pub fn configure(
    tx: &mut Tx<'_>,
    id: TopicId,
    configs: &BTreeMap<String, String>,
) -> Result<Topic, TopicError> {
    let mut record = tx.get::<TopicRecord>(&id)?.ok_or(TopicError::NotFound)?;
    record.configs = topic_config::check(configs)?;
    tx.put(&id, &record);
    Ok(Topic::of(id, record))
}

/// Command: deletes a topic for good. Its name, settings and partitions disappear at once. The same commit frees its
/// extents and producers if they are few. [`remains::sweep`] frees the rest later, so that no commit grows with the
/// topic. Objects that lose their last extent become trash.
///
/// # Errors
/// [`TopicError::NotFound`].
pub fn delete(tx: &mut Tx<'_>, id: TopicId) -> Result<Topic, TopicError> {
    let (record, _) = take(tx, id)?;
    let topic = Topic::of(id, record);
    for partition in topic.partition_ids() {
        tx.delete::<Mark>(&partition);
    }
    remains::leave(tx, id)?;
    Ok(topic)
}

/// Part of a command: takes a topic, its name and the heads of its partitions out of the map. All else stays.
///
/// # Errors
/// [`TopicError::NotFound`].
pub(crate) fn take(tx: &mut Tx<'_>, id: TopicId) -> Result<(TopicRecord, Vec<Head>), TopicError> {
    let record = tx.get::<TopicRecord>(&id)?.ok_or(TopicError::NotFound)?;
    let left = count_partitions(tx)?.saturating_sub(u64::from(record.partitions));
    tx.put(&PARTITIONS, &Counter(left));
    tx.delete::<TopicRecord>(&id);
    tx.delete::<TopicNumber>(&record.name);
    let mut heads = Vec::new();
    for index in 0..record.partitions {
        let partition = PartitionId::new(id, index);
        let head = tx.get::<Head>(&partition)?;
        heads.push(head.ok_or_else(|| DecodeError::corrupt(format!("partition {partition} has no head")))?);
        tx.delete::<Head>(&partition);
    }
    Ok((record, heads))
}

/// Part of a command: puts a topic back that was taken out, if its name is free and there is room.
///
/// # Errors
/// [`TopicError::NameTaken`], and as for [`create`].
pub(crate) fn put_back(
    tx: &mut Tx<'_>,
    id: TopicId,
    record: TopicRecord,
    heads: &[Head],
) -> Result<Topic, TopicError> {
    check_name(&record.name)?;
    if tx.get::<TopicNumber>(&record.name)?.is_some() {
        return Err(TopicError::NameTaken(record.name));
    }
    let partitions = check_place(tx, &record.name, record.partitions)?;
    tx.put(&id, &record);
    tx.put(&record.name, &TopicNumber(id));
    tx.put(&PARTITIONS, &Counter(partitions));
    let topic = Topic::of(id, record);
    if topic.partition_ids().len() != heads.len() {
        return Err(DecodeError::corrupt(format!("the deleted topic {id} has {} heads", heads.len())).into());
    }
    for (partition, head) in topic.partition_ids().zip(heads) {
        tx.put(&partition, head);
    }
    Ok(topic)
}

#[cfg(test)]
impl TopicRecord {
    pub(crate) fn for_tests(
        name: &str,
        partitions: u32,
        configs: BTreeMap<String, String>,
        created: Timestamp,
        uuid_high: u64,
    ) -> TopicRecord {
        TopicRecord { name: name.to_owned(), partitions, configs, created, uuid_high }
    }
}
