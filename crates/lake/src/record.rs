//! What the metadata map knows of tables. The layouts are persisted: new fields come with a new version.

use std::collections::BTreeMap;

use floe_log::ids::{Offset, PartitionId, TopicId};
use floe_meta::{DecodeError, Key, KeyReader, Lookup, Timestamp, key, postcard_record};
use floe_schema::TableSchema;
use serde::{Deserialize, Serialize};

/// The table of a topic: a pointer to its current metadata document, and what is often asked. Written by every commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The Iceberg table's uuid.
    pub uuid: u128,
    /// The topic's name when the table was made; part of the keys of its files.
    pub name: String,
    /// The key of the current metadata document.
    pub metadata: String,
    /// The key of the current snapshot's manifest list; none before the first snapshot.
    pub manifest_list: Option<String>,
    /// The current snapshot.
    pub snapshot_id: Option<i64>,
    /// Snapshots committed so far, expired ones included.
    pub snapshots: u64,
    /// File numbers below this are known to the table or to the garbage.
    pub next_file: u64,
    /// Data files in the current snapshot.
    pub files: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Bytes of data files in the current snapshot.
    pub bytes: u64,
    /// Records that were no rows so far.
    pub bad_records: u64,
}

/// The next offset of a partition that the table's view will read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// All records below it are rows, or were bad.
    pub next: i64,
}

/// What a view needs to go on, apart from progress; written when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewState {
    /// The topic's name when the view began; part of the keys of its files.
    pub name: String,
    /// The schema of the current snapshot.
    pub schema: TableSchema,
    /// The first file number that the owner took; what former owners left below it is in the garbage already.
    pub numbers_from: u64,
    /// The end of the range of file numbers that the owner may use.
    pub numbers_end: u64,
    /// The epoch of the lease under which the range was taken.
    pub epoch: u64,
}

/// Files that no snapshot names, deleted from the store once their grace is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garbage {
    /// These files.
    Files(Vec<String>),
    /// Whatever was written under these numbers by an owner that is gone.
    Numbers {
        /// The name in the table's folder.
        name: String,
        /// The first number.
        from: u64,
        /// The number after the last.
        to: u64,
    },
    /// A whole table.
    Table(Box<Table>),
    /// The data files that a manifest says were taken out. They may be more than an entry of the journal can name.
    Removed {
        /// The name in the table's folder.
        name: String,
        /// The key of the manifest. It is garbage later than this.
        manifest: String,
    },
}

/// When files became garbage, of which topic, and a number that keeps records of one commit apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GarbageKey {
    /// Time of the commit.
    pub since: Timestamp,
    /// The topic of the table.
    pub topic: TopicId,
    /// Counts the records of one commit.
    pub number: u32,
}

postcard_record!(Table, 40, 1, TopicId);
postcard_record!(Progress, 41, 1, PartitionId);
postcard_record!(ViewState, 42, 1, TopicId);
postcard_record!(Garbage, 43, 1, GarbageKey);

impl Key for GarbageKey {
    fn encode(&self, out: &mut Vec<u8>) {
        key::put_i64(out, self.since.0);
        key::put_u64(out, self.topic.0);
        key::put_u32(out, self.number);
    }

    fn decode(bytes: &[u8]) -> Result<GarbageKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let (since, topic, number) = (Timestamp(reader.i64()?), TopicId(reader.u64()?), reader.u32()?);
        reader.finish().map(|()| GarbageKey { since, topic, number })
    }
}

/// The progress of all partitions of a topic that have any.
///
/// # Errors
/// A record cannot be read.
pub fn progress(map: &impl Lookup, topic: TopicId) -> Result<BTreeMap<u32, Offset>, DecodeError> {
    let range = PartitionId::new(topic, 0)..=PartitionId::new(topic, u32::MAX);
    map.range::<Progress>(range)
        .map(|found| found.map(|(partition, progress)| (partition.index, Offset(progress.next))))
        .collect()
}

#[cfg(test)]
mod tests {
    use floe_meta::Record;
    use floe_schema::Kind;

    use super::*;

    fn check<R: Record + PartialEq + std::fmt::Debug>(record: &R, golden: &str) {
        let mut body = Vec::new();
        record.encode(&mut body);
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "persisted: a change needs a new version");
        assert_eq!(&R::decode(R::VERSION, &body).expect("just encoded"), record);
    }

    // The bytes below are in users' journals and never change.
    #[test]
    fn records_are_as_they_were() {
        let table = Table {
            uuid: 1,
            name: "t".into(),
            metadata: "m".into(),
            manifest_list: Some("l".into()),
            snapshot_id: Some(-3),
            snapshots: 4,
            next_file: 5,
            files: 6,
            rows: 300,
            bytes: 8,
            bad_records: 9,
        };
        check(&table, "010174016d01016c01050405 06ac020809".replace(' ', "").as_str());
        check(&Progress { next: 300 }, "d804");
        let schema = TableSchema::new(Kind::Json);
        let state = ViewState { name: "t".into(), schema, numbers_from: 1, numbers_end: 256, epoch: 3 };
        check(&state, "0174000008000001800203");
        check(&Garbage::Files(vec!["a".into()]), "00010161");
        check(&Garbage::Numbers { name: "t".into(), from: 1, to: 2 }, "0101740102");
        check(&Garbage::Removed { name: "t".into(), manifest: "m".into() }, "030174016d");
    }

    #[test]
    fn garbage_is_ordered_by_time() {
        let key = GarbageKey { since: Timestamp(5), topic: TopicId(2), number: 1 };
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        assert_eq!(GarbageKey::decode(&bytes), Ok(key));
        let mut later = Vec::new();
        GarbageKey { since: Timestamp(6), topic: TopicId(0), number: 0 }.encode(&mut later);
        assert!(bytes < later);
    }
}
