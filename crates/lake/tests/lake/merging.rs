//! Small files become larger ones beside the view's commits, and no row changes.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_iceberg::{Operation, Snapshot};
use floe_lake::Config;
use floe_log::topic::Topic;
use floe_store::{
    Listed, MemoryStore, PutIfAbsent, Store, StoreError,
    faulty::{Fault, FaultyStore, Operation as Request},
};
use floe_view::limits::LEASE_TTL;
use futures::FutureExt;
use tokio::time::sleep;

use crate::world::{Broker, Ground, config};

const QUICK: &[(&str, &str)] = &[("floe.table", "json"), ("floe.table.freshness.ms", "100")];

/// Merges soon, and keeps most snapshots, so that each can be checked.
fn eager() -> Config {
    Config { merge_files: 3, snapshots_kept: 200, ..config() }
}

/// Makes one commit for each value.
async fn commit_each(broker: &Broker, topic: &Topic, values: impl Iterator<Item = String>) {
    for (n, value) in values.enumerate() {
        broker.produce(topic, n as u32 % topic.partitions, &[value]).await;
        broker.settled(&topic.name).await;
    }
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("{{\"n\":{n}}}"))
}

async fn snapshots(broker: &Broker, name: &str) -> Vec<Snapshot> {
    let metadata = broker.lake.metadata(&broker.table(name)).await.expect("it can be read");
    metadata.expect("the table was made").snapshots().to_vec()
}

/// Everything that holds at any moment.
async fn check(broker: &Broker, ground: &Ground, name: &str) {
    broker.check_every_snapshot(name).await;
    broker.check_order(name).await;
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn merging_replaces_files_and_changes_no_row() {
    let ground = Ground::new();
    let broker = ground.broker_with(Env::simulated(1), eager()).await;
    let topic = broker.topic("t", 2, QUICK).await;
    commit_each(&broker, &topic, numbers(100)).await;
    broker.merged().await;
    let table = broker.table("t");
    // Four levels of at most two files, and as many that are stuck.
    assert!(table.files <= 12, "{} files", table.files);
    assert_eq!(table.rows, 100);
    let snapshots = snapshots(&broker, "t").await;
    let merges = snapshots.iter().filter(|snapshot| snapshot.summary.operation == Operation::Replace);
    let mut count = 0;
    for merge in merges {
        let of = |name: &str| merge.summary.additional_properties.get(name).cloned().unwrap_or_default();
        assert_eq!(of("added-records"), of("deleted-records"));
        assert_eq!(of("added-data-files"), "1");
        count += 1;
    }
    assert!(count > 20, "{count} merges");
    assert_eq!(snapshots.len(), 100 + count, "nothing else makes a snapshot");
    check(&broker, &ground, "t").await;
    // An idle table is left alone.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(broker.table("t").snapshots, table.snapshots);
}

/// Files, manifests and documents of a table that a small stream feeds for long, and what is stored in all.
#[tokio::test(start_paused = true)]
async fn a_long_stream_leaves_few_files_and_little_metadata() {
    let ground = Ground::new();
    let broker = ground.broker_with(Env::simulated(9), Config::default()).await;
    let topic = broker.topic("t", 4, &[("floe.table", "json"), ("floe.table.freshness.ms", "1000")]).await;
    let mut most = [0; 4];
    for n in 0..1_200_u32 {
        let rows: Vec<String> = (0..3).map(|m| format!("{{\"id\":{n},\"m\":{m}}}")).collect();
        broker.produce(&topic, n % 4, &rows).await;
        sleep(Duration::from_secs(1)).await;
        if n % 50 != 0 {
            continue;
        }
        let table = broker.table("t");
        let metadata = broker.lake.metadata(&table).await.expect("it can be read").expect("it was made");
        let list = &metadata.current_snapshot().expect("there are rows").manifest_list;
        let list = list.trim_start_matches("memory:///");
        let list = broker.log.store().get(list, None).await.expect("it is there");
        let manifests = floe_iceberg::read_manifest_list(&list).expect("it is a list").len();
        let stored = ground.store.keys().into_iter().filter(|key| key.starts_with("lake/")).count();
        let document = metadata.file().expect("it is JSON").len();
        for (most, now) in most.iter_mut().zip([table.files as usize, manifests, document, stored]) {
            *most = now.max(*most);
        }
    }
    let [files, manifests, document, stored] = most;
    assert!(broker.table("t").snapshots > 1_000);
    // Four levels of rows, and files that are stuck.
    assert!(files < 8 * 5, "{files} files");
    assert!(manifests < 8 * 3, "{manifests} manifests");
    assert!(document < 32_000, "a metadata document of {document} bytes");
    // What is garbage waits for ten minutes: about four files for each of 600 commits.
    assert!(stored < 4_000, "{stored} objects");
    broker.check_order("t").await;
    broker.check_every_snapshot("t").await;
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_looks_through_the_table_and_goes_on() {
    let ground = Ground::new();
    let world = Env::simulated(2);
    let env = world.scope();
    let first = ground.broker_with(env.clone(), Config { merge_files: 0, ..eager() }).await;
    let topic = first.topic("t", 1, QUICK).await;
    commit_each(&first, &topic, numbers(50)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((first.table("t").files, first.lake.status()[0].job), (50, None), "it merges nothing");
    first.lake.clone().close().await;
    env.abort_all();
    let second = ground.broker_with(world.scope(), eager()).await;
    sleep(Duration::from_secs(10)).await;
    second.merged().await;
    let table = second.table("t");
    assert!(table.files <= 12, "{} files", table.files);
    assert!(table.snapshots <= 50 + 5, "many files are merged at once: {}", table.snapshots);
    check(&second, &ground, "t").await;
}

#[tokio::test(start_paused = true)]
async fn a_table_stays_fresh_while_its_files_are_merged() {
    let ground = Ground::new();
    let store = FaultyStore::new(ground.store.clone(), |request, key| {
        let slow = request == Request::Get && key.ends_with(".parquet");
        if slow { Fault::Slow(Duration::from_secs(30)) } else { Fault::None }
    });
    let journal = Arc::new(ground.journal.clone());
    let broker = Broker::open_with(Env::simulated(3), Arc::new(store), journal, eager()).await;
    let quiet = ground.broker_with(Env::simulated(4), Config { views: false, ..eager() }).await;
    let topic = broker.topic("t", 1, QUICK).await;
    for n in 1..=150 {
        broker.produce(&topic, 0, &[format!("{{\"n\":{n}}}")]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(broker.table("t").rows, n, "a merge holds up no commit: {:?}", broker.lake.status());
    }
    assert_eq!(broker.lake.status()[0].job, Some("merge"));
    let table = broker.table("t");
    assert!(table.snapshots > 150, "some were adopted");
    quiet.check_every_snapshot("t").await;
    quiet.check_order("t").await;
}

/// Flips a byte of the data file `key`, or puts the whole one back.
async fn damage(broker: &Broker, key: &str, whole: &Bytes, is_damaged: bool) {
    let mut bytes = whole.to_vec();
    bytes[100] ^= u8::from(is_damaged);
    broker.log.store().put(key, vec![bytes.into()]).await.expect("it is taken");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_stops_the_merging_of_its_table_alone() {
    let ground = Ground::new();
    let broker = ground.broker_with(Env::simulated(5), eager()).await;
    let (topic, other) = (broker.topic("t", 1, QUICK).await, broker.topic("other", 1, QUICK).await);
    commit_each(&broker, &topic, numbers(2)).await;
    let key = ground.store.keys().into_iter().find(|key| key.ends_with(".parquet")).expect("there are rows");
    let whole = broker.log.store().get(&key, None).await.expect("it is there");
    damage(&broker, &key, &whole, true).await;
    for round in 1..=5 {
        commit_each(&broker, &topic, numbers(4)).await;
        commit_each(&broker, &other, numbers(4)).await;
        sleep(Duration::from_secs(60)).await;
        let status = broker.lake.status();
        let of = |name: &str| status.iter().find(|view| view.name == name).expect("it runs");
        assert_eq!((of("t").job, &of("t").error), (Some("merge"), &None));
        let (why, _) = of("t").job_error.as_ref().expect("the job fails");
        let file = key.rsplit('/').next().expect("a name");
        assert!(why.contains(file) && why.contains("floe table rebuild"), "{why}");
        assert_eq!((of("other").job, &of("other").job_error), (None, &None));
        let table = broker.table("t");
        assert_eq!((table.rows, table.files, table.snapshots), (2 + 4 * round, 2 + 4 * round, 2 + 4 * round));
    }
    assert!(broker.table("other").files <= 9, "{}", broker.table("other").files);
    damage(&broker, &key, &whole, false).await;
    sleep(Duration::from_secs(120)).await;
    broker.merged().await;
    assert!(broker.table("t").files <= 9, "{}", broker.table("t").files);
    assert!(broker.lake.status().iter().all(|view| view.job_error.is_none()));
    check(&broker, &ground, "t").await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_under_a_stale_epoch_is_not_adopted() {
    let ground = Ground::new();
    let world = Env::simulated(6);
    let (reads, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (slow_reads, slow_writes) = (Arc::clone(&reads), Arc::clone(&writes));
    let store = FaultyStore::new(ground.store.clone(), move |request, key| {
        let waits = match request {
            Request::Get if key.ends_with(".parquet") => slow_reads.load(Ordering::SeqCst),
            Request::Put if key.starts_with("lake/") => slow_writes.load(Ordering::SeqCst),
            _ => false,
        };
        if waits { Fault::Slow(Duration::from_secs(30)) } else { Fault::None }
    });
    let env = world.scope();
    let first =
        Broker::open_with(env.clone(), Arc::new(store), Arc::new(ground.journal.clone()), eager()).await;
    let topic = first.topic("t", 1, QUICK).await;
    // A merge is stuck with its inputs, then a step with its files, so that the lease is not renewed.
    reads.store(true, Ordering::SeqCst);
    commit_each(&first, &topic, numbers(3)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(first.lake.status()[0].job, Some("merge"));
    writes.store(true, Ordering::SeqCst);
    first.produce(&topic, 0, &["{\"n\":3}"]).await;
    let second = ground.broker_with(world.scope(), eager()).await;
    for n in 4..60 {
        second.produce(&topic, 0, &[format!("{{\"n\":{n}}}")]).await;
        sleep(Duration::from_secs(5)).await;
    }
    let table = second.settled("t").await;
    second.merged().await;
    assert_eq!(table.rows, 60);
    check(&second, &ground, "t").await;
    drop(first);
}

/// What a random history does next.
async fn live_on(broker: &Broker, topic: &Topic, env: &Env, value: &mut u64) {
    for _ in 0..1 + env.random_u64() % 30 {
        *value += 1;
        let n = *value;
        let row = match env.random_u64() % 40 {
            0 => format!("{{\"n\":{n}.5}}"),
            1 => format!("{{\"n\":\"text {n}\"}}"),
            2 => format!("{{\"n\":{n},\"c{n}\":{{\"x\":{n}}}}}"),
            3 => "bad".to_owned(),
            _ => format!("{{\"n\":{n}}}"),
        };
        let partition = (env.random_u64() % 3) as u32;
        broker.produce(topic, partition, &[row]).await;
        sleep(Duration::from_millis(env.random_u64() % 1_000)).await;
    }
}

/// A history of appends, columns that change, crashes and merges. Returns the number of merges.
async fn random_history(seed: u64) -> usize {
    let ground = Ground::new();
    let world = Env::simulated(seed);
    let step_rewrite_bytes = if seed.is_multiple_of(2) { 0 } else { 8 << 20 };
    let merge_files = 2 + (seed % 3) as usize;
    let lake = Config { merge_files, step_rewrite_bytes, snapshots_kept: 40, ..config() };
    let mut value = 0;
    let maker = world.scope();
    let topic = ground.broker_with(maker.clone(), lake).await.topic("t", 3, QUICK).await;
    maker.abort_all();
    for _ in 0..5 {
        let env = world.scope();
        env.crash_at_poll(1 + env.random_u64() % 6_000);
        let life = async {
            let broker = ground.broker_with(env.clone(), lake).await;
            // The lease of the former owner has to end.
            sleep(LEASE_TTL + Duration::from_millis(world.random_u64() % 3_000)).await;
            live_on(&broker, &topic, &world, &mut value).await;
        };
        tokio::select! {
            biased;
            () = env.crashed() => {}
            () = life => {}
        }
        env.abort_all();
    }
    let broker = ground.broker_with(world.scope(), lake).await;
    sleep(LEASE_TTL * 2).await;
    live_on(&broker, &topic, &world, &mut value).await;
    broker.settled("t").await;
    broker.jobs_done().await;
    broker.merged().await;
    check(&broker, &ground, "t").await;
    let snapshots = snapshots(&broker, "t").await;
    snapshots.iter().filter(|snapshot| snapshot.summary.operation == Operation::Replace).count()
}

#[tokio::test(start_paused = true)]
async fn random_histories_lose_and_double_nothing() {
    let mut merges = 0;
    for seed in 0..8 {
        merges += random_history(seed).await;
    }
    assert!(merges > 40, "{merges} merges");
}

/// A store that gives the first data file for the second. A merge of both repeats the rows of one and drops those of
/// the other.
struct Confused {
    store: MemoryStore,
    /// The data files in the order in which they were put.
    data_files: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for Confused {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        if key.ends_with(".parquet") {
            self.data_files.lock().expect("no test panics here").push(key.to_owned());
        }
        self.store.put(key, payload).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.store.put_if_absent(key, payload).await
    }

    async fn get(&self, key: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        let given = {
            let files = self.data_files.lock().expect("no test panics here");
            if files.get(1).is_some_and(|second| second == key) { files[0].clone() } else { key.to_owned() }
        };
        self.store.get(&given, range).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.store.size(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix, after, count).await
    }

    fn url(&self, key: &str) -> String {
        self.store.url(key)
    }

    fn remote(&self) -> bool {
        self.store.remote()
    }
}

#[tokio::test(start_paused = true)]
async fn planted_a_merge_that_drops_and_repeats_rows_is_seen() {
    let ground = Ground::new();
    let store = Confused { store: ground.store.clone(), data_files: Mutex::default() };
    let journal = Arc::new(ground.journal.clone());
    let broker = Broker::open_with(Env::simulated(7), Arc::new(store), journal, eager()).await;
    let quiet = ground.broker_with(Env::simulated(8), Config { views: false, ..eager() }).await;
    let topic = broker.topic("t", 1, QUICK).await;
    commit_each(&broker, &topic, std::iter::repeat_n("{\"n\":1}".to_owned(), 9)).await;
    broker.merged().await;
    let merges = snapshots(&quiet, "t").await.into_iter();
    assert!(merges.filter(|snapshot| snapshot.summary.operation == Operation::Replace).count() > 0);
    let seen = AssertUnwindSafe(quiet.check_every_snapshot("t")).catch_unwind().await;
    assert!(seen.is_err(), "rows were dropped and repeated, and the check passed");
}
