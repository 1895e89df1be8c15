//! A month of a small stream, in simulated time: `cargo run --release -p floe-lake --example month_of_files -- [DAYS]
//! [MERGE_FILES]`.
//!
//! Ten records a second go into a topic of four partitions whose table has the default settings. Each line is the state
//! at the end of a day: files of the table, its manifests and its metadata document, and what was written so far. With
//! MERGE_FILES 0 nothing is merged. The last lines are a whole scan of the table. Every figure is a count, so it does
//! not depend on the machine. `bench/month-of-files` runs it with and without.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    error::Error,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_lake::{Config, Lake, TableRef, data_file, unread, unread_by_rebuild};
use floe_log::{
    Append, Log, PartitionId, Writer,
    codec::Compression,
    records::Builder,
    topic::{NewTopic, Topic},
};
use floe_meta::{MemoryJournal, Meta};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};
use tokio::time::sleep;

type Failure = Box<dyn Error + Send + Sync>;

const PARTITIONS: u32 = 4;
const RECORDS_A_SECOND: u64 = 10;
/// A client sends so many seconds of records at once.
const SECONDS_A_SEND: u64 = 2;
const DAY: u64 = 86_400;
const MIB: f64 = 1_048_576.0;

/// A store in memory that counts what is put into the lake, and what is read.
struct Counted {
    store: MemoryStore,
    data_files: AtomicU64,
    data_bytes: AtomicU64,
    documents: AtomicU64,
    document_bytes: AtomicU64,
    gets: AtomicU64,
    get_bytes: AtomicU64,
}

impl Counted {
    fn new(store: MemoryStore) -> Counted {
        let zero = AtomicU64::default;
        let (data_files, data_bytes, documents, document_bytes) = (zero(), zero(), zero(), zero());
        Counted { store, data_files, data_bytes, documents, document_bytes, gets: zero(), get_bytes: zero() }
    }
}

#[async_trait]
impl Store for Counted {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        let bytes = payload.iter().map(|part| part.len() as u64).sum();
        let (count, sum) = match key.ends_with(".parquet") {
            true => (&self.data_files, &self.data_bytes),
            false => (&self.documents, &self.document_bytes),
        };
        if key.starts_with("lake/") {
            count.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(bytes, Ordering::Relaxed);
        }
        self.store.put(key, payload).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.store.put_if_absent(key, payload).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let bytes = self.store.get(key, range).await?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.get_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.store.size(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix, after, count).await
    }

    fn url(&self, key: &str) -> String {
        self.store.url(key)
    }

    fn remote(&self) -> bool {
        self.store.remote()
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let days: u64 = arguments.next().map_or(Ok(30), |days| days.parse())?;
    let merge_files: usize = arguments.next().map_or(Ok(floe_lake::limits::MERGE_FILES), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(run(days, merge_files))
}

async fn run(days: u64, merge_files: usize) -> Result<(), Failure> {
    let env = Env::simulated(1);
    let store = Arc::new(Counted::new(MemoryStore::new()));
    let kept: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), floe_meta::Options::default()).await?;
    let log = Log::open(env.clone(), meta, kept, floe_log::Config::default()).await?;
    log.enforce_retention(vec![unread, unread_by_rebuild]);
    let lake = Lake::start(env.clone(), log.clone(), Config { merge_files, ..Config::default() });
    let settings = [
        ("floe.table", "json"),
        ("floe.retention.wait.for.views", "true"),
        ("retention.ms", "3600000"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let configs = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = NewTopic { name: "stream".to_owned(), partitions: PARTITIONS, configs };
    let topic = log.create_topic(&Writer::new("User:example", "example"), new, false).await?;
    println!(
        "day       rows  files  small  manifests  metadata KiB | put: data files  MiB  documents  MiB | stored objects"
    );
    for day in 1..=days {
        for send in 0..DAY / SECONDS_A_SEND {
            produce(&log, &topic, (day - 1) * DAY / SECONDS_A_SEND + send).await?;
            sleep(Duration::from_secs(SECONDS_A_SEND)).await;
        }
        report(day, &lake, &store).await?;
    }
    sleep(Duration::from_secs(60)).await;
    scan(&lake, &store).await?;
    Ok(())
}

async fn produce(log: &Log, topic: &Topic, send: u64) -> Result<(), Failure> {
    let mut builder = Builder::new(Compression::Zstd);
    let count = RECORDS_A_SECOND * SECONDS_A_SEND;
    for id in send * count..(send + 1) * count {
        // A hash, so that the values do not compress to nothing.
        let mixed = (id + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ id.wrapping_mul(0xD1B5_4A32_D192_ED03).rotate_left(29);
        let (name, x) = (mixed % 5_000, (mixed >> 20) as f64 / 1e9);
        let row = format!("{{\"id\":{id},\"name\":\"n{name}\",\"at\":\"2026-01-01T00:00:00Z\",\"x\":{x}}}");
        builder.push(0, None, Some(row.as_bytes()), &[]);
    }
    let partition = PartitionId::new(topic.id, (send % u64::from(PARTITIONS)) as u32);
    let batches = vec![(partition, builder.build())];
    for result in log.append(Append { writer: Writer::new("User:example", "example"), batches }).await {
        result?;
    }
    Ok(())
}

fn table(lake: &Lake) -> Result<TableRef, Failure> {
    Ok(lake.table(&lake.log().meta().snapshot(), "stream")?.ok_or("the topic is a table")?)
}

async fn report(day: u64, lake: &Lake, store: &Counted) -> Result<(), Failure> {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let puts =
        (of(&store.data_files), of(&store.data_bytes), of(&store.documents), of(&store.document_bytes));
    let table = table(lake)?;
    let files = lake.data_files(&table).await?;
    let small = files.iter().filter(|file| file.bytes < floe_lake::limits::MERGE_BYTES_MAX / 2).count();
    let everything = lake.everything(&table).await?;
    let location = table.metadata_location.as_deref().unwrap_or_default();
    let document = everything.iter().find(|key| location.ends_with(key.as_str())).ok_or("a document")?;
    let metadata = store.size(document).await?;
    let list = lake.metadata(&table).await?.ok_or("a document")?;
    let list = list.current_snapshot().ok_or("a snapshot")?.manifest_list.clone();
    let list = everything.iter().find(|key| list.ends_with(key.as_str())).ok_or("a list")?;
    let manifests = floe_iceberg::read_manifest_list(&store.store.get(list, None).await?)?.len();
    println!(
        "{day:3} {:10} {:6} {small:6} {manifests:10} {:13.1} | {:15} {:4.0} {:10} {:4.0} | {:14}",
        table.rows,
        files.len(),
        metadata as f64 / 1024.0,
        puts.0,
        puts.1 as f64 / MIB,
        puts.2,
        puts.3 as f64 / MIB,
        store.store.keys().iter().filter(|key| key.starts_with("lake/")).count(),
    );
    Ok(())
}

/// Reads the whole table.
async fn scan(lake: &Lake, store: &Counted) -> Result<(), Failure> {
    let table = table(lake)?;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let before = (of(&store.gets), of(&store.get_bytes));
    let mut rows = 0;
    for file in lake.data_files(&table).await?.iter() {
        let bytes = store.get(&file.key, None).await?;
        rows += data_file::read(bytes, &table.schema)?.iter().map(|batch| batch.num_rows()).sum::<usize>();
    }
    println!(
        "a whole scan: {rows} rows of {} in {} files of {:.1} MiB, {} reads of {:.1} MiB",
        table.rows,
        table.files,
        table.bytes as f64 / MIB,
        of(&store.gets) - before.0,
        (of(&store.get_bytes) - before.1) as f64 / MIB,
    );
    Ok(())
}
