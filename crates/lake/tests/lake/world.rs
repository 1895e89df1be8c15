//! A broker's log and lake over a shared store and journal, and the checks that hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use floe_env::Env;
use floe_iceberg::{read_manifest, read_manifest_list};
use floe_lake::{Config, Lake, TableRef, map::Table};
use floe_log::{
    self, Append, Log, Offset, PartitionId, Writer, WriterNumber,
    codec::Compression,
    records::Builder,
    topic::{NewTopic, Topic},
};
use floe_meta::{Journal, MemoryJournal, Meta, Options};
use floe_store::{MemoryStore, Store};
use serde_json::{Map, Value};

/// What outlives every broker.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) store: MemoryStore,
    pub(crate) journal: MemoryJournal,
}

impl Ground {
    pub(crate) fn new() -> Ground {
        Ground { store: MemoryStore::new(), journal: MemoryJournal::new() }
    }

    pub(crate) async fn broker(&self, env: Env) -> Broker {
        Broker::open(env, Arc::new(self.store.clone()), Arc::new(self.journal.clone())).await
    }

    pub(crate) async fn broker_with(&self, env: Env, config: Config) -> Broker {
        let (store, journal) = (Arc::new(self.store.clone()), Arc::new(self.journal.clone()));
        Broker::open_with(env, store, journal, config).await
    }
}

#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) log: Log,
    pub(crate) lake: Lake,
}

pub(crate) fn config() -> Config {
    Config { snapshots_kept: SNAPSHOTS_KEPT, ..Config::default() }
}

pub(crate) fn writer() -> Writer {
    Writer::new("User:test", "test")
}

/// A deletion is for good, unless the topic says otherwise.
fn config_of_log() -> floe_log::Config {
    let trash = floe_log::deleted::Trash { ms: 0, ..Default::default() };
    floe_log::Config { trash, ..floe_log::Config::default() }
}

impl Broker {
    pub(crate) async fn open(env: Env, store: Arc<dyn Store>, journal: Arc<dyn Journal>) -> Broker {
        Broker::open_with(env, store, journal, config()).await
    }

    pub(crate) async fn open_with(
        env: Env,
        store: Arc<dyn Store>,
        journal: Arc<dyn Journal>,
        config: Config,
    ) -> Broker {
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("the journal opens");
        let log = Log::open(env.clone(), meta, store, config_of_log()).await.expect("the log opens");
        let lake = Lake::start(env.clone(), log.clone(), config);
        Broker { log, lake }
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Topic {
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.to_owned(), partitions, configs };
        self.log.create_topic(&writer(), new, false).await.expect("the topic is new")
    }

    /// Appends one batch with these values.
    pub(crate) async fn produce<V: AsRef<[u8]>>(&self, topic: &Topic, partition: u32, values: &[V]) {
        let mut builder = Builder::new(Compression::Zstd);
        for (n, value) in values.iter().enumerate() {
            builder.push(1_000 + n as i64, Some(b"k"), Some(value.as_ref()), &[]);
        }
        let batches = vec![(PartitionId::new(topic.id, partition), builder.build())];
        let results = self.log.append(Append { writer: writer(), batches }).await;
        for result in results {
            result.expect("the log takes the batch");
        }
    }

    pub(crate) fn table(&self, name: &str) -> TableRef {
        let snapshot = self.log.meta().snapshot();
        self.lake.table(&snapshot, name).expect("the metadata can be read").expect("the topic is a table")
    }

    /// Waits until the table has everything that is in the log now.
    pub(crate) async fn settled(&self, name: &str) -> TableRef {
        for _ in 0..10_000 {
            let snapshot = self.log.meta().snapshot();
            let table = self.table(name);
            let behind = table.topic.partition_ids().any(|partition| {
                let end = Log::bounds(&snapshot, partition).expect("the partition exists").high_watermark;
                table.progress.get(&partition.index).copied().unwrap_or(Offset::ZERO) < end
            });
            if !behind && table.metadata_location.is_some() {
                return table;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the table {name} does not catch up: {:?}", self.lake.status());
    }

    /// Waits until no table needs a job any more.
    pub(crate) async fn jobs_done(&self) {
        for _ in 0..10_000 {
            let tables = self.lake.tables(&self.log.meta().snapshot()).expect("the metadata can be read");
            let mut needs = false;
            for table in &tables {
                needs |= self.lake.is_rewriting(table).await.expect("it can be read");
            }
            if !needs {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("a job is not done: {:?}", self.lake.status());
    }

    /// Waits until no view of this broker needs a job any more.
    pub(crate) async fn merged(&self) {
        for _ in 0..10_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.lake.status().iter().all(|view| view.job.is_none() && view.lag == 0) {
                return;
            }
        }
        panic!("a job is not done: {:?}", self.lake.status());
    }

    /// In every live file, the rows of a partition are in the order of their offsets.
    pub(crate) async fn check_order(&self, name: &str) {
        let table = self.table(name);
        for file in self.lake.data_files(&table).await.expect("the manifests can be read").iter() {
            let bytes = self.log.store().get(&file.key, None).await.expect("a live file exists");
            let batches = floe_lake::data_file::read(bytes, &table.schema).expect("a live file can be read");
            let mut last: BTreeMap<i64, i64> = BTreeMap::new();
            for (partition, offset) in batches.iter().flat_map(as_json).map(|row| position(&row)) {
                let before = last.insert(partition, offset);
                assert!(before.is_none_or(|before| before < offset), "{}: {partition}/{offset}", file.key);
            }
        }
    }

    /// The rows of the table's current files as JSON, sorted by partition and offset.
    pub(crate) async fn rows(&self, table: &TableRef) -> Vec<Value> {
        let mut rows = Vec::new();
        for file in self.lake.data_files(table).await.expect("the manifests can be read").iter() {
            let bytes = self.log.store().get(&file.key, None).await.expect("a live file exists");
            assert_eq!(bytes.len() as u64, file.bytes, "{}", file.key);
            let batches = floe_lake::data_file::read(bytes, &table.schema).expect("a live file can be read");
            let count: usize = batches.iter().map(|batch| batch.num_rows()).sum();
            assert_eq!(count as u64, file.records, "{}", file.key);
            rows.extend(batches.iter().flat_map(as_json));
        }
        rows.sort_by_key(position);
        rows
    }

    /// The records of the topic: position and value, as the log has them.
    pub(crate) async fn records(&self, topic: &Topic) -> BTreeMap<(i64, i64), Bytes> {
        let snapshot = self.log.meta().snapshot();
        let mut records = BTreeMap::new();
        for partition in topic.partition_ids() {
            let bounds = Log::bounds(&snapshot, partition).expect("the partition exists");
            let mut at = bounds.log_start;
            while at < bounds.high_watermark {
                let read =
                    self.log.read(&snapshot, partition, at, 1 << 20).await.expect("the log can be read");
                for batch in &read.batches {
                    for record in batch.records(1 << 30).expect("a test's batch can be taken apart") {
                        let key = (i64::from(partition.index), record.offset.0);
                        records.insert(key, record.value.unwrap_or_default());
                    }
                    at = batch.next_offset();
                }
            }
        }
        records
    }

    /// At every snapshot that the table still has, the files hold exactly the JSON records below the snapshot's
    /// offsets, each once, and every cell has the value of its record.
    pub(crate) async fn check_every_snapshot(&self, name: &str) {
        let table = self.table(name);
        let records = self.records(&table.topic).await;
        let metadata = self.lake.metadata(&table).await.expect("it can be read").expect("the table was made");
        let snapshots = metadata.snapshots();
        let offsets = |properties: &BTreeMap<String, String>, name: &str| -> BTreeMap<i64, i64> {
            let offsets: BTreeMap<String, i64> =
                serde_json::from_str(&properties[name]).expect("offsets are JSON");
            offsets.into_iter().map(|(p, o)| (p.parse().expect("a partition"), o)).collect()
        };
        // The offsets before the kept snapshots: where the first kept snapshot that moved a partition began.
        let mut upto: BTreeMap<i64, i64> =
            table.progress.iter().map(|(p, offset)| (i64::from(*p), offset.0)).collect();
        for snapshot in snapshots.iter().rev() {
            upto.extend(offsets(&snapshot.summary.additional_properties, "floe.offsets-from"));
        }
        for snapshot in snapshots {
            let summary = &snapshot.summary.additional_properties;
            upto.extend(offsets(summary, "floe.offsets-to"));
            let expected: Vec<(i64, i64)> = records
                .iter()
                .filter(|((p, o), value)| *o < upto.get(p).copied().unwrap_or(0) && is_row(value))
                .map(|(position, _)| *position)
                .collect();
            let mut found = Vec::new();
            for key in live_files(&self.log, &snapshot.manifest_list).await {
                let bytes = self.log.store().get(&key, None).await.expect("a live file exists");
                let batches = floe_lake::data_file::read(bytes, &table.schema).expect("it can be read");
                found.extend(batches.iter().flat_map(as_json).map(|row| (position(&row), row)));
            }
            found.sort_by_key(|(position, _)| *position);
            let positions: Vec<(i64, i64)> = found.iter().map(|(position, _)| *position).collect();
            assert_eq!(positions, expected, "snapshot {} of {name}", snapshot.sequence_number);
            for (position, row) in &found {
                let record = &records[position];
                assert!(shows(row, record), "snapshot {}: {row} of {record:?}", snapshot.sequence_number);
            }
            assert_eq!(summary["total-records"], expected.len().to_string());
        }
    }

    /// Every object of the lake is named by the table's documents, by garbage, or by a leased number.
    pub(crate) async fn check_no_orphans(&self, store: &MemoryStore) {
        let snapshot = self.log.meta().snapshot();
        let waste = self.lake.waste(&snapshot).await.expect("the garbage can be read");
        let mut named: BTreeSet<String> = waste.into_iter().collect();
        for table in self.lake.tables(&snapshot).expect("the metadata can be read") {
            let record = snapshot.get::<Table>(&table.topic.id).expect("it can be read");
            let Some(record) = record else { continue };
            named.insert(record.metadata.clone());
            let metadata = self.lake.metadata(&table).await.expect("it can be read").expect("it was made");
            let folder = metadata.location().trim_start_matches("memory:///").to_owned();
            let key = |url: &str| url.trim_start_matches("memory:///").to_owned();
            named.extend(metadata.metadata_log().iter().map(|log| key(&log.metadata_file)));
            for kept in metadata.snapshots() {
                named.insert(key(&kept.manifest_list));
                let list = self.log.store().get(&key(&kept.manifest_list), None).await.expect("it exists");
                let list = read_manifest_list(&list).expect("it is a list");
                named.extend(list.iter().map(|manifest| key(&manifest.manifest_path)));
                named.extend(live_files(&self.log, &kept.manifest_list).await);
            }
            for object in store.keys().into_iter().filter(|object| object.starts_with(&folder)) {
                let file = object.rsplit('/').next().expect("a name");
                let digits = file.find(|c: char| !c.is_ascii_digit()).expect("more than a number");
                let number: u64 = file[..digits].parse().expect("a number");
                let known = named.contains(&object) || number >= WriterNumber::count(record.next_file);
                assert!(known, "{object} belongs to nobody");
            }
        }
    }
}

/// Keys of the live data files of a snapshot.
pub(crate) async fn live_files(log: &Log, list: &str) -> Vec<String> {
    let key = |url: &str| url.trim_start_matches("memory:///").to_owned();
    let bytes = log.store().get(&key(list), None).await.expect("a manifest list exists");
    let list = read_manifest_list(&bytes).expect("it is a manifest list");
    let mut files = Vec::new();
    for manifest in list {
        let bytes = log.store().get(&key(&manifest.manifest_path), None).await.expect("a manifest exists");
        let entries = read_manifest(&bytes).expect("it is a manifest");
        let live = entries.iter().filter(|entry| entry.is_alive());
        files.extend(live.map(|entry| key(&entry.data_file.file_path)));
    }
    files
}

pub(crate) fn is_row(value: &[u8]) -> bool {
    value.is_empty() || serde_json::from_slice::<serde_json::Map<String, Value>>(value).is_ok()
}

pub(crate) fn position(row: &Value) -> (i64, i64) {
    let number = |name: &str| row[name].as_i64().expect("a system column");
    (number("_partition_id"), number("_offset"))
}

/// Whether a row holds the members of its record, each in its column or as text in the one beside it, and nothing else.
fn shows(row: &Value, record: &[u8]) -> bool {
    let members: Map<String, Value> = match record {
        [] => Map::new(),
        text => serde_json::from_slice(text).expect("it is a row"),
    };
    let mut columns = row.as_object().expect("a row is an object").clone();
    columns.retain(|name, _| !name.starts_with('_'));
    let shown = members.into_iter().filter(|(_, value)| !value.is_null()).all(|(name, value)| {
        match (columns.remove(&name), columns.remove(&format!("{name}_json"))) {
            (Some(cell), None) => same(&cell, &value),
            (None, Some(Value::String(text))) => serde_json::from_str::<Value>(&text).ok() == Some(value),
            _ => false,
        }
    });
    shown && columns.is_empty()
}

/// Equal, where 5 is 5.0.
fn same(cell: &Value, value: &Value) -> bool {
    match (cell, value) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let same_in_b =
                |(name, cell): (&String, &Value)| b.get(name).is_some_and(|value| same(cell, value));
            a.len() == b.len() && a.iter().all(same_in_b)
        }
        (cell, value) => cell == value,
    }
}

#[test]
fn a_lost_changed_or_foreign_cell_is_seen() {
    let record = br#"{"n":1,"l":[1],"t":9007199254740993}"#;
    let check = |row: &str| shows(&serde_json::from_str(row).expect("JSON"), record);
    assert!(check(r#"{"_offset":1,"n":1.0,"l":[1.0],"t_json":"9007199254740993"}"#));
    for wrong in [
        r#"{"l":[1],"t":9007199254740993}"#,
        r#"{"n":2,"l":[1],"t":9007199254740993}"#,
        r#"{"n":1,"l":[],"t":9007199254740993}"#,
        r#"{"n":1,"l":[1],"t":9007199254740992}"#,
        r#"{"n":1,"n_json":"1","l":[1],"t":9007199254740993}"#,
        r#"{"n":1,"l":[1],"t":9007199254740993,"other":1}"#,
    ] {
        assert!(!check(wrong), "{wrong} passed");
    }
}

/// Rows as JSON objects without nulls.
pub(crate) fn as_json(batch: &arrow::array::RecordBatch) -> Vec<Value> {
    let mut out = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut out);
    writer.write(batch).expect("a batch is JSON");
    writer.finish().expect("a batch is JSON");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// Few, so that tests see snapshots expire.
pub(crate) const SNAPSHOTS_KEPT: usize = 10;

/// A table that is fresher than by default, so that a test has several commits.
pub(crate) const JSON: &[(&str, &str)] = &[("floe.table", "json"), ("floe.table.freshness.ms", "1000")];
