//! Measures what an append costs on a local disk, with each journal that a broker may have there.
//!
//! `cargo run --release -p floe-log --example journals -- [sqlite | ring] [lone | rate | bulk] [amount]`
//!
//! - `lone`: one append of 1 kB at a time, for `amount` seconds: how long each takes.
//! - `rate`: 1,000 appends of 1 kB a second, for `amount` seconds: processor time of each.
//! - `bulk`: `amount` MiB in batches of 1 MiB to 16 partitions, twice, with the records deleted in between: processor
//!   time and minor faults of a GiB. The first pass also makes the files that the second uses again.
//!
//! Processor time and faults are those of the whole process. The allocator is the system's, not the broker's.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Append, Below, Config, Log, PartitionId, Writer};
use floe_meta::{Journal, Meta, Options, RingJournal, RingOptions, SqliteJournal};
use floe_store::local::{LocalStore, Options as StoreOptions};

const PARTITIONS: u32 = 16;
const SMALL: usize = 1_000;
const LARGE: usize = 1 << 20;
/// Appends without an answer, for each partition of the bulk.
const IN_FLIGHT: usize = 2;
/// Linux counts processor time in hundredths.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (journal, load, amount) = (next("ring"), next("lone"), next("5"));
    let amount: u64 = amount.parse().expect("the amount is a number");
    let dir = tempfile::tempdir_in(".").expect("the current directory is writable");
    let bench = Bench::open(dir.path(), &journal).await;
    println!("{journal}, {load}, {amount}");
    match load.as_str() {
        "lone" => bench.lone(Duration::from_secs(amount)).await,
        "rate" => bench.rate(Duration::from_secs(amount)).await,
        _ => bench.bulk(amount).await,
    }
    bench.log.close().await;
}

struct Bench {
    env: Env,
    log: Log,
    partitions: Vec<PartitionId>,
}

/// What the process has used so far.
#[derive(Clone, Copy)]
struct Used {
    seconds: f64,
    faults: u64,
}

fn used() -> Used {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, rest) = stat.rsplit_once(") ").expect("the name ends with a parenthesis");
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("it is a number");
    Used { seconds: (number(11) + number(12)) as f64 / TICKS, faults: number(7) }
}

fn batch(bytes: usize) -> Bytes {
    let value: Vec<u8> = (0..900).map(|at| (at * 31) as u8).collect();
    let mut builder = Builder::new(Compression::None);
    while builder.count() == 0 || builder.size() + value.len() < bytes {
        builder.push(0, None, Some(&value), &[]);
    }
    builder.build()
}

impl Bench {
    async fn open(dir: &Path, journal: &str) -> Bench {
        let env = Env::real();
        let store = LocalStore::open(env.clone(), dir.join("store"), StoreOptions::default());
        let store = Arc::new(store.await.expect("the store opens"));
        let place = dir.join("journal");
        std::fs::create_dir(&place).expect("it is new");
        let journal: Arc<dyn Journal> = match journal {
            "sqlite" => Arc::new(SqliteJournal::open(&env, &place).expect("the journal opens")),
            _ => {
                Arc::new(RingJournal::open(&env, &place, RingOptions::default()).expect("the journal opens"))
            }
        };
        let meta = Meta::open(env.clone(), journal, Options::default()).await.expect("the metadata opens");
        let config = Config { sole: true, ..Config::default() };
        let log = Log::open(env.clone(), meta, store, config).await.expect("the log opens");
        let new = NewTopic {
            name: "bench".into(),
            partitions: PARTITIONS,
            configs: [("max.message.bytes".to_owned(), (4 << 20).to_string())].into(),
        };
        let topic = log.create_topic(&writer(), new, false).await.expect("the topic is new");
        Bench { env, log, partitions: topic.partition_ids().collect() }
    }

    async fn append(&self, partition: PartitionId, batch: Bytes) -> Duration {
        let begin = self.env.monotonic();
        let request = Append { writer: writer(), batches: vec![(partition, batch)] };
        self.log.append(request).await.remove(0).expect("it is appended");
        self.env.monotonic() - begin
    }

    async fn lone(&self, time: Duration) {
        let small = batch(SMALL);
        let mut took = Vec::new();
        let (before, until) = (used(), self.env.monotonic() + time);
        while self.env.monotonic() < until {
            took.push(self.append(self.partitions[0], small.clone()).await);
        }
        let cpu = (used().seconds - before.seconds) / took.len() as f64;
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{} appends, p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, {:.0} us of processor each",
            took.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            cpu * 1e6
        );
    }

    async fn rate(&self, time: Duration) {
        let small = batch(SMALL);
        let before = used();
        let begin = self.env.monotonic();
        let count = time.as_millis() as u32;
        let mut tasks = Vec::new();
        for number in 0..count {
            tokio::time::sleep_until(begin + Duration::from_millis(u64::from(number))).await;
            let request = Append {
                writer: writer(),
                batches: vec![(self.partitions[(number % PARTITIONS) as usize], small.clone())],
            };
            let (ticket, env, sent) = (self.log.append(request), self.env.clone(), self.env.monotonic());
            tasks.push(self.env.spawn("append", async move {
                ticket.await.remove(0).expect("it is appended");
                env.monotonic() - sent
            }));
        }
        let mut took = Vec::new();
        for task in tasks {
            took.push(task.await.expect("it ends"));
        }
        took.sort_unstable();
        let cpu = (used().seconds - before.seconds) / f64::from(count);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{count} appends in {:.1} s, {:.0} us of processor each, p50 {:.3} ms, p99 {:.3} ms",
            (self.env.monotonic() - begin).as_secs_f64(),
            cpu * 1e6,
            at(0.5),
            at(0.99)
        );
    }

    async fn bulk(&self, mebibytes: u64) {
        for pass in 1..=2 {
            self.pass(pass, mebibytes).await;
            let below = |partition: &PartitionId| Below { partition: *partition, offset: None };
            let below: Vec<Below> = self.partitions.iter().map(below).collect();
            for deleted in self.log.delete_records(&writer(), &below).await {
                deleted.expect("they are deleted");
            }
            self.log.clean().await.expect("it cleans");
        }
    }

    async fn pass(&self, pass: u32, mebibytes: u64) {
        let large = batch(LARGE);
        let (before, begin) = (used(), self.env.monotonic());
        let mut waiting = VecDeque::new();
        for number in 0..mebibytes {
            if waiting.len() >= IN_FLIGHT * PARTITIONS as usize {
                let ticket: floe_log::AppendTicket = waiting.pop_front().expect("there are some");
                ticket.await.remove(0).expect("it is appended");
            }
            // Each client has a buffer of its own.
            let bytes = Bytes::copy_from_slice(&large);
            let partition = self.partitions[(number % u64::from(PARTITIONS)) as usize];
            let request = Append { writer: writer(), batches: vec![(partition, bytes)] };
            waiting.push_back(self.log.append(request));
        }
        for ticket in waiting {
            ticket.await.remove(0).expect("it is appended");
        }
        let took = (self.env.monotonic() - begin).as_secs_f64();
        let after = used();
        let gibibytes = mebibytes as f64 / 1024.0;
        println!(
            "pass {pass}: {:.0} MiB/s, {:.2} s of processor per GiB, {:.0} minor faults per GiB",
            mebibytes as f64 / took,
            (after.seconds - before.seconds) / gibibytes,
            (after.faults - before.faults) as f64 / gibibytes
        );
    }
}

fn writer() -> Writer {
    Writer::new("User:bench", "journals")
}
