//! Bad records on their way to the dead-letter topic: `<topic>.dead-letter`, with one partition.
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

use crate::{error::ViewError, limits};

/// What is appended to the name of a topic.
pub const SUFFIX: &str = ".dead-letter";

/// The topic for the bad records of `topic`; none for a dead-letter topic, whose bad records are only counted.
pub fn topic_of(topic: &str) -> Option<String> {
    if topic.ends_with(SUFFIX) {
        return None;
    }
    let room = floe_log::topic::NAME_BYTES_MAX - SUFFIX.len();
    Some(format!("{}{SUFFIX}", &topic[..topic.len().min(room)]))
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
    let Some(name) = topic_of(&from.name) else { return Ok(None) };
    let writer = Writer::new(Envelope::BROKER, view);
    let to = find_or_create(log, &writer, name).await?;
    let batches = batches(letters, &from.name, &to);
    Ok(Some(log.upload(Append { writer, batches }).await?))
}

async fn find_or_create(log: &Log, writer: &Writer, name: String) -> Result<Topic, ViewError> {
    let meta = log.meta();
    if let Some(found) = topic::by_name(&meta.snapshot(), &name)? {
        return Ok(found);
    }
    // Consumers take batches of any size. The limit is raised for those who copy the topic and produce its batches
    // elsewhere: a letter is larger than its record, and a record may be larger than the compressed batch it came in.
    let configs = [("floe.table", "off"), ("max.message.bytes", "2147483647")];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = NewTopic { name: name.clone(), partitions: 1, configs };
    match log.create_topic(writer, new, false).await {
        Err(TopicError::Exists(_)) => {
            Ok(topic::by_name(&meta.snapshot(), &name)?.ok_or(TopicError::NotFound)?)
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
