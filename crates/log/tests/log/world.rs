//! One broker's log under a simulated clock, and helpers for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_log::Capacity;
use floe_log::Times;
use floe_log::codec::Compression;
use floe_log::deleted::Trash;
use floe_log::records::Builder;
use floe_log::{
    Append, Config, Log, Writer,
    sequencer::{AppendError, Appended},
    topic::{NewTopic, Topic},
};
use floe_log::{Offset, PartitionId};
use floe_meta::{Journal, MemoryJournal, Meta, Options};
use floe_store::MemoryStore;
use floe_store::Store;

/// A small and fast log.
pub(crate) fn config() -> Config {
    Config {
        object_bytes: 64 << 10,
        cache: Capacity { tail: 1 << 20, cold: 4 << 20, reads: 4 << 20 },
        times: Times {
            lease_ids: 4,
            lease_ttl: Duration::from_secs(30),
            session_ttl: Duration::from_secs(20),
            trash_grace: Duration::from_secs(60),
            cleaner_pause: Duration::from_secs(5),
            cleaner_lease: floe_log::limits::CLEANER_LEASE,
            retention_pause: Duration::from_secs(5),
            merge_pause: Duration::from_secs(5),
        },
        // A deletion is for good here, unless a test says otherwise.
        trash: Trash { ms: 0, ..Trash::default() },
        ..Config::default()
    }
}

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) memory: MemoryStore,
    pub(crate) log: Log,
}

impl World {
    pub(crate) async fn new(seed: u64) -> World {
        World::with(seed, config()).await
    }

    pub(crate) async fn with(seed: u64, config: Config) -> World {
        let env = Env::simulated(seed);
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
        let memory = MemoryStore::new();
        let log = open(&env, &journal, Arc::new(memory.clone()), config).await;
        World { env, journal, memory, log }
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32) -> Topic {
        topic(&self.log, name, partitions).await
    }

    /// The log of another broker with a fresh cache over the same store and journal.
    pub(crate) async fn reopened(&self) -> Log {
        open(&self.env.scope(), &self.journal, Arc::new(self.memory.clone()), config()).await
    }
}

pub(crate) async fn open(
    env: &Env,
    journal: &Arc<dyn Journal>,
    store: Arc<dyn Store>,
    config: Config,
) -> Log {
    let meta =
        Meta::open(env.clone(), Arc::clone(journal), Options::default()).await.expect("the journal works");
    Log::open(env.clone(), meta, store, config).await.expect("the log opens")
}

pub(crate) async fn topic(log: &Log, name: &str, partitions: u32) -> Topic {
    let new = NewTopic { name: name.into(), partitions, configs: BTreeMap::new() };
    log.create_topic(&writer(), new, false).await.expect("the topic is new")
}

pub(crate) fn writer() -> Writer {
    Writer::new("User:test", "test-client")
}

/// A batch of records with these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    for (index, value) in values.iter().enumerate() {
        builder.push(1000 + index as i64, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub(crate) fn request(partition: PartitionId, values: &[&str]) -> Append {
    Append { writer: writer(), batches: vec![(partition, batch(values))] }
}

/// Appends one batch and waits for its answer.
pub(crate) async fn append(
    log: &Log,
    partition: PartitionId,
    values: &[&str],
) -> Result<Appended, AppendError> {
    log.append(request(partition, values)).await.remove(0)
}

/// All records of a partition as (offset, value), read in small steps.
pub(crate) async fn values(log: &Log, partition: PartitionId) -> Vec<(i64, String)> {
    let snapshot = log.meta().snapshot();
    let mut from = Log::bounds(&snapshot, partition).expect("the partition exists").log_start;
    let mut values = Vec::new();
    loop {
        let read = log.read(&snapshot, partition, from, 200).await.expect("the log can be read");
        let Some(last) = read.batches.last() else {
            assert_eq!(from, read.high_watermark, "reads end at the high watermark");
            return values;
        };
        from = last.next_offset();
        for batch in &read.batches {
            for record in batch.records(1 << 20).expect("the batch decodes") {
                let value = record.value.expect("tests write values");
                values.push((record.offset.0, String::from_utf8(value.to_vec()).expect("tests write text")));
            }
        }
    }
}

pub(crate) fn offset(number: i64) -> Offset {
    Offset(number)
}
