//! Measures appends to a local disk. Each append is answered only after its data and metadata are synced.
//!
//! `cargo run --release -p floe-log --example append -- [seconds] [clients] [in flight] [batch bytes] [partitions]`
//!
//! Every client keeps the given number of appends in flight, each of one batch. The output is the throughput, the
//! latency from call to answer, what reached the store, and how fast everything is read back. The first read-back
//! uses this broker, whose cache holds the newest part. The second uses a broker that has just started.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::object::Object;
use floe_log::records::Builder;
use floe_log::{
    Append, AppendTicket, Config, Log, Writer,
    topic::{NewTopic, Topic},
};
use floe_log::{Offset, PartitionId};
use floe_meta::{JournalOptions, Meta, Options, open_journal};
use floe_store::local::{LocalStore, Options as StoreOptions};
use tokio::time::Instant;

#[tokio::main]
async fn main() {
    let mut numbers =
        std::env::args().skip(1).map(|text| text.parse::<usize>().expect("arguments are numbers"));
    let mut number = |default: usize| numbers.next().unwrap_or(default);
    let (seconds, clients, in_flight) = (number(5), number(1), number(1));
    let (batch_bytes, partitions) = (number(16 << 10), number(1));

    let dir = tempfile::tempdir_in(".").expect("the current directory is writable");
    let env = Env::real();
    let store = LocalStore::open(env.clone(), dir.path().join("store"), StoreOptions::default());
    let store = store.await.expect("the store opens");
    std::fs::create_dir(dir.path().join("meta")).expect("created");
    let journal =
        open_journal(&env, &dir.path().join("meta"), JournalOptions::default()).expect("the journal opens");
    let meta =
        Meta::open(env.clone(), Arc::new(journal), Options::default()).await.expect("the metadata opens");
    let store = Arc::new(store);
    let log =
        Log::open(env.clone(), meta.clone(), store.clone(), Config::default()).await.expect("the log opens");
    let writer = Writer::new("User:example", "append");
    let new = NewTopic { name: "example".into(), partitions: partitions as u32, ..NewTopic::default() };
    let topic = log.create_topic(&writer, new, false).await.expect("the topic is new");

    let begin = env.monotonic();
    let until = begin + Duration::from_secs(seconds as u64);
    let runs: Vec<_> = (0..clients)
        .map(|client| {
            let partition = PartitionId::new(topic.id, (client % partitions) as u32);
            let load =
                Load { log: log.clone(), writer: writer.clone(), partition, in_flight, batch_bytes, until };
            env.spawn("client", load.run(env.clone()))
        })
        .collect();
    let mut latencies = Vec::new();
    for run in runs {
        latencies.extend(run.await.expect("the client ends"));
    }
    let took = (env.monotonic() - begin).as_secs_f64();
    report(&log, &mut latencies, batch_bytes, took);
    let fresh = Log::open(env, meta, store, Config::default()).await.expect("the log opens");
    for (name, log) in [("same broker ", &log), ("fresh broker", &fresh)] {
        read_back(name, log, &topic).await;
    }
    fresh.close().await;
    log.close().await;
}

/// Reads all partitions side by side, one megabyte at a time, as a consumer does.
async fn read_back(name: &str, log: &Log, topic: &Topic) {
    let (env, snapshot) = (log.env(), log.meta().snapshot());
    let begin = env.monotonic();
    let mut places: Vec<(PartitionId, Offset)> =
        topic.partition_ids().map(|partition| (partition, Offset::ZERO)).collect();
    let (mut bytes, mut reads) = (0, 0);
    while !places.is_empty() {
        let mut further = Vec::new();
        for (partition, from) in places {
            let read = log.read(&snapshot, partition, from, 1 << 20).await.expect("the log can be read");
            reads += 1;
            bytes += read.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
            further.extend(read.batches.last().map(|last| (partition, last.next_offset())));
        }
        places = further;
    }
    let took = (env.monotonic() - begin).as_secs_f64();
    println!("read     {name} {:.1} MB/s in {reads} reads", bytes as f64 / 1e6 / took);
}

struct Load {
    log: Log,
    writer: Writer,
    partition: PartitionId,
    in_flight: usize,
    batch_bytes: usize,
    until: Instant,
}

impl Load {
    async fn run(self, env: Env) -> Vec<Duration> {
        let value: Vec<u8> = (0..1000).map(|at| (at * 31) as u8).collect();
        let mut builder = Builder::new(Compression::None);
        while builder.size() + value.len() < self.batch_bytes || builder.count() == 0 {
            builder.push(0, None, Some(&value), &[]);
        }
        let batch = builder.build();
        let mut waiting: VecDeque<(Instant, AppendTicket)> = VecDeque::new();
        let mut latencies = Vec::new();
        loop {
            while waiting.len() < self.in_flight && env.monotonic() < self.until {
                let batches = vec![(self.partition, batch.clone())];
                let ticket = self.log.append(Append { writer: self.writer.clone(), batches });
                waiting.push_back((env.monotonic(), ticket));
            }
            let Some((sent, ticket)) = waiting.pop_front() else { return latencies };
            ticket.await.remove(0).expect("appended");
            latencies.push(env.monotonic() - sent);
        }
    }
}

fn report(log: &Log, latencies: &mut [Duration], batch_bytes: usize, took: f64) {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let (count, megabytes) = (latencies.len() as f64, (latencies.len() * batch_bytes) as f64 / 1e6);
    let snapshot = log.meta().snapshot();
    let sizes: Vec<u64> =
        snapshot.range::<Object>(..).map(|pair| pair.expect("the metadata is readable").1.size).collect();
    let mean = sizes.iter().sum::<u64>() / sizes.len() as u64;
    println!("appends  {:.0}/s, {:.1} MB/s", count / took, megabytes / took);
    println!("latency  p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms", at(0.5), at(0.99), at(0.999));
    println!("objects  {:.0}/s of {mean} bytes", sizes.len() as f64 / took);
}
