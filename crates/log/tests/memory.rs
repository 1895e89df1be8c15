//! What the cache and the readers hold is what they count: after small batches out of large frames, after a restart,
//! and while many readers read cold objects.
//!
//! The allocator counts for the whole process, so this binary has one test only.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Append, Capacity, Config, Log, Offset, PartitionId, Writer};
use floe_meta::{Journal, MemoryJournal, Meta, Options};
use floe_store::local::LocalStore;
use futures::future::join_all;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// What the map, the journal and the runtime may take beside what is measured.
const SLACK: usize = 6 * MIB;
const CACHE: Capacity = Capacity { tail: 8 * MIB, cold: 4 * MIB, reads: 16 * MIB };

async fn open(journal: &Arc<dyn Journal>, directory: &Path) -> Log {
    let env = Env::real();
    let store =
        LocalStore::open(env.clone(), directory, floe_store::local::Options::default()).await.unwrap();
    let meta = Meta::open(env.clone(), Arc::clone(journal), Options::default()).await.unwrap();
    let config = Config { cache: CACHE, cleaner: false, ..Config::default() };
    Log::open(env, meta, Arc::new(store), config).await.unwrap()
}

fn writer() -> Writer {
    Writer::new("User:test", "test")
}

async fn partition(log: &Log, name: &str) -> PartitionId {
    let new = NewTopic { name: name.into(), partitions: 1, configs: BTreeMap::new() };
    PartitionId::new(log.create_topic(&writer(), new, false).await.unwrap().id, 0)
}

fn batch(value_bytes: usize) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    builder.push(1_000, None, Some(&vec![b'x'; value_bytes]), &[]);
    builder.build()
}

async fn append(log: &Log, batches: Vec<(PartitionId, Bytes)>) {
    for appended in log.append(Append { writer: writer(), batches }).await {
        appended.unwrap();
    }
}

/// Batches of 20 KiB, each in a frame of 1 MiB whose rest was refused.
async fn small_batches_of_large_frames(log: &Log, partition: PartitionId) -> usize {
    let before = ALLOCATOR.current_usage();
    for _ in 0..200 {
        let mut frame = BytesMut::with_capacity(MIB);
        frame.extend_from_slice(&batch(20 << 10));
        let length = frame.len();
        frame.resize(MIB, 0);
        append(log, vec![(partition, frame.freeze().slice(..length))]).await;
    }
    ALLOCATOR.current_usage().saturating_sub(before)
}

/// Objects of 4 MiB: a little of the partition in each, and much of another topic.
async fn objects(log: &Log, little: PartitionId, much: PartitionId, count: usize) {
    for _ in 0..count {
        let mut batches = vec![(little, batch(100))];
        batches.extend((0..8).map(|_| (much, batch(500 << 10))));
        append(log, batches).await;
    }
}

/// Reads a partition from many places at once. Returns the peak of the memory that this took.
async fn peak_of_reading(log: &Log, partition: PartitionId, readers: usize, end: i64) -> usize {
    let (before, snapshot) = (ALLOCATOR.current_usage(), &log.meta().snapshot());
    ALLOCATOR.reset_peak_usage();
    let read = |reader: usize| async move {
        let from = Offset(reader as i64 % end);
        let read = log.read(snapshot, partition, from, 64 << 10).await.unwrap();
        assert_eq!(read.batches[0].base_offset, from);
        read.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>()
    };
    let read: usize = join_all((0..readers).map(read)).await.into_iter().sum();
    assert!(read > 0);
    ALLOCATOR.peak_usage().saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_what_the_limits_say() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let directory = tempfile::tempdir().unwrap();
    let log = open(&journal, directory.path()).await;
    let small = partition(&log, "small").await;
    let (little, much) = (partition(&log, "little").await, partition(&log, "much").await);

    let held = small_batches_of_large_frames(&log, small).await;
    assert!(held < CACHE.tail + SLACK, "the tail holds {} MiB", held / MIB);

    let count = 48;
    objects(&log, little, much, count).await;
    log.close().await;

    // After a restart, the first read of each object verifies all of it.
    let log = open(&journal, directory.path()).await;
    let before = ALLOCATOR.current_usage();
    for from in 0..count as i64 {
        log.read(&log.meta().snapshot(), little, Offset(from), 1).await.unwrap();
    }
    let held = ALLOCATOR.current_usage().saturating_sub(before);
    assert!(held < CACHE.cold + SLACK, "the cold lane holds {} MiB", held / MIB);
    log.close().await;

    let log = open(&journal, directory.path()).await;
    let peak = peak_of_reading(&log, little, 200, count as i64).await;
    let allowed = CACHE.cold + CACHE.reads + SLACK;
    assert!(peak < allowed, "200 readers took {} MiB of {}", peak / MIB, allowed / MIB);
}
