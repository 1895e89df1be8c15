//! A broker's log and views over a shared store and journal, and the checks that hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use floe_env::{Env, Task, lock};
use floe_log::{
    self, Append, Log, Offset, PartitionId, Writer,
    codec::Compression,
    records::Builder,
    topic::{self, NewTopic, Topic},
};
use floe_meta::lease::Lease;
use floe_meta::{Envelope, Journal, MemoryJournal, Meta, Options, Snapshot, Tx};
use floe_store::MemoryStore;
use floe_view::{Config, Progress, ViewStatus, Views, dead_letter, lease_name, progress_of};
use tokio::time::sleep;

use crate::counting::{Counter, Counts, Knobs, is_bad};

/// What was committed at one moment for one partition: its progress and its counts.
type Moment = (PartitionId, Offset, Counts<200>);

/// What outlives every broker.
#[derive(Clone, Default)]
pub(crate) struct Ground {
    pub(crate) store: MemoryStore,
    pub(crate) journal: MemoryJournal,
    /// Every moment that any broker saw.
    moments: Arc<Mutex<BTreeSet<Moment>>>,
}

impl Ground {
    pub(crate) async fn broker(&self, env: Env) -> Broker {
        self.broker_over(env, Arc::new(self.journal.clone()), Options::default()).await
    }

    /// A broker that reaches the journal through another.
    pub(crate) async fn broker_over(&self, env: Env, journal: Arc<dyn Journal>, options: Options) -> Broker {
        let meta = Meta::open(env.clone(), journal, options).await.expect("the journal opens");
        let moments = Arc::clone(&self.moments);
        meta.observe(move |applied| {
            if applied.touches::<Counts<200>>() || applied.touches::<Progress<201>>() {
                lock(&moments).extend(moments_of(applied.snapshot));
            }
        });
        let store = Arc::new(self.store.clone());
        // So that a test can append a batch that cannot be decoded.
        // A deletion is for good, unless the topic says otherwise.
        let trash = floe_log::deleted::Trash { ms: 0, ..Default::default() };
        let config = floe_log::Config { validate_compressed: false, trash, ..floe_log::Config::default() };
        let log = Log::open(env.clone(), meta, store, config).await.expect("the log opens");
        let knobs = Arc::<Knobs>::default();
        let view = Counter { knobs: Arc::clone(&knobs) };
        let config = Config { commit_bytes: 200, ..Config::default() };
        let views = Views::new(env.clone(), log.clone(), view, config);
        let task = Arc::new(env.spawn("views", views.clone().run()));
        Broker { log, views, task, knobs, ground: self.clone() }
    }
}

fn moments_of(snapshot: &Snapshot) -> Vec<Moment> {
    let progress = snapshot.range::<Progress<201>>(..).map(|pair| pair.expect("it can be read"));
    let counts = |partition: &PartitionId| snapshot.get::<Counts<200>>(partition).expect("it can be read");
    progress.map(|(p, progress)| (p, Offset(progress.next), counts(&p).unwrap_or_default())).collect()
}

#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) log: Log,
    pub(crate) views: Views<Counter>,
    pub(crate) task: Arc<Task<()>>,
    pub(crate) knobs: Arc<Knobs>,
    ground: Ground,
}

/// The setting of a topic that has the view.
pub(crate) const COUNTED: (&str, &str) = ("floe.table", "raw");

pub(crate) fn writer() -> Writer {
    Writer::new("User:test", "test")
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Broker {
    /// A new topic that has the view.
    pub(crate) async fn topic(&self, name: &str, partitions: u32) -> Topic {
        let new = NewTopic { name: name.to_owned(), partitions, configs: settings(&[COUNTED]) };
        self.log.create_topic(&writer(), new, false).await.expect("the topic is new")
    }

    /// Gives the topic these settings and no others.
    pub(crate) async fn configure(&self, topic: &Topic, pairs: &[(&str, &str)]) {
        let (id, configs) = (topic.id, settings(pairs));
        let command = move |tx: &mut Tx<'_>| topic::configure(tx, id, &configs).map(drop);
        self.log.meta().commit(Envelope::broker("test"), command).await.expect("the settings are right");
    }

    /// Appends one batch with these values.
    pub(crate) async fn produce<V: AsRef<[u8]>>(&self, topic: &Topic, partition: u32, values: &[V]) {
        let mut builder = Builder::new(Compression::Zstd);
        for (n, value) in values.iter().enumerate() {
            builder.push(1_000 + n as i64, Some(b"k"), Some(value.as_ref()), &[]);
        }
        self.append(topic, partition, builder.build()).await;
    }

    /// Appends a batch.
    pub(crate) async fn append(&self, topic: &Topic, partition: u32, batch: Bytes) {
        let batches = vec![(PartitionId::new(topic.id, partition), batch)];
        for result in self.log.append(Append { writer: writer(), batches }).await {
            result.expect("the log takes the batch");
        }
    }

    /// The progress of the view, by partition.
    pub(crate) fn progress(&self, topic: &Topic) -> BTreeMap<u32, Offset> {
        progress_of::<Progress<201>>(&self.log.meta().snapshot(), topic.id).expect("it can be read")
    }

    /// What is counted in a partition.
    pub(crate) fn counts(&self, topic: &Topic, partition: u32) -> Counts<200> {
        let partition = PartitionId::new(topic.id, partition);
        self.log.meta().snapshot().get(&partition).expect("it can be read").unwrap_or_default()
    }

    /// The lease of the view on a topic.
    pub(crate) fn lease(&self, topic: &Topic) -> Option<Lease> {
        let name = lease_name("counter", topic.id);
        self.log.meta().snapshot().get::<Lease>(&name).expect("it can be read")
    }

    /// How the view of a topic is doing.
    pub(crate) fn status(&self, topic: &Topic) -> Option<ViewStatus> {
        self.views.status().into_iter().find(|status| status.topic == topic.id)
    }

    /// Waits until everything is counted that is in the log now.
    pub(crate) async fn settled(&self, topic: &Topic) {
        for _ in 0..10_000 {
            let snapshot = self.log.meta().snapshot();
            let progress = self.progress(topic);
            let behind = topic.partition_ids().any(|partition| {
                let end = Log::bounds(&snapshot, partition).expect("the partition exists").high_watermark;
                progress.get(&partition.index).copied().unwrap_or(Offset::ZERO) < end
            });
            if !behind {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{} does not catch up: {:?}", topic.name, self.views.status());
    }

    /// The values of the topic by partition and offset, as the log has them.
    pub(crate) async fn values(&self, topic: &Topic) -> BTreeMap<(u32, i64), Bytes> {
        let snapshot = self.log.meta().snapshot();
        let mut values = BTreeMap::new();
        for partition in topic.partition_ids() {
            let bounds = Log::bounds(&snapshot, partition).expect("the partition exists");
            let mut at = bounds.log_start;
            while at < bounds.high_watermark {
                let read = self.log.read(&snapshot, partition, at, 1 << 20).await.expect("it can be read");
                for batch in &read.batches {
                    for record in batch.records(1 << 20).expect("a test's batch can be decoded") {
                        values.insert((partition.index, record.offset.0), record.value.unwrap_or_default());
                    }
                    at = batch.next_offset();
                }
            }
        }
        values
    }

    /// At every moment, the counts were those of the records below the progress.
    pub(crate) async fn check_every_moment(&self, topic: &Topic) {
        let values = self.values(topic).await;
        let moments = lock(&self.ground.moments).clone();
        let moments: Vec<Moment> = moments.into_iter().filter(|(p, ..)| p.topic == topic.id).collect();
        assert_ne!(moments, [], "the view has committed");
        for (partition, next, counts) in moments {
            let below = values.range((partition.index, 0)..(partition.index, next.0));
            let good = below.map(|(_, value)| value).filter(|value| !is_bad(value));
            let expected = good.fold(Counts::default(), |sum, value| Counts {
                records: sum.records + 1,
                bytes: sum.bytes + value.len() as u64,
            });
            assert_eq!(counts, expected, "{partition} up to {next}");
        }
    }

    /// Each bad record of the topic is a dead letter, once.
    pub(crate) async fn check_letters(&self, topic: &Topic) {
        let mut bad: Vec<Bytes> = self.values(topic).await.into_values().filter(|v| is_bad(v)).collect();
        let name = dead_letter::topic_of(&topic.name).expect("it has dead letters");
        let letters = topic::by_name(&self.log.meta().snapshot(), &name).expect("it can be read");
        let mut found: Vec<Bytes> = match letters {
            Some(letters) => self.values(&letters).await.into_values().collect(),
            None => Vec::new(),
        };
        bad.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, bad, "dead letters");
    }
}
