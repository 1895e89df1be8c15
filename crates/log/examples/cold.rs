//! What a cold read of a partition costs at a remote store, before and after merging.
//!
//! `cargo run --release -p floe-log --example cold -- [MiB]`
//!
//! Fills topics through the log, and reads them with a log whose memory is empty, 1 MiB at a time as consumers do. Then
//! their objects are merged into segments of 64 MiB, and the same is read again: one partition alone, and all
//! partitions side by side. The store is in memory and counts.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::extent::{Extent, ExtentKey};
use floe_log::merged::{MergeError, Merged, Swap, merge};
use floe_log::object::{Level, Object, ObjectKind, object_key};
use floe_log::records::Builder;
use floe_log::segment::{Origin, SegmentBuilder};
use floe_log::topic::{NewTopic, Topic};
use floe_log::{Append, Config, Log, ObjectId, Offset, PartitionId, Writer, leases};
use floe_meta::{Envelope, MemoryJournal, Meta, Options, Tx};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};

/// Bytes of a segment, and of the objects that are merged at once.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of a read, as Kafka's consumers ask for of a partition.
const READ_BYTES: usize = 1 << 20;
/// Appends that are not answered yet.
const IN_FLIGHT: usize = 32;

#[derive(Clone, Default)]
struct Counted {
    inner: MemoryStore,
    gets: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
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

struct World {
    env: Env,
    journal: MemoryJournal,
    store: Counted,
    log: Log,
    topic: Topic,
}

#[tokio::main]
async fn main() {
    let mib = std::env::args().nth(1).map_or(256, |text| text.parse().expect("a number of MiB"));
    println!(
        "layout                            read       objects  extents     GETs/GiB  KiB/GET  fetched/returned"
    );
    for (name, partitions, batch_bytes, total) in [
        ("16 partitions, 1 MiB batches", 16, 1 << 20, mib << 20),
        ("1,000 partitions, 100 B", 1_000, 100, (mib << 20) / 4),
    ] {
        let world = World::filled(partitions, batch_bytes, total).await;
        world.report(&format!("{name}, WAL")).await;
        world.merge(false).await;
        world.report(&format!("{name}, merged")).await;
        if partitions < 100 {
            let world = World::filled(partitions, batch_bytes, total).await;
            world.merge(true).await;
            world.report(&format!("{name}, apart")).await;
        }
    }
}

impl World {
    async fn filled(partitions: u32, batch_bytes: usize, total: u64) -> World {
        let (env, journal, store) = (Env::real(), MemoryJournal::new(), Counted::default());
        let log = open(&env, &journal, &store).await;
        let writer = Writer::new("User:example", "cold");
        let new = NewTopic { name: "example".into(), partitions, ..NewTopic::default() };
        let topic = log.create_topic(&writer, new, false).await.expect("the topic is new");
        let mut builder = Builder::new(Compression::None);
        let batch =
            builder.push(1_000, None, Some(&vec![7; batch_bytes - 80.min(batch_bytes / 2)]), &[]).build();
        let mut waiting = std::collections::VecDeque::new();
        let (mut sent, mut at) = (0, 0u32);
        while sent < total {
            // A request has some batches of some partitions, as producers send them.
            let batches: Vec<_> = (0..if batch_bytes < 1_000 { 100 } else { 1 })
                .map(|more| (PartitionId::new(topic.id, (at + more * 7) % partitions), batch.clone()))
                .collect();
            at += 1;
            sent += (batches.len() * batch.len()) as u64;
            waiting.push_back(log.append(Append { writer: writer.clone(), batches }));
            if waiting.len() == IN_FLIGHT {
                waiting.pop_front().expect("some wait").await.remove(0).expect("appended");
            }
        }
        for ticket in waiting {
            ticket.await.remove(0).expect("appended");
        }
        World { env, journal, store, log, topic }
    }

    /// Merges all objects, oldest first: into shared segments, or into some of each partition.
    async fn merge(&self, apart: bool) {
        let snapshot = self.log.pin();
        let mut groups: BTreeMap<(u64, u32), Vec<(ExtentKey, Extent)>> = BTreeMap::new();
        let (mut of_object, mut of_partition) = (BTreeMap::new(), BTreeMap::<u32, u64>::new());
        let mut before = 0;
        for pair in snapshot.range::<Object>(..) {
            let (id, object) = pair.expect("it can be read");
            of_object.insert(id, before / SEGMENT_BYTES);
            before += object.size;
        }
        for pair in snapshot.range::<Extent>(..) {
            let (key, extent) = pair.expect("it can be read");
            let group = match apart {
                true => {
                    let before = of_partition.entry(key.partition.index).or_default();
                    *before += extent.bytes();
                    (*before / SEGMENT_BYTES, key.partition.index)
                }
                false => (of_object[&extent.object().expect("it has batches")], 0),
            };
            groups.entry(group).or_default().push((key, extent));
        }
        for extents in groups.into_values() {
            self.merge_one(&extents).await;
        }
    }

    async fn merge_one(&self, extents: &[(ExtentKey, Extent)]) {
        let (log, snapshot) = (&self.log, self.log.pin());
        let (number, owner) = (log.writer_number(), 7);
        let lease = move |tx: &mut Tx<'_>| {
            leases::lease_ids(tx, ObjectKind::Segment, number, owner, 1, Duration::from_secs(60))
        };
        let object = log.meta().commit(Envelope::broker("merge"), lease).await.expect("committed").reply;
        let mut builder = SegmentBuilder::new(object);
        let writer = Writer::new("User:example", "cold");
        let mut swaps: Vec<Swap> = Vec::new();
        for run in extents.chunk_by(|(a, extent), (b, _)| {
            a.partition == b.partition && extent.next_offset(a.base) == b.base
        }) {
            let ((first, _), (last, extent)) = (run[0], run[run.len() - 1]);
            let (mut at, end) = (first.base, extent.next_offset(last.base));
            builder.begin(first.partition, at);
            let lsn = run.iter().filter_map(|(_, extent)| extent.data()).map(|data| data.lsn).max();
            while at < end {
                let read = log.read(&snapshot, first.partition, at, 16 << 20).await.expect("it can be read");
                for batch in read.batches.iter().filter(|batch| batch.base_offset < end) {
                    builder.push(batch, Origin { writer: Some(&writer), lsn: lsn.expect("it has batches") });
                    at = batch.next_offset();
                }
            }
            let time = run.iter().map(|(_, extent)| extent.max_timestamp()).max().unwrap_or(-1);
            let section = builder.end(end, time).expect("it has batches");
            swaps.push(Swap {
                partition: first.partition,
                old: run.iter().map(|(key, extent)| (key.base, *extent)).collect(),
                new: vec![(first.base, Extent::Data(section.data))],
            });
        }
        let (pieces, size) = builder.finish();
        log.store().put(&object_key(object), pieces).await.expect("put");
        let (level, continues) = (Level::Sorted, false);
        let merged = Merged { object, owner, size, level, continues, swaps };
        let swap = move |tx: &mut Tx<'_>| -> Result<(), MergeError> {
            merge(tx, &merged)?;
            Ok(leases::end_ids(tx, owner, object, ObjectId(object.0 + 1))?)
        };
        log.meta().commit(Envelope::broker("merge"), swap).await.expect("committed");
    }

    async fn report(&self, name: &str) {
        let snapshot = self.log.meta().snapshot();
        let (objects, extents) = (snapshot.range::<Object>(..).count(), snapshot.range::<Extent>(..).count());
        let all: Vec<PartitionId> = self.topic.partition_ids().collect();
        for (what, partitions) in [("one", &all[..1]), ("all", &all[..])] {
            let log = open(&self.env.scope(), &self.journal, &self.store).await;
            self.store.gets.store(0, Ordering::Relaxed);
            self.store.bytes.store(0, Ordering::Relaxed);
            let returned = read(&log, partitions).await as f64;
            let gets = self.store.gets.load(Ordering::Relaxed) as f64;
            let fetched = self.store.bytes.load(Ordering::Relaxed) as f64;
            let per_gib = gets / (returned / f64::from(1 << 30));
            let each = fetched / gets / 1024.0;
            let ratio = fetched / returned;
            println!("{name:<34}{what:<9}{objects:>9}{extents:>9}{per_gib:>13.0}{each:>9.0}{ratio:>18.2}");
            log.close().await;
        }
    }
}

/// Reads partitions side by side, and returns the bytes of their batches.
async fn read(log: &Log, partitions: &[PartitionId]) -> usize {
    let snapshot = log.pin();
    let mut places: Vec<(PartitionId, Offset)> =
        partitions.iter().map(|partition| (*partition, Offset::ZERO)).collect();
    let mut bytes = 0;
    while !places.is_empty() {
        let mut further = Vec::new();
        for (partition, from) in places {
            let read = log.read(&snapshot, partition, from, READ_BYTES).await.expect("the log can be read");
            bytes += read.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
            further.extend(read.batches.last().map(|last| (partition, last.next_offset())));
        }
        places = further;
    }
    bytes
}

async fn open(env: &Env, journal: &MemoryJournal, store: &Counted) -> Log {
    let meta = Meta::open(env.clone(), Arc::new(journal.clone()), Options::default()).await;
    let config = Config { cleaner: false, ..Config::default() };
    Log::open(env.clone(), meta.expect("the metadata opens"), Arc::new(store.clone()), config)
        .await
        .expect("the log opens")
}
