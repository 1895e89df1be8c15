//! Bad records on their way to the dead-letter topic: `<topic>.dead-letter`, with one partition. If the name collides
//! with that of another topic (`.` and `_` are one character there), `<topic>.dead-letter-2`, `-3` and so on are tried.
//!
//! Key, value, headers and timestamp stay as they are. Headers say why and from where: `floe.reason`, `floe.topic`,
//! `floe.partition`, `floe.offset`. The letters become visible in the commit that moves the view's progress past the
//! records, so each is there exactly once.

use bytes::Bytes;
use floe_log::{
    Append, Log, PartitionId, Writer,
    batch::Batch,
    codec::Compression,
    records::{Builder, Record},
    sequencer::Uploaded,
    topic::{self, NewTopic, Topic, TopicError},
};
use floe_meta::Envelope;
use tracing::warn;

use crate::{error::ViewError, limits};

/// What is appended to the name of a topic.
pub const SUFFIX: &str = ".dead-letter";

/// The topic for the bad records of `topic`, unless its name collides; none for a dead-letter topic, whose bad records
/// are only counted.
pub fn topic_of(topic: &str) -> Option<String> {
    topics_of(topic).into_iter().next()
}

/// The names for the dead-letter topic of `topic` in the order in which they are tried.
fn topics_of(topic: &str) -> Vec<String> {
    if is_dead_letter_topic(topic) {
        return Vec::new();
    }
    let name = |number: u32| {
        let suffix = if number == 1 { SUFFIX.to_owned() } else { format!("{SUFFIX}-{number}") };
        let room = floe_log::topic::NAME_BYTES_MAX - suffix.len();
        format!("{}{suffix}", &topic[..topic.len().min(room)])
    };
    (1..=limits::DEAD_LETTER_NAMES_MAX).map(name).collect()
}

fn is_dead_letter_topic(name: &str) -> bool {
    let numbered = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let unnumbered = numbered.strip_suffix('-').filter(|_| numbered.len() < name.len());
    name.ends_with(SUFFIX) || unnumbered.is_some_and(|name| name.ends_with(SUFFIX))
}

/// A bad record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Where it is in the log.
    partition: PartitionId,
    /// As it came. For a batch that cannot be decoded: the whole batch as the value.
    record: Record,
    /// What is wrong with it.
    reason: String,
}

impl DeadLetter {
    /// Partition and offset, and what is wrong with it, for people.
    pub(crate) fn place_and_reason(&self) -> (String, &str) {
        (format!("{} at {}", self.partition, self.record.offset), &self.reason)
    }

    /// A record that does not fit. The copy shares no memory with it: a slice would keep the whole batch, decompressed,
    /// until the commit.
    pub(crate) fn of_record(partition: PartitionId, record: &Record, reason: String) -> DeadLetter {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let header = |(key, value): &(Bytes, Option<Bytes>)| (copy(key), value.as_ref().map(copy));
        let record = Record {
            key: record.key.as_ref().map(copy),
            value: record.value.as_ref().map(copy),
            headers: record.headers.iter().map(header).collect(),
            ..*record
        };
        DeadLetter { partition, record, reason }
    }

    /// A batch that cannot be decoded.
    pub(crate) fn of_batch(partition: PartitionId, batch: &Batch, reason: String) -> DeadLetter {
        let record = Record {
            offset: batch.base_offset,
            timestamp: batch.header().max_timestamp,
            key: None,
            value: Some(batch.stamped()),
            headers: Vec::new(),
        };
        DeadLetter { partition, record, reason }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let DeadLetter { record, reason, .. } = self;
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record.headers.iter().map(|(key, value)| key.len() + of(value) + 100).sum();
        of(&record.key) + of(&record.value) + headers + reason.len() + 200
    }
}

/// Uploads the letters of `from` for the commit of the view that is called `view`. None if there is nothing to upload.
pub(crate) async fn upload(
    log: &Log,
    view: &str,
    from: &Topic,
    letters: &[DeadLetter],
) -> Result<Option<Uploaded>, ViewError> {
    if letters.is_empty() {
        return Ok(None);
    }
    let names = topics_of(&from.name);
    if names.is_empty() {
        return Ok(None);
    }
    let writer = Writer::new(Envelope::BROKER, view);
    let to = find_or_create(log, &writer, &names).await?;
    let batches = batches(letters, &from.name, &to);
    Ok(Some(log.upload(Append { writer, batches }).await?))
}

/// The topic with one of these names that is there, or else a new one with the first name that does not collide.
async fn find_or_create(log: &Log, writer: &Writer, names: &[String]) -> Result<Topic, ViewError> {
    let snapshot = log.meta().snapshot();
    for name in names {
        if let Some(found) = topic::by_name(&snapshot, name)? {
            return Ok(found);
        }
    }
    let mut collision = TopicError::NotFound;
    for name in names {
        match create(log, writer, name).await {
            Err(ViewError::DeadLetterTopic(error @ TopicError::InvalidName { .. })) => {
                warn!(topic = %name, %error, "the name for a dead-letter topic is taken, another is tried");
                collision = error;
            }
            created => return created,
        }
    }
    Err(collision.into())
}

async fn create(log: &Log, writer: &Writer, name: &str) -> Result<Topic, ViewError> {
    let meta = log.meta();
    // Consumers take batches of any size. The limit is raised for those who copy the topic and produce its batches
    // elsewhere: a letter is larger than its record, and a record may be larger than the compressed batch it came in.
    // A letter has the time of its record, which may be old already: it stays until somebody decides otherwise.
    let configs = [("floe.table", "off"), ("max.message.bytes", "2147483647"), ("retention.ms", "-1")];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = NewTopic { name: name.to_owned(), partitions: 1, configs };
    match log.create_topic(writer, new, false).await {
        Err(TopicError::Exists(_)) => {
            Ok(topic::by_name(&meta.snapshot(), name)?.ok_or(TopicError::NotFound)?)
        }
        created => Ok(created?),
    }
}

/// The letters as batches of the dead-letter topic.
fn batches(letters: &[DeadLetter], from: &str, to: &Topic) -> Vec<(PartitionId, Bytes)> {
    let mut batches = Vec::new();
    let mut open: Option<(PartitionId, Builder)> = None;
    for letter in letters {
        let partition = PartitionId::new(to.id, letter.partition.index % to.partitions);
        let full = |(of, builder): &mut (PartitionId, Builder)| {
            *of != partition || builder.size() >= limits::DEAD_LETTER_BATCH_BYTES
        };
        batches.extend(open.take_if(full).map(|(of, builder)| (of, builder.build())));
        let (_, builder) = open.get_or_insert_with(|| (partition, Builder::new(Compression::Zstd)));
        push(builder, letter, from);
    }
    batches.extend(open.map(|(of, builder)| (of, builder.build())));
    batches
}

fn push(builder: &mut Builder, letter: &DeadLetter, from: &str) {
    let partition = letter.partition.index.to_string();
    let offset = letter.record.offset.0.to_string();
    let mut headers: Vec<(&[u8], Option<&[u8]>)> =
        letter.record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
    headers.extend([
        (b"floe.reason".as_slice(), Some(letter.reason.as_bytes())),
        (b"floe.topic".as_slice(), Some(from.as_bytes())),
        (b"floe.partition".as_slice(), Some(partition.as_bytes())),
        (b"floe.offset".as_slice(), Some(offset.as_bytes())),
    ]);
    let record = &letter.record;
    builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_several_names_for_its_dead_letters_and_they_have_none() {
        let names = topics_of("a_b");
        assert_eq!(names[..3], ["a_b.dead-letter", "a_b.dead-letter-2", "a_b.dead-letter-3"]);
        assert_eq!(topic_of("a_b").as_deref(), Some("a_b.dead-letter"));
        let long = "x".repeat(floe_log::topic::NAME_BYTES_MAX);
        for name in names.into_iter().chain(topics_of(&long)) {
            assert!(name.len() <= floe_log::topic::NAME_BYTES_MAX, "{name}");
            assert_eq!(topic_of(&name), None, "{name}");
        }
        for other in ["dead-letter", "x.dead-letter-", "x.dead-letter-a", "x.dead-letter2", "x-2"] {
            assert!(topic_of(other).is_some(), "{other}");
        }
    }
}
