//! The history of a broker: every commit has its rows once, whatever moves, crashes or is damaged.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_group::{OffsetKey, OffsetRecord};
use floe_history::map::{self, FOLDER};
use floe_history::{ChangeKind, Config, Done, History, HistoryError, Names, Row, decode, read, table};
use floe_iceberg::{DataFile, Operation, TableMetadata, read_entries, read_manifest_list};
use floe_log::codec::Compression;
use floe_log::deleted::Which;
use floe_log::records::Builder;
use floe_log::topic::{NewTopic, Topic};
use floe_log::{Append, Below, Log, Offset, PartitionId, Pinned, Writer};
use floe_meta::{DecodeError, Envelope, Journal as _, JournalError, Lsn, MemoryJournal, Meta, Options, Tx};
use floe_store::MemoryStore;

/// Small parts, and no patience.
const CONFIG: Config = Config {
    commits_due: 10,
    change_bytes_due: 1 << 20,
    freshness: Duration::from_secs(1 << 20),
    part_commits_max: 25,
    snapshots_kept: 3,
    snapshot_age: Duration::from_secs(60),
    pause: Duration::from_millis(100),
    lease_ttl: Duration::from_secs(10),
    waste_grace: Duration::from_secs(20),
};

/// What outlives every broker.
#[derive(Clone, Default)]
struct Ground {
    store: MemoryStore,
    journal: MemoryJournal,
}

struct Broker {
    ground: Ground,
    log: Log,
    history: History,
}

impl Ground {
    async fn broker(&self, env: &Env) -> Broker {
        let meta = Meta::open(env.clone(), Arc::new(self.journal.clone()), Options::default()).await.unwrap();
        let store = Arc::new(self.store.clone());
        let log = Log::open(env.clone(), meta, store, floe_log::Config::default()).await.unwrap();
        let history = History::new(log.clone(), CONFIG);
        Broker { ground: self.clone(), log, history }
    }

    /// The rows of everything that was ever committed, up to a commit.
    fn due(&self, last: Lsn) -> Vec<Row> {
        let mut names = Names::default();
        let entries = self.journal.everything().into_iter().filter(|entry| entry.lsn <= last);
        entries.flat_map(|entry| floe_history::rows(&entry, &mut names).unwrap()).collect()
    }

    fn objects(&self) -> BTreeSet<String> {
        self.store.keys().into_iter().filter(|key| key.starts_with(FOLDER)).collect()
    }
}

impl Broker {
    async fn topic(&self, name: &str) -> Topic {
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let new = NewTopic { name: name.to_owned(), partitions: 2, configs };
        self.log.create_topic(&Writer::new("admin", "cli"), new, false).await.unwrap()
    }

    async fn produce(&self, topic: &Topic, partition: u32, client: &str, records: usize) {
        let mut builder = Builder::new(Compression::None);
        for number in 0..records {
            builder.push(number as i64, None, Some(b"value"), &[]);
        }
        let batches = vec![(PartitionId::new(topic.id, partition), builder.build())];
        let append = Append { writer: Writer::new("User:ann", client), batches };
        for result in self.log.append(append).await {
            result.unwrap();
        }
    }

    /// All rows of a snapshot, as any reader gets them.
    async fn rows(&self, pinned: &Pinned) -> Result<Vec<Row>, HistoryError> {
        let parts = read::parts(&**pinned)?;
        let mut rows = Vec::new();
        for placed in &parts {
            let object = read::object(self.log.store(), placed).await?;
            rows.extend(decode(object, false).unwrap().rows().unwrap());
        }
        let mut names = read::names(self.log.store(), parts.last()).await?;
        let range = (read::end(&**pinned)?, pinned.lsn());
        read::rows_after((self.log.env(), self.log.meta()), range, &mut names, |more| {
            rows.extend(more);
            Ok(true)
        })
        .await?;
        Ok(rows)
    }

    /// Every commit of now has its rows once.
    async fn check(&self) {
        let pinned = self.log.pin();
        assert_eq!(self.rows(&pinned).await.unwrap(), self.ground.due(pinned.lsn()));
    }

    async fn rounds(&self) -> Done {
        let mut sum = Done::default();
        loop {
            let done = self.history.round().await.unwrap();
            sum.commits += done.commits;
            sum.merged += done.merged;
            sum.deleted += done.deleted;
            sum.published += done.published;
            if !done.more {
                return sum;
            }
        }
    }

    /// The first commit that the journal keeps.
    async fn kept(&self) -> Lsn {
        match self.ground.journal.history(Lsn(0), 1).await {
            Err(JournalError::Reload(kept)) => kept,
            _ => Lsn(1),
        }
    }
}

/// Runs a future in this thread, whose time is simulated.
fn simulate<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn a_row_says_what_happened() {
    simulate(async {
        let env = Env::simulated(1);
        let broker = Ground::default().broker(&env).await;
        let first = broker.log.meta().snapshot().lsn();
        let orders = broker.topic("orders").await;
        broker.produce(&orders, 1, "etl", 3).await;
        broker.produce(&orders, 1, "web", 2).await;
        let partition = PartitionId::new(orders.id, 1);
        let offset = OffsetRecord { offset: 4, leader_epoch: -1, metadata: String::new(), committed: 0 };
        let key = OffsetKey { group: "readers".to_owned(), partition };
        let commit = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
            tx.put(&key, &offset);
            Ok(())
        };
        let mut envelope = Envelope::client("User:bob".into(), "app".into());
        envelope.run_id = Some("run 7".into());
        envelope.undo_of = Some(Lsn(2));
        broker.log.meta().commit(envelope, commit).await.unwrap();
        let who = Writer::new("admin", "cli");
        let below = Below { partition, offset: Some(Offset(2)) };
        broker.log.delete_records(&who, &[below]).await.remove(0).unwrap();
        broker.log.delete_topic(&who, orders.id).await.unwrap();
        let which = Which::Name("orders".to_owned());
        broker.log.undelete_topic(&who, which, Some("orders-2".to_owned())).await.unwrap();
        let rows = broker.ground.due(Lsn(u64::MAX));
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("-").to_owned();
        let told: Vec<String> = rows
            .iter()
            .filter(|row| row.lsn > first && row.change != ChangeKind::Other)
            .map(|row| {
                let numbers = (row.partition, row.first_offset, row.offsets);
                let who = format!("{}/{}", row.principal, row.client_id);
                format!("{} {} {numbers:?} {who} {}", row.change.word(), text(&row.topic), text(&row.group))
            })
            .collect();
        assert_eq!(
            told,
            [
                "create orders (None, None, None) admin/cli -",
                "append orders (Some(1), Some(0), Some(3)) User:ann/etl -",
                "append orders (Some(1), Some(3), Some(2)) User:ann/web -",
                "group offset orders (Some(1), Some(4), None) User:bob/app readers",
                "trim orders (Some(1), Some(2), None) admin/cli -",
                "delete orders (None, None, None) admin/cli -",
                "undelete orders-2 (None, None, None) admin/cli -",
            ]
        );
        let offset = rows.iter().find(|row| row.change == ChangeKind::GroupOffset).unwrap();
        assert_eq!((offset.run_id.as_deref(), offset.undo_of), (Some("run 7"), Some(Lsn(2))));
        let create = rows.iter().find(|row| row.change == ChangeKind::Create).unwrap();
        assert_eq!(create.detail.as_deref(), Some(r#"{"partitions":2,"retention.ms":"-1"}"#));
        assert!(rows.iter().all(|row| row.change != ChangeKind::Append || row.bytes > Some(60)));
        // No commit is without a row.
        let commits: BTreeSet<u64> = rows.iter().map(|row| row.lsn.0).collect();
        assert!(commits.into_iter().eq(1..=broker.log.meta().snapshot().lsn().0));
    });
}

#[test]
fn every_commit_has_its_rows_once_while_parts_are_written_and_merged() {
    simulate(async {
        let env = Env::simulated(2);
        let ground = Ground::default();
        let mut broker = ground.broker(&env.scope()).await;
        let topic = broker.topic("t").await;
        let (mut merged, mut deleted) = (0, 0);
        for round in 0..120_u64 {
            for number in 0..env.random_u64() % 8 {
                let client = format!("client {}", env.random_u64() % 5);
                broker.produce(&topic, (number % 2) as u32, &client, 1 + (round % 3) as usize).await;
            }
            let done = broker.rounds().await;
            merged += done.merged;
            deleted += done.deleted;
            broker.check().await;
            let parts = map::parts(&broker.log.meta().snapshot()).unwrap();
            assert!(parts.len() <= 8 + 4, "{} parts", parts.len());
            tokio::time::sleep(Duration::from_secs(2)).await;
            if round % 40 == 39 {
                broker.log.close().await;
                broker = ground.broker(&env.scope()).await;
            }
        }
        assert!(merged > 8 && deleted > 8, "{merged} merged, {deleted} deleted");
        // The journal keeps what is not in a part, and little more.
        let end = map::end(&broker.log.meta().snapshot()).unwrap();
        assert!(broker.kept().await.0 + 60 > end.0, "{} of {end}", broker.kept().await);
        let map::Objects { named, loose } = map::objects(&broker.log.meta().snapshot()).unwrap();
        let known: BTreeSet<String> = named.into_iter().map(|(key, _)| key).chain(loose).collect();
        assert!(ground.objects().is_subset(&known), "nothing is in the store that nobody knows");
        let damage = |keys: BTreeSet<String>| {
            let length = |key: &str| keys.contains(key).then(|| ground.store.keys().len() as u64);
            map::damage(&broker.log.meta().snapshot(), length).unwrap()
        };
        assert!(damage(BTreeSet::new()).iter().all(|line| line.contains("is missing")));
        assert!(damage(ground.objects()).iter().all(|line| line.contains("bytes instead of")));
    });
}

/// The files of the table's current snapshot, as a reader without the map finds them: from the metadata document on.
async fn data_files(broker: &Broker) -> (TableMetadata, Vec<DataFile>) {
    let store = broker.log.store();
    let snapshot = broker.log.meta().snapshot();
    let (_, metadata) = table::metadata(store, &snapshot).await.unwrap().unwrap();
    let current = metadata.current_snapshot().unwrap().clone();
    let mut files = Vec::new();
    for manifest in read_manifest_list(&get_url(broker, &current.manifest_list).await).unwrap() {
        let entries = read_entries(&get_url(broker, &manifest.manifest_path).await, &manifest).unwrap();
        files.extend(entries.into_iter().filter(|entry| entry.is_alive()).map(|entry| entry.data_file));
    }
    (metadata, files)
}

async fn get_url(broker: &Broker, url: &str) -> Bytes {
    let at = url.rfind(&format!("/{FOLDER}/")).unwrap() + 1;
    broker.log.store().get(&url[at..], None).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Every snapshot that the metadata document has can be read, with all its files.
async fn check_snapshots(broker: &Broker, metadata: &TableMetadata) {
    for snapshot in metadata.snapshots() {
        let mut rows = 0;
        for manifest in read_manifest_list(&get_url(broker, &snapshot.manifest_list).await).unwrap() {
            let entries = read_entries(&get_url(broker, &manifest.manifest_path).await, &manifest).unwrap();
            for entry in entries.into_iter().filter(|entry| entry.is_alive()) {
                let object = get_url(broker, &entry.data_file.file_path).await;
                assert_eq!(object.len() as u64, entry.data_file.file_size_in_bytes);
                rows += entry.data_file.record_count;
            }
        }
        assert_eq!(rows.to_string(), snapshot.summary.additional_properties["total-records"]);
    }
    for log in metadata.metadata_log() {
        get_url(broker, &log.metadata_file).await;
    }
}

#[test]
fn the_parts_are_an_iceberg_table_whose_snapshots_can_be_read() {
    simulate(async {
        let env = Env::simulated(7);
        let ground = Ground::default();
        let mut broker = ground.broker(&env.scope()).await;
        let topic = broker.topic("t").await;
        let (mut published, mut replaced) = (0, 0);
        for round in 0..60_u64 {
            for _ in 0..6 {
                broker.produce(&topic, 0, "a", 1).await;
            }
            published += broker.rounds().await.published;
            let parts = map::parts(&broker.log.meta().snapshot()).unwrap();
            if !parts.is_empty() {
                let (metadata, files) = data_files(&broker).await;
                let found: BTreeSet<(u64, u64)> =
                    files.iter().map(|file| (file.record_count, file.file_size_in_bytes)).collect();
                let due = parts.iter().map(|placed| (placed.part.rows, placed.part.bytes)).collect();
                assert_eq!(found, due, "round {round}");
                assert!(metadata.snapshots().len() <= CONFIG.snapshots_kept);
                check_snapshots(&broker, &metadata).await;
                let current = metadata.current_snapshot().unwrap();
                replaced += u32::from(current.summary.operation == Operation::Replace);
                assert_ne!(current.summary.operation, Operation::Overwrite);
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            if round % 25 == 24 {
                broker.log.close().await;
                broker = ground.broker(&env.scope()).await;
            }
        }
        assert!(published > 30 && replaced > 1, "{published} published, {replaced} replaced");
        let documents = map::documents(&broker.log.meta().snapshot()).unwrap();
        assert!(documents.len() < 60, "{} documents", documents.len());
        // Old snapshots go, and so does what only they had.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(40)).await;
            broker.produce(&topic, 0, "a", 1).await;
            broker.rounds().await;
            let (metadata, _) = data_files(&broker).await;
            check_snapshots(&broker, &metadata).await;
            let before = metadata.snapshots().split_last().unwrap().1;
            let is_young = |time: i64| env.now().0 - time <= 61_000;
            assert!(before.iter().all(|snapshot| is_young(snapshot.timestamp_ms)));
        }
        let snapshot = broker.log.meta().snapshot();
        let map::Objects { named, loose } = map::objects(&snapshot).unwrap();
        let known: BTreeSet<String> = named.into_iter().map(|(key, _)| key).chain(loose).collect();
        assert!(broker.ground.objects().is_subset(&known));
        let late =
            map::waste(&snapshot).unwrap().into_iter().filter(|(_, since)| env.now().0 - since.0 > 130_000);
        assert_eq!(late.collect::<Vec<_>>(), [], "waste goes");
    });
}

/// A document that is lost or damaged costs the table its snapshots, and nothing else.
#[test]
fn a_damaged_document_is_left_behind() {
    simulate(async {
        let env = Env::simulated(8);
        let ground = Ground::default();
        let broker = ground.broker(&env.scope()).await;
        let topic = broker.topic("t").await;
        let write = async |broker: &Broker| {
            for _ in 0..12 {
                broker.produce(&topic, 0, "a", 1).await;
            }
            broker.rounds().await
        };
        write(&broker).await;
        let before = map::table(&broker.log.meta().snapshot()).unwrap().unwrap();
        for (number, document) in map::documents(&broker.log.meta().snapshot()).unwrap() {
            let key = map::document_key(document.form, number);
            broker.ground.store.remove(&key);
            broker.ground.store.plant(&key, Bytes::from_static(b"this is none"));
        }
        let snapshot = broker.log.meta().snapshot();
        let damage = map::damage(&snapshot, |_| Some(12)).unwrap();
        assert!(damage.iter().filter(|line| line.contains("system.commits")).count() >= 3, "{damage:?}");
        let refused = table::metadata(broker.log.store(), &snapshot).await.unwrap_err();
        assert!(refused.to_string().contains("checksum") || refused.to_string().contains("metadata"));
        // The process that wrote the table knows it; the next one has to read it.
        broker.log.close().await;
        let broker = ground.broker(&env.scope()).await;
        write(&broker).await;
        tokio::time::sleep(CONFIG.lease_ttl).await;
        write(&broker).await;
        let after = map::table(&broker.log.meta().snapshot()).unwrap().unwrap();
        assert_ne!(before.uuid, after.uuid);
        let (metadata, files) = data_files(&broker).await;
        assert_eq!(files.len() as u64, after.files);
        check_snapshots(&broker, &metadata).await;
        broker.check().await;
    });
}

/// Few commits become a part when they are old enough, and a start counts what the journal has.
#[test]
fn a_part_is_due_by_time_and_by_bytes_across_starts() {
    simulate(async {
        let env = Env::simulated(9);
        let ground = Ground::default();
        let patient = Config {
            commits_due: 1_000_000,
            freshness: Duration::from_secs(3600),
            change_bytes_due: 30_000,
            ..CONFIG
        };
        let broker = ground.broker(&env.scope()).await;
        let topic = broker.topic("t").await;
        let bytes = || -> usize {
            let change = |change: &floe_meta::Change| {
                change.key.len() + change.value.as_ref().map_or(0, |value| value.len())
            };
            ground.journal.everything().iter().flat_map(|entry| entry.changes.iter().map(change)).sum()
        };
        while bytes() < 25_000 {
            broker.produce(&topic, 0, "a", 1).await;
        }
        let history = History::new(broker.log.clone(), patient);
        assert_eq!(history.round().await.unwrap().commits, 0);
        broker.log.close().await;
        let broker = ground.broker(&env.scope()).await;
        let history = History::new(broker.log.clone(), patient);
        assert_eq!(history.round().await.unwrap().commits, 0);
        while bytes() < 30_000 {
            broker.produce(&topic, 0, "a", 1).await;
        }
        assert!(history.round().await.unwrap().commits > 10, "{} bytes", bytes());
        // A few commits wait for an hour.
        for _ in 0..150 {
            broker.produce(&topic, 0, "a", 1).await;
        }
        let history = History::new(broker.log.clone(), Config { change_bytes_due: 1 << 30, ..patient });
        assert_eq!(history.round().await.unwrap().commits, 0);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(history.round().await.unwrap().commits > 0);
        broker.check().await;
    });
}

/// What retention and DeleteRecords take of a topic with a trash is told with its topic, its partition and its offsets,
/// and so is its return.
#[test]
fn records_that_go_to_the_trash_and_come_back_are_told() {
    simulate(async {
        let env = Env::simulated(10);
        let broker = Ground::default().broker(&env).await;
        let who = Writer::new("admin", "cli");
        let configs = BTreeMap::from([("floe.trash.ms".to_owned(), "86400000".to_owned())]);
        let new = NewTopic { name: "orders".to_owned(), partitions: 2, configs };
        let topic = broker.log.create_topic(&who, new, false).await.unwrap();
        for _ in 0..3 {
            broker.produce(&topic, 1, "etl", 2).await;
        }
        let partition = PartitionId::new(topic.id, 1);
        let below = Below { partition, offset: Some(Offset(4)) };
        broker.log.delete_records(&who, &[below]).await.remove(0).unwrap();
        let which = Which::Name("orders".to_owned());
        broker.log.undelete_topic(&who, which, Some("back".to_owned())).await.unwrap();
        broker.produce(&topic, 1, "etl", 2).await;
        let below = Below { partition, offset: Some(Offset(6)) };
        broker.log.delete_records(&who, &[below]).await.remove(0).unwrap();
        broker.log.purge_topics(&who, Which::Name("orders".to_owned())).await.unwrap();
        let rows = broker.ground.due(Lsn(u64::MAX));
        let number = |id: Option<u64>| id.map(|id| if id == topic.id.0 { "same" } else { "other" });
        let told: Vec<String> = rows
            .iter()
            .filter(|row| !matches!(row.change, ChangeKind::Other | ChangeKind::Append))
            .map(|row| {
                let topic = row.topic.as_deref().unwrap_or("-");
                let place = (row.partition, row.first_offset, row.offsets);
                let id = row.detail.as_deref().is_some_and(|detail| detail.contains("removed"));
                format!("{} {topic} {:?} {place:?} {id}", row.change.word(), number(row.topic_id))
            })
            .collect();
        assert_eq!(
            told,
            [
                "create orders Some(\"same\") (None, None, None) false",
                "trim orders Some(\"same\") (Some(1), Some(4), Some(4)) false",
                "delete orders Some(\"same\") (Some(1), Some(0), Some(4)) true",
                "undelete back Some(\"other\") (None, None, None) false",
                "undelete back Some(\"other\") (Some(1), Some(0), Some(4)) false",
                "trim orders Some(\"same\") (Some(1), Some(6), Some(2)) false",
                "delete orders Some(\"same\") (Some(1), Some(4), Some(2)) true",
                "purge orders Some(\"same\") (None, None, None) true",
            ]
        );
        assert!(rows.iter().all(|row| row.change != ChangeKind::Delete || row.bytes > Some(60)));
    });
}

/// A reader's snapshot takes commits from the journal that are in a part by now: they stay until it is done. Then they
/// go. The objects of parts that are merged stay as long.
#[test]
fn a_pinned_snapshot_reads_what_it_saw() {
    simulate(async {
        let env = Env::simulated(3);
        let broker = Ground::default().broker(&env).await;
        let topic = broker.topic("t").await;
        let mut pins = Vec::new();
        for _ in 0..12 {
            for _ in 0..12 {
                broker.produce(&topic, 0, "a", 1).await;
            }
            let pinned = broker.log.pin();
            pins.push((broker.ground.due(pinned.lsn()), pinned));
            broker.rounds().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        for _ in 0..5 {
            broker.rounds().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        for (due, pinned) in &pins {
            assert_eq!(broker.rows(pinned).await.unwrap(), *due);
        }
        assert_eq!(broker.kept().await, Lsn(1));
        drop(pins);
        let before = broker.ground.objects().len();
        for _ in 0..5 {
            // The session tells with a commit that happens anyway.
            broker.produce(&topic, 0, "a", 1).await;
            broker.rounds().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        assert!(broker.kept().await > Lsn(100), "{}", broker.kept().await);
        assert!(broker.ground.objects().len() < before, "waste goes");
        broker.check().await;
    });
}

/// A broker dies at any await of its job. The next one goes on, and nothing is lost or twice.
#[test]
fn a_crash_anywhere_loses_nothing() {
    let mut crashes = 0;
    for poll in (1..700).step_by(47) {
        let crashed = simulate(async move {
            let env = Env::simulated(4);
            let ground = Ground::default();
            let scope = env.scope();
            let broker = ground.broker(&scope).await;
            let topic = broker.topic("t").await;
            scope.crash_at_poll(scope.polls() + poll);
            drop(scope.spawn("history", broker.history.clone().run()));
            let log = broker.log.clone();
            let broker = Arc::new(broker);
            let producing = Arc::clone(&broker);
            let topic_then = topic.clone();
            let task = scope.spawn("producer", async move {
                for _ in 0..60 {
                    producing.produce(&topic_then, 0, "a", 1).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            let ended = tokio::select! {
                biased;
                () = scope.crashed() => true,
                ended = task => ended.is_err(),
            };
            scope.abort_all();
            drop((broker, log));
            // The lease of the dead runs out, and so does the grace of what it began.
            let next = ground.broker(&env.scope()).await;
            next.check().await;
            for _ in 0..8 {
                for _ in 0..10 {
                    next.produce(&topic, 0, "b", 1).await;
                }
                next.rounds().await;
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
            next.check().await;
            let map::Objects { named, loose } = map::objects(&next.log.meta().snapshot()).unwrap();
            let known: BTreeSet<String> = named.iter().map(|(key, _)| key.clone()).chain(loose).collect();
            let stored = next.ground.objects();
            assert!(stored.is_subset(&known), "{:?}", stored.difference(&known));
            assert!(named.iter().all(|(key, _)| stored.contains(key)));
            let (metadata, files) = data_files(&next).await;
            check_snapshots(&next, &metadata).await;
            assert_eq!(files.len(), map::parts(&next.log.meta().snapshot()).unwrap().len());
            ended
        });
        crashes += u32::from(crashed);
    }
    assert!(crashes > 8, "only {crashes} crashes");
}

#[test]
fn one_broker_at_a_time_moves_the_history_on() {
    simulate(async {
        let env = Env::simulated(5);
        let ground = Ground::default();
        let one = ground.broker(&env.scope()).await;
        let topic = one.topic("t").await;
        let other = History::new(one.log.clone(), CONFIG);
        for _ in 0..30 {
            one.produce(&topic, 0, "a", 1).await;
        }
        assert!(one.rounds().await.commits > 10);
        for _ in 0..30 {
            one.produce(&topic, 0, "a", 1).await;
        }
        // The other one waits until it has seen no renewal for the time to live.
        assert_eq!(other.round().await.unwrap().commits, 0);
        tokio::time::sleep(CONFIG.lease_ttl).await;
        assert!(other.round().await.unwrap().commits > 10);
        one.check().await;
    });
}

/// A damaged object is named. Everything else goes on, and so does the history behind it.
#[test]
fn a_damaged_object_stops_nothing_else() {
    simulate(async {
        let env = Env::simulated(6);
        let broker = Ground::default().broker(&env).await;
        let topic = broker.topic("t").await;
        let write = async || {
            for _ in 0..12 {
                broker.produce(&topic, 0, "a", 1).await;
            }
            broker.history.round().await
        };
        write().await.unwrap();
        let first = map::parts(&broker.log.meta().snapshot()).unwrap()[0];
        let sound = read::object(broker.log.store(), &first).await.unwrap();
        let mut rotten = sound.to_vec();
        rotten[40] ^= 1;
        broker.ground.store.remove(&first.key());
        broker.ground.store.plant(&first.key(), rotten.into());
        let refused = read::object(broker.log.store(), &first).await.unwrap_err();
        assert!(refused.to_string().contains(&first.key()), "{refused}");
        let (mut errors, mut merged) = (0, 0);
        for _ in 0..30 {
            write().await.unwrap();
            match broker.history.round().await {
                Ok(done) => merged += done.merged,
                Err(_) => errors += 1,
            }
        }
        let parts = map::parts(&broker.log.meta().snapshot()).unwrap();
        assert_eq!(parts[0], first);
        assert!(
            errors > 0 && merged > 8 && parts.len() < 20,
            "{errors} errors, {merged} merged, {}",
            parts.len()
        );
        // Put back from a copy.
        broker.ground.store.remove(&first.key());
        broker.ground.store.plant(&first.key(), sound);
        broker.rounds().await;
        broker.check().await;
    });
}
