//! The records of a run. Each has a value that no other record has.

use bytes::Bytes;
use floe_log::batch::Batch;
use floe_log::codec::Compression;
use floe_log::extent::Outcome;
use floe_log::records::{Builder, Record, RecordsError};

use crate::dice::Dice;
use crate::history::Seen;
use crate::rows::{BAD, id_of, marker};

/// A partition by the name of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name of the topic.
    pub topic: &'static str,
    /// Whether the topic has a table. Then its records are JSON.
    pub table: bool,
    /// The index of the partition.
    pub index: u32,
    /// The topic's id, if the topic is one that is deleted and created again. All its incarnations have the same name.
    pub incarnation: Option<u128>,
}

impl Place {
    /// The name of the partition in the history.
    pub fn name(&self) -> String {
        format!("{}/{}", topic_name(self.topic, self.incarnation), self.index)
    }
}

/// The name of a topic in the history. A topic that is deleted and created again gets a `#` and the part of its id that
/// differs from other topics of the cluster.
pub(crate) fn topic_name(topic: &str, incarnation: Option<u128>) -> String {
    match incarnation {
        Some(id) => format!("{topic}#{}", id & u128::from(u64::MAX)),
        None => topic.to_owned(),
    }
}

/// Draws the value of the record `id`, which is the text of the record. In a topic with a table, most values are JSON
/// objects of changing shape, and some are not JSON at all.
pub(crate) fn draw(dice: &Dice, id: &str, table: bool) -> String {
    if !table {
        return id.to_owned();
    }
    if dice.chance(60) {
        return format!("{BAD}{id}");
    }
    let n = dice.within(0..1_000);
    let rest = match dice.within(0..12) {
        0 => String::new(),
        1 => format!(r#","n":{n}"#),
        2 => format!(r#","n":{n}.5"#),
        3 => format!(r#","n":"{n}""#),
        // More than a double can hold exactly.
        4 => format!(r#","n":{}"#, (1_u64 << 53) + 2 * n + 1),
        5 => format!(r#","at":"2026-01-0{}T10:00:00Z""#, 1 + n % 9),
        6 => format!(r#","at":"after {n} days""#),
        7 => format!(r#","nested":{{"a":{n},"b":[{n},2]}}"#),
        8 => format!(r#","nested":{{"c":"x{n}"}}"#),
        9 => r#","n":null,"flag":true"#.to_owned(),
        _ => late_double(dice, n),
    };
    format!(r#"{{"id":"{id}"{rest}}}"#)
}

/// One of several columns of whole numbers that becomes double late, when files hold it already.
fn late_double(dice: &Dice, n: u64) -> String {
    let column = dice.within(0..6);
    match dice.within(0..24) {
        0 => format!(r#","m{column}":{n}.5"#),
        1 => format!(r#","nested":{{"a":{n}.5,"b":[1,{n}.5]}}"#),
        2 => format!(r#","nested":[{n}]"#),
        _ => format!(r#","m{column}":{n}"#),
    }
}

/// Turns a record's bytes back into its value.
pub(crate) fn value_of(record: &[u8]) -> String {
    String::from_utf8_lossy(record).into_owned()
}

/// What a reader sees of a batch: its records, or the marker that it is.
pub(crate) fn seen(batch: &Batch, bytes_max: usize) -> Result<Vec<Seen>, RecordsError> {
    let value = |bytes: &Option<Bytes>| value_of(bytes.as_deref().unwrap_or_default());
    let records = batch.records(bytes_max)?;
    if !batch.header().is_control() {
        return Ok(records.iter().map(|record| (record.offset.0, value(&record.value))).collect());
    }
    // The last byte of the key is the type (KIP-98).
    let outcome = |record: &Record| match record.key.as_deref() {
        Some([0, 0, 0, 0]) => Outcome::Abort,
        Some([0, 0, 0, 1]) => Outcome::Commit,
        key => panic!("{key:?} is no key of a marker"),
    };
    let producer = batch.header().producer_id;
    Ok(records.iter().map(|record| (record.offset.0, marker(producer, outcome(record)))).collect())
}

/// A batch of records with these values. `producer` is the id, the epoch and the first sequence number of an idempotent
/// producer.
pub(crate) fn batch(dice: &Dice, time: i64, values: &[String], producer: Option<(i64, i16, i32)>) -> Bytes {
    let codec = *dice.pick(&[Compression::None, Compression::None, Compression::Zstd, Compression::Lz4]);
    let mut builder = Builder::new(codec);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for value in values {
        builder.push(time, Some(id_of(value).as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.build()
}
