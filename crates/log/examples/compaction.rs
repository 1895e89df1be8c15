//! Measures passes of compaction over one partition.
//!
//! `cargo run --release -p floe-log --example compaction -- [records] [keys] [value bytes] [map bytes]`
//!
//! Records come under the keys in turn, in batches of 1,000, uncompressed. The output has a line for each pass: how
//! much it read and wrote, how many records it left, and how long it took. Store and journal are in memory.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Append, Compaction, Config, Log, PartitionId, Writer};
use floe_meta::{MemoryJournal, Meta, Options};
use floe_store::MemoryStore;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[tokio::main]
async fn main() {
    let mut numbers =
        std::env::args().skip(1).map(|text| text.parse::<usize>().expect("arguments are numbers"));
    let mut number = |default: usize| numbers.next().unwrap_or(default);
    let (records, keys, value_bytes) = (number(2_000_000), number(200_000), number(100));
    let map_bytes = number(Compaction::default().map_bytes);

    let env = Env::real();
    let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), Options::default());
    let meta = meta.await.expect("the metadata opens");
    // Nothing is too small, and nothing runs by itself.
    let compaction =
        Compaction { map_bytes, small_bytes: 0, small_pause: Duration::ZERO, ..Compaction::default() };
    let config = Config { compaction, cleaner: false, ..Config::default() };
    let log =
        Log::open(env.clone(), meta, Arc::new(MemoryStore::new()), config).await.expect("the log opens");
    let configs = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0")];
    let configs: BTreeMap<_, _> = configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let writer = Writer::new("User:example", "compaction");
    let new = NewTopic { name: "example".into(), partitions: 1, configs };
    let topic = log.create_topic(&writer, new, false).await.expect("the topic is new");
    let partition = PartitionId::new(topic.id, 0);

    let value = vec![7; value_bytes];
    let mut numbers = 0..records;
    while !numbers.is_empty() {
        let mut builder = Builder::new(Compression::None);
        for number in numbers.by_ref().take(1_000) {
            let key = format!("key {}", number % keys);
            builder.push(env.now().0, Some(key.as_bytes()), Some(&value), &[]);
        }
        let request = Append { writer: writer.clone(), batches: vec![(partition, builder.build())] };
        for answer in log.append(request).await {
            answer.expect("the log takes it");
        }
    }
    println!("   read   written    kept   removed  swaps  seconds  records/s  memory above before");
    loop {
        MEMORY.reset_peak_usage();
        let (begun, before) = (env.monotonic(), MEMORY.current_usage());
        let done = log.compact().await.expect("it compacts");
        if done.passes == 0 {
            break;
        }
        let took = (env.monotonic() - begun).as_secs_f64();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{:4.0} MiB {:5.0} MiB {:8} {:9} {:5} {:8.2} {:10.0} {:6.0} MiB",
            mib(done.bytes_in),
            mib(done.bytes_out),
            done.kept,
            done.removed,
            done.swaps,
            took,
            (done.kept + done.removed) as f64 / took,
            mib(MEMORY.peak_usage().saturating_sub(before) as u64),
        );
    }
    log.close().await;
}
