//! Measures what merging leaves: extents and objects in the metadata, and bytes written for each byte produced.
//!
//! `cargo run --release -p floe-log --example merging -- [large | small | tiny] [MiB]`
//!
//! - `large`: batches of 1 MiB to 16 partitions.
//! - `small`: batches of 10 records of 100 bytes to 1,000 partitions, all of them in each request.
//! - `tiny`: one record of 100 bytes to one of 16 partitions in each request, one after the other.
//!
//! Memory is counted as 216 bytes for an extent and 380 for an object, with the tree around them.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::extent::Extent;
use floe_log::object::Object;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Append, AppendTicket, Config, Log, MergeRound, PartitionId, Times, Writer};
use floe_meta::{MapRecord, MemoryJournal, Meta, Options};
use floe_store::local::{LocalStore, Options as StoreOptions};

/// Bytes of memory that an extent takes.
const EXTENT_BYTES: f64 = 216.0;
/// Bytes of memory that an object takes.
const OBJECT_BYTES: f64 = 380.0;
/// Requests without an answer.
const IN_FLIGHT: usize = 32;
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
    println!("| | extents | objects | encoded kB/GiB | memory kB/GiB | bytes written per byte |");
    println!("|---|---|---|---|---|---|");
    bench.row("as it came", produced, wal);
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
    bench.row("merged", produced, wal + merged);
    let rate = merged as f64 / took / f64::from(1 << 20);
    println!("{segments} segments, {} MiB read, in {took:.1} s: {rate:.0} MiB/s", read >> 20);
    bench.log.close().await;
}

struct Bench {
    env: Env,
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
        let journal = Arc::new(MemoryJournal::new());
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("the metadata opens");
        // It merges when told to, and nothing else goes on.
        let times = Times {
            merge_pause: NEVER,
            cleaner_pause: NEVER,
            retention_pause: NEVER,
            ..Config::default().times
        };
        let config = Config { sole: true, times, ..Config::default() };
        let log = Log::open(env.clone(), meta, store, config).await.expect("the log opens");
        let configs = [
            ("max.message.bytes".to_owned(), (4 << 20).to_string()),
            ("retention.ms".to_owned(), "-1".to_owned()),
        ];
        let new = NewTopic { name: "bench".into(), partitions, configs: configs.into() };
        let topic = log.create_topic(&writer(), new, false).await.expect("the topic is new");
        Bench { env, log, partitions: topic.partition_ids().collect() }
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

    fn row(&self, what: &str, produced: u64, written: u64) {
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
        let gibibytes = produced as f64 / f64::from(1 << 30);
        let memory = f64::from(extents) * EXTENT_BYTES + f64::from(objects) * OBJECT_BYTES;
        println!(
            "| {what} | {extents} | {objects} | {:.1} | {:.1} | {:.3} |",
            encoded as f64 / 1e3 / gibibytes,
            memory / 1e3 / gibibytes,
            written as f64 / produced as f64
        );
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
