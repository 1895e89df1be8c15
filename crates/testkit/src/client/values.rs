//! The records of a run: each has a value that no other record has, and the record's bytes tell it again.

use bytes::Bytes;
use floe_log::codec::Compression;
use floe_log::records::Builder;

use crate::dice::Dice;

/// A partition by the name of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name of the topic.
    pub topic: &'static str,
    /// Whether the topic has a table, so that its records are JSON.
    pub table: bool,
    /// The index of the partition.
    pub index: u32,
}

impl Place {
    /// The name of the partition in the history.
    pub fn name(&self) -> String {
        format!("{}/{}", self.topic, self.index)
    }
}

/// What a record without JSON begins with.
const NOT_JSON: &str = "not JSON: ";

/// The bytes of a record with this value. In a topic with a table most are JSON objects of changing shape, and some are
/// not JSON at all.
pub fn record(dice: &Dice, value: &str, table: bool) -> String {
    if !table {
        return value.to_owned();
    }
    if dice.chance(60) {
        return format!("{NOT_JSON}{value}");
    }
    let n = dice.within(0..1_000);
    let rest = match dice.within(0..8) {
        0 => String::new(),
        1 => format!(r#","n":{n}"#),
        2 => format!(r#","n":{n}.5"#),
        3 => format!(r#","n":"{n}""#),
        4 => format!(r#","at":"2026-01-0{}T10:00:00Z""#, 1 + n % 9),
        5 => format!(r#","nested":{{"a":{n},"b":[{n},2]}}"#),
        6 => format!(r#","nested":{{"c":"x{n}"}}"#),
        _ => r#","n":null,"flag":true"#.to_owned(),
    };
    format!(r#"{{"id":"{value}"{rest}}}"#)
}

/// The value of a record's bytes.
pub fn value_of(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    if let Some(value) = text.strip_prefix(NOT_JSON) {
        return value.to_owned();
    }
    let id = text.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
    id.unwrap_or(&text).to_owned()
}

/// A batch of these records, of an idempotent producer if there is one: its id, epoch and the first sequence number.
pub fn batch(dice: &Dice, time: i64, records: &[String], producer: Option<(i64, i16, i32)>) -> Bytes {
    let codec = *dice.pick(&[Compression::None, Compression::None, Compression::Zstd, Compression::Lz4]);
    let mut builder = Builder::new(codec);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for record in records {
        builder.push(time, Some(b"k"), Some(record.as_bytes()), &[]);
    }
    builder.build()
}
