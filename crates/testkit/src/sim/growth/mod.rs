//! A log that runs for very long: a broker over a store and a journal without faults, with retention, merging,
//! compaction, tables, deleted topics and history, and now and then another broker in its place. What it holds must not
//! grow with what it did.
//!
//! ```text
//! mod.rs       the world, and what its clients do
//! sample.rs    what a broker, its journal and its store hold at some moment
//! figure.rs    what is counted
//! judge.rs     whether that grows
//! command.rs   the command line
//! ```
//! Its times and sizes are small, so that everything that happens in years happens in a few thousand commits.

pub mod command;
mod figure;
mod judge;
mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_history::History;
use floe_lake::Lake;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::{self, NewTopic};
use floe_log::{
    Append, Below, Capacity, Compaction, Log, MergeSizes, Offset, PartitionId, Times, TopicId, Writer,
};
use floe_meta::{Lsn, Meta, Options as MetaOptions};
use tokio::time::sleep;

pub use figure::Figure;
pub use judge::judge;
pub use sample::Sample;

use super::journal::SimJournal;
use super::store::SimStore;
use super::weather::Weather;
use crate::bug::Bug;
use crate::dice::Dice;
use crate::trace::Trace;

/// The topics that are there for the whole run, with their settings.
const TOPICS: [(&str, &[(&str, &str)]); 3] = [
    ("readings", &[("retention.ms", "60000"), ("floe.table", "json"), ("floe.table.freshness.ms", "5000")]),
    ("clicks", &[("retention.bytes", "20000"), ("floe.trash.ms", "20000")]),
    (
        "profiles",
        &[("cleanup.policy", "compact"), ("delete.retention.ms", "5000"), ("min.cleanable.dirty.ratio", "0")],
    ),
];
/// Partitions of each.
const PARTITIONS: u32 = 3;
/// Keys of the compacted topic.
const KEYS: u64 = 100;
/// Pauses between two writes. A broker lives for longer than every grace: things age by the clock of its process.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// After so many writes, a topic is created and deleted, records are deleted, the client has another name.
const TOPIC_EVERY: u64 = 500;
const DELETION_EVERY: u64 = 300;
const NAME_EVERY: u64 = 200;
/// Samples of a run.
const SAMPLES: u64 = 60;

/// A leak on purpose, for tests of those who have to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// Deletions of the log's objects are acknowledged and not done.
    Objects,
    /// Deletions of the files of tables are.
    Files,
    /// The journal keeps bytes that nobody needs.
    Bytes,
    /// The journal keeps all commits, because nobody moves the history on.
    Commits,
    /// Extents are neither merged nor removed.
    Extents,
}

/// The caller's choices for a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The source of every draw.
    pub seed: u64,
    /// The run ends after so many commits.
    pub commits: u64,
    /// How often another broker takes the place of one that dies.
    pub starts: u64,
    /// Whether the journal carries the bytes of commits.
    pub carries: bool,
    /// A leak on purpose.
    pub leak: Option<Leak>,
}

impl Options {
    /// A run of so many commits.
    pub fn commits(commits: u64) -> Options {
        Options { seed: 0, commits, starts: 6, carries: false, leak: None }
    }
}

/// What a run did, and what it held.
#[derive(Debug, Clone)]
pub struct Report {
    /// In their order.
    pub samples: Vec<Sample>,
    /// What grew.
    pub findings: Vec<String>,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Topics that were created and deleted.
    pub topics: u64,
    /// The time of the run on its own clock.
    pub virtual_time: Duration,
}

/// Runs a world in this thread.
///
/// # Panics
/// Something fails although nothing may: the world has no faults.
pub fn run(options: &Options) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime in one thread");
    runtime.block_on(World::new(options).live())
}

/// The world of a run.
struct World {
    env: Env,
    options: Options,
    store: SimStore,
    journal: SimJournal,
    dice: Dice,
    writes: u64,
    acknowledged: u64,
    topics: u64,
    samples: Vec<Sample>,
}

/// A broker of the run.
struct Broker {
    env: Env,
    log: Log,
    /// Its views run as long as somebody holds them.
    _lake: Lake,
    topics: Vec<TopicId>,
}

impl World {
    fn new(options: &Options) -> World {
        let env = Env::simulated(options.seed);
        let trace = Trace::new(&env, false);
        let bug = match options.leak {
            Some(Leak::Objects) => Some(Bug::CleanerForgets),
            Some(Leak::Files) => Some(Bug::LakeCleanerForgets),
            Some(Leak::Bytes) => Some(Bug::JournalKeepsReleased),
            Some(Leak::Commits | Leak::Extents) | None => None,
        };
        let calm = || Weather::draw(&env, Duration::from_secs(1), false);
        let store = SimStore::new(&env, calm(), &trace, bug);
        let journal = SimJournal::new(&env, calm(), &trace, bug).carrying(options.carries).dropping();
        store.heal();
        journal.heal();
        let dice = Dice::new(&env);
        let (writes, acknowledged, topics) = (0, 0, 0);
        World {
            env,
            options: *options,
            store,
            journal,
            dice,
            writes,
            acknowledged,
            topics,
            samples: Vec::new(),
        }
    }

    async fn live(mut self) -> Report {
        let begin = self.env.monotonic();
        let lives = self.options.starts + 1;
        for life in 1..=lives {
            let broker = self.open().await;
            self.write_until(&broker, self.options.commits * life / lives).await;
            // It dies where it stands.
            broker.env.abort_all();
        }
        assert_eq!(self.env.panics(), Vec::<String>::new(), "no task panics");
        Report {
            findings: judge(&self.samples),
            samples: self.samples,
            acknowledged: self.acknowledged,
            topics: self.topics,
            virtual_time: self.env.monotonic() - begin,
        }
    }

    async fn open(&self) -> Broker {
        let env = self.env.scope();
        let journal = Arc::new(self.journal.clone());
        let meta = Meta::open(env.clone(), journal, MetaOptions::default()).await.expect("a sound journal");
        let store = Arc::new(self.store.clone());
        let log = Log::open(env.clone(), meta, store, self.log_config()).await.expect("a sound log");
        let lake = Lake::start(env.clone(), log.clone(), lake_config());
        if self.options.leak != Some(Leak::Commits) {
            drop(env.spawn("history", History::new(log.clone(), history_config()).run()));
        }
        log.enforce_retention(vec![floe_lake::unread, floe_lake::unread_by_rebuild]);
        let mut topics = Vec::new();
        for (name, configs) in TOPICS {
            let found = topic::by_name(&log.meta().snapshot(), name).expect("a topic can be read");
            let id = match found {
                Some(topic) => topic.id,
                None => self.create(&log, name, PARTITIONS, configs).await,
            };
            topics.push(id);
        }
        Broker { env, log, _lake: lake, topics }
    }

    async fn create(&self, log: &Log, name: &str, partitions: u32, configs: &[(&str, &str)]) -> TopicId {
        let keeps = |name: &str| self.options.leak == Some(Leak::Extents) && name.starts_with("retention");
        let configs = configs.iter().filter(|(name, _)| !keeps(name));
        let configs: BTreeMap<_, _> =
            configs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.to_owned(), partitions, configs };
        log.create_topic(&self.writer(), new, false).await.expect("a new topic").id
    }

    /// The client that writes now.
    fn writer(&self) -> Writer {
        Writer::new("User:sim", &format!("client {}", self.writes / NAME_EVERY))
    }

    /// Writes until the journal has so many commits. Takes samples.
    async fn write_until(&mut self, broker: &Broker, commits: u64) {
        while broker.log.meta().snapshot().lsn() < Lsn(commits) {
            self.writes += 1;
            self.write(broker).await;
            if self.writes.is_multiple_of(TOPIC_EVERY) {
                self.come_and_go(&broker.log).await;
            }
            if self.writes.is_multiple_of(DELETION_EVERY) {
                self.delete_records(broker).await;
            }
            let due = self.samples.len() as u64 * self.options.commits / SAMPLES;
            if broker.log.meta().snapshot().lsn() >= Lsn(due) {
                let sample = Sample::take(&broker.log, &self.store, &self.journal).await;
                self.samples.push(sample);
            }
            sleep(self.dice.between(PAUSE_MIN, PAUSE_MAX)).await;
        }
    }

    async fn write(&mut self, broker: &Broker) {
        let topic = *self.dice.pick(&[0, 0, 0, 1, 1, 2]);
        let index = u32::try_from(self.dice.within(0..u64::from(PARTITIONS))).expect("a small index");
        let batch = if topic == 2 { self.keyed() } else { self.plain() };
        self.append(&broker.log, PartitionId::new(broker.topics[topic], index), batch).await;
    }

    async fn append(&mut self, log: &Log, partition: PartitionId, batch: Bytes) {
        let append = Append { writer: self.writer(), batches: vec![(partition, batch)] };
        log.append(append).await.remove(0).expect("an append without faults");
        self.acknowledged += 1;
    }

    /// Some record that is JSON.
    fn plain(&self) -> Bytes {
        let value = format!(r#"{{"n":{},"text":"as usual"}}"#, self.writes);
        let mut builder = Builder::new(Compression::None);
        builder.push(self.env.now().0, None, Some(value.as_bytes()), &[]).build()
    }

    /// A value or a tombstone under some key.
    fn keyed(&self) -> Bytes {
        let key = format!("key {}", self.dice.within(0..KEYS));
        let value = (!self.dice.chance(200)).then(|| format!("value {}", self.writes));
        let mut builder = Builder::new(Compression::None);
        builder.push(self.env.now().0, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[]).build()
    }

    /// A topic comes, gets a record, and is deleted.
    async fn come_and_go(&mut self, log: &Log) {
        self.topics += 1;
        let name = format!("visits-{}", self.topics);
        let topic = self.create(log, &name, 1, &[("floe.trash.ms", "10000")]).await;
        self.append(log, PartitionId::new(topic, 0), self.plain()).await;
        log.delete_topic(&self.writer(), topic).await.expect("the topic is there");
    }

    /// A client deletes the older half of some partition.
    async fn delete_records(&self, broker: &Broker) {
        let partition = PartitionId::new(broker.topics[1], 0);
        let bounds = Log::bounds(&broker.log.meta().snapshot(), partition).expect("the partition is there");
        let half = (bounds.log_start.0 + bounds.high_watermark.0) / 2;
        let below = [Below { partition, offset: Some(Offset(half)) }];
        let deleted = broker.log.delete_records(&self.writer(), &below).await;
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    fn log_config(&self) -> floe_log::Config {
        let seconds = Duration::from_secs;
        let merge = MergeSizes {
            segment_bytes: 20_000,
            small_bytes: 2_000,
            small_objects: 20,
            long_bytes: 1_000,
            pool_bytes: 60_000,
        };
        let never = MergeSizes { small_objects: usize::MAX, pool_bytes: u64::MAX, ..merge };
        floe_log::Config {
            sole: true,
            cache: Capacity { tail: 1 << 20, cold: 1 << 20, reads: 64 << 10 },
            times: Times {
                lease_ids: 64,
                lease_ttl: seconds(20),
                session_ttl: seconds(10),
                trash_grace: seconds(20),
                cleaner_pause: seconds(5),
                cleaner_lease: seconds(20),
                retention_pause: seconds(5),
                merge_pause: seconds(1),
            },
            merge: if self.options.leak == Some(Leak::Extents) { never } else { merge },
            compaction: Compaction {
                pause: seconds(5),
                small_bytes: 2_000,
                small_pause: seconds(30),
                ..Compaction::default()
            },
            trash: floe_log::deleted::Trash { ms: 0, ..Default::default() },
            ..floe_log::Config::default()
        }
    }
}

fn lake_config() -> floe_lake::Config {
    floe_lake::Config {
        snapshots_kept: 5,
        garbage_grace: Duration::from_secs(20),
        clean_interval: Duration::from_secs(5),
        ..floe_lake::Config::default()
    }
}

fn history_config() -> floe_history::Config {
    floe_history::Config {
        commits_due: 300,
        part_commits_max: 1_000,
        pause: Duration::from_secs(2),
        lease_ttl: Duration::from_secs(20),
        waste_grace: Duration::from_secs(20),
        ..floe_history::Config::default()
    }
}
