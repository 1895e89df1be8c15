//! When a view commits: as fresh as the topic asks for, or sooner when there is enough.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use floe_env::Env;
use floe_lake::Config;
use floe_log::{
    Append, Offset, PartitionId,
    codec::Compression,
    records::Builder,
    topic::{self, Topic},
    walk,
};
use floe_store::faulty::{Fault, FaultyStore, Operation};
use tokio::time::sleep;

use crate::world::{Broker, Ground, config, writer};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: &str = "3600000";
const PIECE: usize = 100 << 10;

/// Appends a record whose batch takes [`PIECE`] bytes and some.
async fn produce_piece(broker: &Broker, topic: &Topic, partition: u32) {
    let mut batch = Builder::new(Compression::None);
    batch.push(0, None, Some(&[7; PIECE]), &[]);
    let batches = vec![(PartitionId::new(topic.id, partition), batch.build())];
    let appended = broker.log.append(Append { writer: writer(), batches }).await;
    assert!(appended.iter().all(Result::is_ok), "{appended:?}");
}

/// Bytes of the log that a query of the table has to read.
fn tail_bytes(broker: &Broker, name: &str) -> u64 {
    let (snapshot, table) = (broker.log.meta().snapshot(), broker.table(name));
    let bytes = |partition: PartitionId| -> u64 {
        let from = table.progress.get(&partition.index).copied().unwrap_or(Offset::ZERO);
        let extents = walk::extents(&snapshot, partition, from).expect("the map is whole");
        extents.map(|extent| extent.expect("the map is whole").1.bytes()).sum()
    };
    table.topic.partition_ids().map(bytes).sum()
}

/// A view that may wait for an hour writes files as soon as `enough` bytes have gathered, and not before.
async fn check_enough(lake: Config, file_bytes: &str, enough: u64) {
    let ground = Ground::new();
    let broker = ground.broker_with(Env::simulated(1), lake).await;
    let settings =
        [("floe.table", "raw"), ("floe.table.freshness.ms", HOUR), ("floe.table.file.bytes", file_bytes)];
    let topic = broker.topic("t", 3, &settings).await;
    sleep(MINUTE).await;
    let piece = PIECE as u64 + 100;
    let pieces = enough.div_ceil(piece);
    for round in 1..=5 {
        // There are enough pieces before the freshness is over.
        for number in 0..pieces {
            assert_eq!(broker.table("t").snapshots, round - 1, "after {number} of {pieces} pieces");
            produce_piece(&broker, &topic, number as u32 % 3).await;
            assert!(tail_bytes(&broker, "t") < enough + piece);
            sleep(Duration::from_secs(10)).await;
        }
        let table = broker.table("t");
        assert_eq!((table.snapshots, table.rows), (round, round * pieces));
        assert_eq!(tail_bytes(&broker, "t"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_patient_view_commits_when_there_is_enough_for_a_file() {
    check_enough(config(), "3000000", 3_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_patient_view_commits_before_queries_have_too_much_to_read() {
    check_enough(Config { gather_bytes: 1_500_000, ..config() }, "3000000", 1_500_000).await;
}

#[tokio::test(start_paused = true)]
async fn little_data_is_committed_when_its_time_has_come() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(2)).await;
    let topic = broker.topic("t", 2, &[("floe.table", "json"), ("floe.table.freshness.ms", HOUR)]).await;
    sleep(MINUTE).await;
    for round in 1..=3 {
        for n in 0..53 {
            broker.produce(&topic, n % 2, &["{}"]).await;
            sleep(MINUTE).await;
        }
        assert_eq!(broker.table("t").snapshots, round - 1, "the freshness allows more");
        sleep(MINUTE * 2).await;
        let table = broker.table("t");
        assert_eq!((table.snapshots, table.rows), (round, 53 * round));
    }
    // The view sees a changed setting while it waits.
    broker.produce(&topic, 0, &["{}"]).await;
    sleep(MINUTE).await;
    assert_eq!(broker.table("t").snapshots, 3);
    let id = topic.id;
    let sooner = [("floe.table", "json"), ("floe.table.freshness.ms", "10000")];
    let sooner = sooner.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let configure = move |tx: &mut floe_meta::Tx<'_>| topic::configure(tx, id, &sooner).map(drop);
    broker.log.meta().commit(floe_meta::Envelope::broker("test"), configure).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(broker.table("t").snapshots, 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_failure_held_up_does_not_gather_again() {
    let ground = Ground::new();
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let store = FaultyStore::new(ground.store.clone(), move |operation, key| {
        let refused =
            operation == Operation::Put && key.starts_with("lake/") && is_down.load(Ordering::SeqCst);
        if refused { Fault::Refused } else { Fault::None }
    });
    let journal = Arc::new(ground.journal.clone());
    let broker = Broker::open(Env::simulated(3), Arc::new(store), journal).await;
    let topic = broker.topic("t", 1, &[("floe.table", "json"), ("floe.table.freshness.ms", HOUR)]).await;
    sleep(MINUTE).await;
    down.store(true, Ordering::SeqCst);
    broker.produce(&topic, 0, &["{}"]).await;
    sleep(MINUTE * 55).await;
    assert!(broker.lake.status()[0].error.is_some(), "the view has tried");
    down.store(false, Ordering::SeqCst);
    sleep(MINUTE).await;
    assert_eq!(broker.table("t").rows, 1);
}

/// What a small stream costs in files and metadata in a quarter of an hour, before its files are merged.
#[tokio::test(start_paused = true)]
async fn a_small_stream_makes_few_files_and_little_metadata() {
    let ground = Ground::new();
    // As by default, but nothing is deleted: every file that was written is counted.
    let lake = Config { garbage_grace: MINUTE * 600, merge_files: 0, ..Config::default() };
    let broker = ground.broker_with(Env::simulated(4), lake).await;
    let topic = broker.topic("t", 4, &[("floe.table", "json")]).await;
    let row = |n: u32| format!("{{\"id\":{n},\"name\":\"n{n}\",\"at\":\"2026-01-01T00:00:00Z\",\"x\":0.5}}");
    for n in 0..900 {
        let rows: Vec<String> = (0..10).map(|m| row(10 * n + m)).collect();
        broker.produce(&topic, n % 4, &rows).await;
        sleep(Duration::from_secs(1)).await;
    }
    let (mut data, mut documents, mut bytes, mut largest) = (0, 0, 0, 0);
    for key in ground.store.keys().into_iter().filter(|key| key.starts_with("lake/")) {
        if key.ends_with("parquet") {
            data += 1;
            continue;
        }
        let size = broker.log.store().size(&key).await.expect("it was just listed");
        documents += 1;
        bytes += size;
        largest = largest.max(if key.ends_with("json") { size } else { 0 });
    }
    println!("an hour: {} data files, {} documents of {} bytes", data * 4, documents * 4, bytes * 4);
    println!("the largest metadata document has {largest} bytes");
    assert!(data <= 100, "{data} data files");
    assert!(documents <= 325, "{documents} documents");
    assert!(bytes <= 7_000_000, "{bytes} bytes of documents");
    assert!(largest <= 32_000, "a metadata document of {largest} bytes");
    let table = broker.table("t");
    assert!(table.rows >= 9_000 - 10 * 10, "{} rows", table.rows);
}
