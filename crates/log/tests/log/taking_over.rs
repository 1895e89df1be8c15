//! A newer broker takes the place of an older one on a journal in the store: of one that is asleep with requests under
//! way, of one that works, and of one that sleeps for so long that the journal has let go of what it knows.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, lock};
use floe_log::{Append, Config, JournalId, Log, OpenError, PartitionId, Writer};
use floe_meta::{BucketJournal, BucketOptions, Envelope, Lsn, Meta, Options};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::world::{batch, config, topic, values};

/// One process's way to the store. While the process is asleep, it sends nothing and reads no answer; what is on its
/// way arrives.
#[derive(Clone)]
struct Sleepy {
    env: Env,
    inner: MemoryStore,
    asleep: Arc<watch::Sender<bool>>,
}

impl Sleepy {
    fn new(env: &Env, inner: &MemoryStore) -> Sleepy {
        Sleepy { env: env.clone(), inner: inner.clone(), asleep: Arc::new(watch::Sender::new(false)) }
    }

    async fn request<T>(&self, effect: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut asleep = self.asleep.subscribe();
        let _ = asleep.wait_for(|asleep| !asleep).await;
        sleep(Duration::from_micros(self.env.random_u64() % 4_000)).await;
        let answer = effect.await;
        sleep(Duration::from_micros(self.env.random_u64() % 4_000)).await;
        let _ = asleep.wait_for(|asleep| !asleep).await;
        answer
    }
}

#[async_trait]
impl Store for Sleepy {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        self.request(self.inner.put(key, payload)).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.request(self.inner.put_if_absent(key, payload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.request(self.inner.get(key, range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.request(self.inner.size(key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.request(self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.request(self.inner.list(prefix, after, count)).await
    }

    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }

    fn remote(&self) -> bool {
        true
    }
}

/// The settings of a broker that takes the place of the one before, if `sole`.
async fn broker(env: &Env, store: &Sleepy, sole: bool) -> Result<Log, OpenError> {
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let journal = BucketJournal::open(env, Arc::clone(&store), BucketOptions::default()).await;
    let journal = journal.expect("the journal opens");
    let config = Config {
        sole,
        journal: JournalId::Bucket(journal.id()),
        linger: Some(Duration::from_millis(5)),
        ..config()
    };
    let meta = Meta::open(env.clone(), Arc::new(journal), Options::default()).await.expect("it loads");
    Log::open(env.clone(), meta, store, config).await
}

/// What was acknowledged, with its offset.
type Acknowledged = Arc<Mutex<Vec<(i64, String)>>>;

/// Appends so many records, one after the other, again and again until each is acknowledged.
async fn client(log: Log, partition: PartitionId, name: &'static str, count: usize, told: Acknowledged) {
    let mut acknowledged = 0;
    for number in 0.. {
        if acknowledged == count {
            return;
        }
        let value = format!("{name} {number}");
        let writer = Writer::new("User:test", name);
        let request = Append { writer, batches: vec![(partition, batch(&[&value]))] };
        match log.append(request).await.remove(0) {
            Ok(appended) => {
                acknowledged += 1;
                lock(&told).push((appended.base_offset.0, value));
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// When the older broker falls asleep, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nap {
    /// It works when the newer one starts.
    None,
    /// A minute: what it knows of the journal is no longer trusted.
    Minutes,
    /// So long that the journal lets go of what it knows.
    Hour,
}

/// Runs an older and a newer broker, and returns what is wrong.
async fn take_over(seed: u64, nap: Nap, is_fenced: bool) -> Vec<String> {
    let env = Env::simulated(seed);
    let memory = MemoryStore::new();
    let (here, there) = (env.scope(), env.scope());
    let (sleepy, awake) = (Sleepy::new(&here, &memory), Sleepy::new(&there, &memory));
    let older = broker(&here, &sleepy, is_fenced).await.expect("the first one starts");
    let partition = PartitionId::new(topic(&older, "t", 1).await.id, 0);
    let (of_older, of_newer) = (Acknowledged::default(), Acknowledged::default());
    for _ in 0..3 {
        drop(env.spawn("client", client(older.clone(), partition, "older", usize::MAX, of_older.clone())));
    }
    sleep(Duration::from_micros(200_000 + env.random_u64() % 100_000)).await;
    sleepy.asleep.send_replace(nap != Nap::None);
    sleep(Duration::from_millis(env.random_u64() % 10)).await;
    let newer = broker(&there, &awake, true).await.expect("the newer one starts");
    let began = newer.meta().snapshot().lsn();
    let last = lock(&of_older).len();
    client(newer.clone(), partition, "newer", 30, of_newer.clone()).await;
    sleep(match nap {
        Nap::None => Duration::ZERO,
        Nap::Minutes => Duration::from_secs(90),
        Nap::Hour => Duration::from_secs(3_600),
    })
    .await;
    client(newer.clone(), partition, "newer", 30, of_newer.clone()).await;
    sleepy.asleep.send_replace(false);
    let mut wrong = Vec::new();
    if timeout(Duration::from_secs(20), older.fenced()).await.is_err() {
        wrong.push("the older broker does not see the newer one".to_owned());
    }
    sleep(Duration::from_secs(5)).await;
    let stored = values(&newer, partition).await;
    for (offset, value) in lock(&of_older).iter().chain(lock(&of_newer).iter()) {
        if stored.get(usize::try_from(*offset).expect("small")) != Some(&(*offset, value.clone())) {
            wrong.push(format!("{value} was acknowledged at {offset} and is not there"));
        }
    }
    let entries = newer.meta().history(Lsn(0), usize::MAX).await.expect("the journal answers");
    let late = entries.iter().filter(|entry| entry.lsn > began && &*entry.envelope.client_id == "older");
    wrong.extend(late.map(|entry| format!("commit {} is of the older broker, behind {began}", entry.lsn)));
    let commit = older.meta().commit(Envelope::broker("test"), |tx| {
        tx.next_counter(&floe_meta::CounterKey::named("test")).map(drop)
    });
    if timeout(Duration::from_secs(20), commit).await.is_ok_and(|done| done.is_ok()) {
        wrong.push("the older broker still commits".to_owned());
    }
    assert!(
        last > 20 && lock(&of_newer).len() > 50,
        "{last} records before, {} after",
        lock(&of_newer).len()
    );
    env.abort_all();
    wrong
}

/// An entry of the journal is made once or not at all. So an acknowledgement of a broker that slept is for a record
/// that the newer broker has, or there is none.
#[tokio::test(start_paused = true)]
async fn what_an_older_broker_acknowledges_is_before_the_newer_one_and_nothing_is_behind() {
    for seed in 0..6 {
        for nap in [Nap::None, Nap::Minutes, Nap::Hour] {
            assert_eq!(take_over(seed, nap, true).await, Vec::<String>::new(), "seed {seed}, {nap:?}");
        }
    }
}

/// Without the fence the same checks find commits of the older broker behind the newer one.
#[tokio::test(start_paused = true)]
async fn an_older_broker_without_a_fence_is_found() {
    for nap in [Nap::None, Nap::Minutes] {
        let wrong = take_over(1, nap, false).await;
        assert!(wrong.iter().any(|line| line.contains("behind")), "{nap:?}: {wrong:?}");
    }
}

/// A start that is overtaken by another one before it has noted its number does not begin.
#[tokio::test(start_paused = true)]
async fn of_two_starts_at_once_one_serves() {
    for seed in 0..10 {
        let env = Env::simulated(seed);
        let memory = MemoryStore::new();
        let scopes = [env.scope(), env.scope()];
        let ways = [Sleepy::new(&scopes[0], &memory), Sleepy::new(&scopes[1], &memory)];
        let (one, two) = tokio::join!(broker(&scopes[0], &ways[0], true), broker(&scopes[1], &ways[1], true));
        sleep(Duration::from_secs(20)).await;
        let mut serving = 0;
        for log in [one, two].into_iter().flatten() {
            if timeout(Duration::from_secs(1), log.fenced()).await.is_err() {
                topic(&log, "t", 1).await;
                serving += 1;
            }
        }
        assert_eq!(serving, 1, "seed {seed}");
        env.abort_all();
    }
}
