//! The lake's records in the metadata map. They are persisted: a new field needs a new version.
//!
//! ```text
//! key 40 Table      topic id                         -> pointer to the metadata document, totals
//! key 41 Progress   topic id | partition index       -> next offset (floe_view)
//! key 42 ViewState  topic id                         -> schema, range of file numbers
//! key 43 Garbage    time | topic id | number         -> files to delete when their grace is over
//! key 44 Rebuild    topic id                         -> the table that is made anew beside the running one
//! key 45 Progress   topic id | partition index       -> its next offset (floe_view)
//! ```

use std::collections::BTreeMap;

use floe_env::Timestamp;
use floe_log::{Offset, TopicId, partition, topic::Topic};
use floe_meta::key::{self, Key, KeyReader};
use floe_meta::{DecodeError, Lookup, postcard_record};
use floe_schema::TableSchema;
use serde::{Deserialize, Serialize};

/// The table of a topic: a pointer to its current metadata document, and the totals that are often asked for. Every
/// commit writes it.
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
    /// Files with numbers below this belong to the table or to the garbage.
    pub next_file: u64,
    /// Data files in the current snapshot.
    pub files: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Bytes of data files in the current snapshot.
    pub bytes: u64,
    /// Records so far that did not fit the table.
    pub bad_records: u64,
}

/// The next offset that the view reads of a partition. Records below it are rows of the table, or did not fit.
pub type Progress = floe_view::Progress<41>;

/// What the next owner of a table needs, besides the table and the progress. Written when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewState {
    /// The topic's name when the view began; part of the keys of its files.
    pub name: String,
    /// The schema of the current snapshot.
    pub schema: TableSchema,
    /// The first file number that the owner took. Files of former owners below it are in the garbage already.
    pub numbers_from: u64,
    /// The end of the range of file numbers that the owner may use.
    pub numbers_end: u64,
    /// The epoch of the lease under which the range was taken.
    pub epoch: u64,
}

/// By partition, the offset below which the log has nothing any more. Partitions whose log is whole are not in it.
pub(crate) type LogStarts = BTreeMap<u32, i64>;

/// The partitions of a topic whose log does not begin at 0.
pub(crate) fn log_starts(map: &impl Lookup, topic: &Topic) -> Result<LogStarts, DecodeError> {
    let mut starts = LogStarts::new();
    for partition in topic.partition_ids() {
        if let Some(head) = partition::head(map, partition)?.filter(|head| head.log_start > Offset::ZERO) {
            starts.insert(partition.index, head.log_start.0);
        }
    }
    Ok(starts)
}

/// A table that is made anew from the log, beside the running one. It is there from the request until the new table
/// takes the place of the old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// The name of its folder.
    pub name: String,
    /// Whether rows may be lost that the log does not have any more, and whose files are damaged.
    pub lose: bool,
    /// By partition, where the log began at the request, unless that is 0. Rows below it come from the running table.
    pub starts: Vec<(u32, i64)>,
    /// Its pointer; none until it is made.
    pub table: Option<Table>,
    /// What its next owner needs; none before the first.
    pub state: Option<ViewState>,
}

/// As [`Progress`], of the table that is made anew.
pub type RebuildProgress = floe_view::Progress<45>;

/// Files that no snapshot names. They are deleted from the store when their grace is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garbage {
    /// These files.
    Files(Vec<String>),
    /// The files with these numbers, as far as they were written.
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
    /// The data files that a manifest has as deleted. They may be more than an entry of the journal can name.
    Removed {
        /// The name in the table's folder.
        name: String,
        /// The key of the manifest, which is garbage later than the files.
        manifest: String,
    },
}

/// The key of a [`Garbage`]: records are ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GarbageKey {
    /// When the files became garbage: the time of the commit.
    pub since: Timestamp,
    /// The topic of the table.
    pub topic: TopicId,
    /// Tells the records of one commit apart.
    pub number: u32,
}

postcard_record!(Table, 40, 1, TopicId);
postcard_record!(ViewState, 42, 1, TopicId);
postcard_record!(Garbage, 43, 1, GarbageKey);
postcard_record!(Rebuild, 44, 1, TopicId);

impl GarbageKey {
    /// The first key of a moment.
    pub(crate) fn first_of(since: Timestamp) -> GarbageKey {
        GarbageKey { since, topic: TopicId(0), number: 0 }
    }
}

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

#[cfg(test)]
mod tests {
    use floe_meta::MapRecord;
    use floe_schema::{Decoder, Kind, Row};

    use super::*;

    fn check<R: MapRecord + PartialEq + std::fmt::Debug>(record: &R, golden: &str) {
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
        check(&Garbage::Table(Box::new(table.clone())), "02010174016d01016c0105040506ac020809");
        let rebuild = Rebuild {
            name: "t.1".into(),
            lose: true,
            starts: vec![(2, 300)],
            table: Some(table),
            state: Some(state),
        };
        let golden = "03742e31 01 0102d804 01010174016d01016c0105040506ac020809 010174000008000001800203";
        check(&rebuild, golden.replace(' ', "").as_str());
    }

    /// A schema with every type, a column of text, one that replaced another, and keys of bytes.
    fn wide_schema() -> TableSchema {
        let first = r#"{"b":true,"i":1,"l":5000000000,"d":0.5,"s":"x","t":"2026-01-01T00:00:00Z","o":{"x":1},"a":[1],"w":1}"#;
        let second = r#"{"w":0.5,"b":"text"}"#;
        let mut decoder = Decoder::new(TableSchema::new(Kind::Json));
        for (offset, key, value) in [(0, b"k".as_slice(), first), (1, b"\xff", second)] {
            let (key, value) = (Some(key), Some(value.as_bytes()));
            let row = Row { partition: 0, offset, timestamp: 0, key, value, headers: &[] };
            decoder.push(&row).expect("it is a row");
        }
        decoder.finish().0
    }

    // As above: never changes. The types of columns are numbered in the order of their declaration.
    #[test]
    fn schemas_are_as_they_were() {
        let schema = wide_schema();
        let state = ViewState { name: "t".into(), schema, numbers_from: 1, numbers_end: 256, epoch: 3 };
        let golden = [
            // name, kind, version, last id, id of the column of bytes, number of keys
            "0174 00 03 24 0124 09",
            "0162 01 0a 0162 00 00 01 20 06625f6a736f6e",
            "0169 01 0c 0169 01 00 00",
            "016c 01 0e 016c 02 00 00",
            "0164 01 10 0164 03 00 00",
            "0173 01 12 0173 04 00 00",
            "0174 01 14 0174 05 00 00",
            "016f 01 16 016f 06 01 0178 01 18 0178 01 00 00 00 00",
            "0161 01 1a 0161 07 1c 01 00 00",
            "0177 01 22 0177 03 011e 00",
            // numbers, epoch
            "01 8002 03",
        ];
        check(&state, &golden.concat().replace(' ', ""));
    }

    #[test]
    fn garbage_is_ordered_by_time() {
        let key = GarbageKey { since: Timestamp(5), topic: TopicId(2), number: 1 };
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8000000000000005000000000000000200000001", "persisted: it never changes");
        assert_eq!(GarbageKey::decode(&bytes), Ok(key));
        let mut later = Vec::new();
        GarbageKey { since: Timestamp(6), topic: TopicId(0), number: 0 }.encode(&mut later);
        assert!(bytes < later);
    }
}
