//! Records that are no rows, on their way to the dead-letter topic: `<topic>.dead-letter`, one partition.
//!
//! Key, value, headers and timestamp are as they came; headers say why and from where: `floe.reason`, `floe.topic`,
//! `floe.partition`, `floe.offset`. They become visible in the commit that moves the view's progress past them, so
//! each is there exactly once.

use bytes::Bytes;
use floe_log::{PartitionId, codec::Compression, records::Builder, topic::Topic};

use crate::{encode::DeadLetter, limits};

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

/// The letters as batches of the dead-letter topic.
pub(crate) fn batches(letters: &[DeadLetter], from: &str, to: &Topic) -> Vec<(PartitionId, Bytes)> {
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
