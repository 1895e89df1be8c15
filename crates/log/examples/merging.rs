//! Measures what merging leaves: extents and objects in the metadata, bytes written for each byte produced, and what a
//! cold read of one partition costs before and after.
//!
//! `cargo run --release -p floe-log --example merging -- [large | small | tiny] [MiB]`
//!
//! - `large`: batches of 1 MiB to 16 partitions.
//! - `small`: batches of 10 records of 100 bytes to 1,000 partitions, all of them in each request.
//! - `tiny`: one record of 100 bytes to one of 16 partitions in each request, one after the other.
//!
//! Memory is counted as 216 bytes for an extent and 380 for an object, with the tree around them. A cold read asks for
//! 1 MiB at a time, as consumers do, of a log whose memory is empty and whose store counts as remote. Sources
//! are sorted 1 GiB at a time, so a measurement has some GiB. It takes three times that of the disk, in the current
//! directory.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::extent::Extent;
use floe_log::object::Object;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Append, AppendTicket, Config, Log, MergeRound, Offset, PartitionId, Times, Writer};
use floe_meta::{MapRecord, MemoryJournal, Meta, Options};
use floe_store::local::{LocalStore, Options as StoreOptions};
use floe_store::{Listed, PutIfAbsent, Store, StoreError};

/// Bytes of memory that an extent takes.
const EXTENT_BYTES: f64 = 216.0;
/// Bytes of memory that an object takes.
const OBJECT_BYTES: f64 = 380.0;
/// Requests without an answer.
const IN_FLIGHT: usize = 32;
/// Bytes of a cold read.
const READ_BYTES: usize = 1 << 20;
/// Longer than any measurement.
const NEVER: Duration = Duration::from_secs(100_000);
/// Bytes of the key of an extent, and of the version of its value.
const KEY_BYTES: usize = 22;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let load = arguments.next().unwrap_or_else(|| "large".to_owned());
    let mebibytes = arguments.next().map_or(1024, |amount| amount.parse().expect("a number"));
    let dir = tempfile::tempdir_in(".").expect("the current directory is writable");
    let partitions = if load == "small" { 1_000 } else { 16 };
    let bench = Bench::open(dir.path(), partitions).await;
    let (produced, wal) = match load.as_str() {
        "large" => bench.large(mebibytes << 20).await,
        "small" => bench.small(mebibytes << 20).await,
        _ => bench.tiny(mebibytes << 20).await,
    };
    println!("{load}, {mebibytes} MiB of batches, {partitions} partitions");
    println!(
        "| | extents | objects | encoded kB/GiB | memory kB/GiB | bytes written per byte | cold: GETs/GiB \
         | cold: bytes fetched per byte |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    bench.row("as it came", produced, wal).await;
    let begun = bench.env.monotonic();
    let (mut segments, mut merged, mut read) = (0, 0, 0);
    loop {
        let MergeRound { segments: more, bytes_in, bytes_out, more: again, .. } =
            bench.log.merge().await.expect("it merges");
        (segments, merged, read) = (segments + more, merged + bytes_out, read + bytes_in);
        if !again {
            break;
        }
    }
    let took = (bench.env.monotonic() - begun).as_secs_f64();
    bench.row("merged", produced, wal + merged).await;
    let rate = merged as f64 / took / f64::from(1 << 20);
    println!("{segments} segments, {} MiB read, in {took:.1} s: {rate:.0} MiB/s", read >> 20);
    bench.log.close().await;
}

struct Bench {
    env: Env,
    journal: MemoryJournal,
    store: Arc<LocalStore>,
    log: Log,
    partitions: Vec<PartitionId>,
}

fn batch(records: usize, bytes: usize) -> Bytes {
    let value: Vec<u8> = (0..bytes).map(|at| (at * 31) as u8).collect();
    let mut builder = Builder::new(Compression::None);
    for _ in 0..records {
        builder.push(1_767_225_600_000, None, Some(&value), &[]);
    }
    builder.build()
}

impl Bench {
    async fn open(dir: &Path, partitions: u32) -> Bench {
        let env = Env::real();
        let store = LocalStore::open(env.clone(), dir.join("store"), StoreOptions::default());
        let store = Arc::new(store.await.expect("the store opens"));
        let journal = MemoryJournal::new();
        let meta = Meta::open(env.clone(), Arc::new(journal.clone()), Options::default()).await;
        let meta = meta.expect("the metadata opens");
        // It merges when told to, and nothing else goes on.
        let times = Times {
            merge_pause: NEVER,
            cleaner_pause: NEVER,
            retention_pause: NEVER,
            ..Config::default().times
        };
        let config = Config { sole: true, times, ..Config::default() };
        let log = Log::open(env.clone(), meta, store.clone(), config).await.expect("the log opens");
        let configs = [
            ("max.message.bytes".to_owned(), (4 << 20).to_string()),
            ("retention.ms".to_owned(), "-1".to_owned()),
        ];
        let new = NewTopic { name: "bench".into(), partitions, configs: configs.into() };
        let topic = log.create_topic(&writer(), new, false).await.expect("the topic is new");
        Bench { env, journal, store, log, partitions: topic.partition_ids().collect() }
    }

    async fn large(&self, bytes: u64) -> (u64, u64) {
        let batch = batch(1_150, 900);
        let count = bytes / batch.len() as u64;
        let all = (0..count).map(|at| vec![(self.partitions[(at % 16) as usize], batch.clone())]);
        self.send(all, IN_FLIGHT).await
    }

    async fn small(&self, bytes: u64) -> (u64, u64) {
        let batch = batch(10, 100);
        let count = bytes / (batch.len() * self.partitions.len()) as u64;
        let each = || self.partitions.iter().map(|partition| (*partition, batch.clone())).collect();
        self.send((0..count).map(|_| each()), 4).await
    }

    async fn tiny(&self, bytes: u64) -> (u64, u64) {
        let batch = batch(1, 100);
        let count = bytes / batch.len() as u64;
        let all = (0..count).map(|at| vec![(self.partitions[(at % 16) as usize], batch.clone())]);
        self.send(all, 1).await
    }

    /// Sends all. Returns the bytes of the batches, and those of the objects.
    async fn send(
        &self,
        requests: impl Iterator<Item = Vec<(PartitionId, Bytes)>>,
        in_flight: usize,
    ) -> (u64, u64) {
        let (mut waiting, mut bytes): (VecDeque<AppendTicket>, u64) = (VecDeque::new(), 0);
        for batches in requests {
            bytes += batches.iter().map(|(_, batch)| batch.len() as u64).sum::<u64>();
            if waiting.len() >= in_flight {
                answered(waiting.pop_front().expect("there are some")).await;
            }
            waiting.push_back(self.log.append(Append { writer: writer(), batches }));
        }
        for ticket in waiting {
            answered(ticket).await;
        }
        let snapshot = self.log.meta().snapshot();
        let wal = snapshot.range::<Object>(..).map(|pair| pair.expect("it can be read").1.size).sum();
        (bytes, wal)
    }

    /// Reads one partition with a log whose memory is empty. Returns GETs, bytes fetched, and bytes of batches.
    async fn cold(&self) -> (u64, u64, u64) {
        let env = self.env.scope();
        let counted =
            Counted { inner: self.store.clone(), gets: AtomicU64::new(0), bytes: AtomicU64::new(0) };
        let counted = Arc::new(counted);
        let meta = Meta::open(env.clone(), Arc::new(self.journal.clone()), Options::default()).await;
        let config = Config { cleaner: false, ..Config::default() };
        let log = Log::open(env.clone(), meta.expect("the metadata opens"), counted.clone(), config).await;
        let log = log.expect("the log opens");
        counted.gets.store(0, Ordering::Relaxed);
        counted.bytes.store(0, Ordering::Relaxed);
        let (snapshot, mut from, mut returned) = (log.pin(), Offset::ZERO, 0);
        loop {
            let read =
                log.read(&snapshot, self.partitions[0], from, READ_BYTES).await.expect("it can be read");
            let Some(last) = read.batches.last() else { break };
            from = last.next_offset();
            returned += read.batches.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>();
        }
        let told = (counted.gets.load(Ordering::Relaxed), counted.bytes.load(Ordering::Relaxed), returned);
        log.close().await;
        env.abort_all();
        told
    }

    async fn row(&self, what: &str, produced: u64, written: u64) {
        let snapshot = self.log.meta().snapshot();
        let (mut extents, mut encoded) = (0, 0);
        for pair in snapshot.range::<Extent>(..) {
            let mut value = Vec::new();
            pair.expect("it can be read").1.encode(&mut value);
            (extents, encoded) = (extents + 1, encoded + KEY_BYTES + value.len());
        }
        let mut objects = 0;
        for pair in snapshot.range::<Object>(..) {
            let mut value = Vec::new();
            pair.expect("it can be read").1.encode(&mut value);
            (objects, encoded) = (objects + 1, encoded + 10 + value.len());
        }
        let (gets, fetched, returned) = self.cold().await;
        let gibibytes = produced as f64 / f64::from(1 << 30);
        let memory = f64::from(extents) * EXTENT_BYTES + f64::from(objects) * OBJECT_BYTES;
        println!(
            "| {what} | {extents} | {objects} | {:.1} | {:.1} | {:.3} | {:.0} | {:.2} |",
            encoded as f64 / 1e3 / gibibytes,
            memory / 1e3 / gibibytes,
            written as f64 / produced as f64,
            gets as f64 / (returned as f64 / f64::from(1 << 30)),
            fetched as f64 / returned as f64
        );
    }
}

/// A local store that counts its GETs, and that readers take for a remote one.
struct Counted {
    inner: Arc<LocalStore>,
    gets: AtomicU64,
    bytes: AtomicU64,
}

#[async_trait]
impl Store for Counted {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        self.inner.put(key, payload).await
    }
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.inner.put_if_absent(key, payload).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let got = self.inner.get(key, range).await?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(got.len() as u64, Ordering::Relaxed);
        Ok(got)
    }
    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after, count).await
    }
    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }
    fn remote(&self) -> bool {
        true
    }
}

async fn answered(ticket: AppendTicket) {
    for result in ticket.await {
        result.expect("it is appended");
    }
}

fn writer() -> Writer {
    Writer::new("User:bench", "merging")
}
