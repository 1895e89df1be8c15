//! Failing stores and journals, and two brokers that want the same table.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use floe_env::Env;
use floe_meta::{Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome};
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::world::{Broker, Ground, JSON};

/// Fails one in `every` requests for files of the lake: before its effect, or after it.
fn flaky(ground: &Ground, every: u64) -> FaultyStore {
    let requests = AtomicU64::new(0);
    FaultyStore::new(ground.store.clone(), move |operation, key| {
        if !key.starts_with("lake/") || !matches!(operation, Operation::Put | Operation::Get) {
            return Fault::None;
        }
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        match operation {
            _ if !number.is_multiple_of(every) => Fault::None,
            Operation::Get => Fault::Refused,
            _ if (number / every).is_multiple_of(2) => Fault::LostAnswer,
            _ => Fault::Full,
        }
    })
}

/// Delays the PUTs of files of the lake with these numbers, from 0.
fn stuck(ground: &Ground, at: Range<u64>, pause: Duration) -> FaultyStore {
    let puts = AtomicU64::new(0);
    FaultyStore::new(ground.store.clone(), move |operation, key| {
        let counts = operation == Operation::Put && key.starts_with("lake/");
        if counts && at.contains(&puts.fetch_add(1, Ordering::Relaxed)) {
            Fault::Slow(pause)
        } else {
            Fault::None
        }
    })
}

/// Loses the answer of one in `every` commits; by turns it was applied and was not.
struct Lossy {
    journal: Arc<dyn Journal>,
    commits: AtomicU64,
    every: u64,
}

#[async_trait]
impl Journal for Lossy {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = || JournalError::Unknown("planted".to_owned());
        match number % self.every {
            0 if (number / self.every).is_multiple_of(2) => Err(lost()),
            0 => self.journal.commit(expected, attempt, commits).await.and_then(|_| Err(lost())),
            _ => self.journal.commit(expected, attempt, commits).await,
        }
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.journal.follow(from).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
}

async fn produce_and_check(ground: &Ground, broker: &Broker) {
    let topic = broker.topic("t", 2, JSON).await;
    for n in 0..20_u32 {
        let value = if n == 7 { "bad".to_owned() } else { format!("{{\"n\":{n}}}") };
        broker.produce(&topic, n % 2, &[value]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records), (19, 1));
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_delays_and_loses_nothing() {
    for every in [3, 5, 8] {
        let ground = Ground::new();
        let store = flaky(&ground, every);
        let broker =
            Broker::open(Env::simulated(every), Arc::new(store), Arc::new(ground.journal.clone())).await;
        // The checks read through a store that does not fail.
        let quiet = ground.broker(Env::simulated(99)).await;
        let topic = broker.topic("t", 2, JSON).await;
        for n in 0..20_u32 {
            broker.produce(&topic, n % 2, &[format!("{{\"n\":{n}}}")]).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(broker.settled("t").await.rows, 20);
        tokio::time::sleep(Duration::from_secs(30)).await;
        quiet.settled("t").await;
        quiet.check_every_snapshot("t").await;
        quiet.check_no_orphans(&ground.store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_journal_doubles_nothing() {
    for every in [2, 3, 5] {
        let ground = Ground::new();
        let journal = Arc::new(ground.journal.clone());
        let journal = Lossy { journal, commits: AtomicU64::new(0), every };
        let store = Arc::new(ground.store.clone());
        let broker = Broker::open(Env::simulated(every), store, Arc::new(journal)).await;
        produce_and_check(&ground, &broker).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_brokers_one_writes_and_the_other_takes_over() {
    let ground = Ground::new();
    let world = Env::simulated(1);
    let (first_env, second_env) = (world.scope(), world.scope());
    let first = ground.broker(first_env.clone()).await;
    let second = ground.broker(second_env).await;
    produce_and_check(&ground, &first).await;
    first_env.abort_all();
    let topic = second.table("t").topic;
    for n in 20..30_u32 {
        second.produce(&topic, n % 2, &[format!("{{\"n\":{n}}}")]).await;
    }
    assert_eq!(second.settled("t").await.rows, 29);
    second.check_every_snapshot("t").await;
    second.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_thought_dead_commits_nothing() {
    for at in 0..12 {
        let ground = Ground::new();
        let world = Env::simulated(at);
        let store = stuck(&ground, at..at + 1, Duration::from_secs(60));
        let first = Broker::open(world.scope(), Arc::new(store), Arc::new(ground.journal.clone())).await;
        let topic = first.topic("t", 2, JSON).await;
        first.produce(&topic, 0, &["{\"n\":0}"]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let second = ground.broker(world.scope()).await;
        for n in 1..20_u32 {
            second.produce(&topic, n % 2, &[format!("{{\"n\":{n}}}")]).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(second.settled("t").await.rows, 20);
        second.check_every_snapshot("t").await;
        second.check_no_orphans(&ground.store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_lake_gives_its_tables_back_at_once() {
    let ground = Ground::new();
    let world = Env::simulated(1);
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1, JSON).await;
    first.produce(&topic, 0, &["{\"n\":1}"]).await;
    first.settled("t").await;
    first.lake.close().await;
    let second = ground.broker(world.scope()).await;
    second.produce(&topic, 0, &["{\"n\":2}"]).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(second.settled("t").await.rows, 2);
    assert!(begun.elapsed() < Duration::from_secs(3), "no lease had to expire: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dead_letters_wait_for_nothing_once_they_are_uploaded() {
    let ground = Ground::new();
    // Each file takes longer than the object of dead letters is kept for its commit.
    let pause = floe_log::limits::DETACHED_UPLOAD_TTL + Duration::from_secs(60);
    let store = stuck(&ground, 0..u64::MAX, pause);
    let broker = Broker::open(Env::simulated(1), Arc::new(store), Arc::new(ground.journal.clone())).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.produce(&topic, 0, &["{\"n\":1}", "bad"]).await;
    tokio::time::sleep(pause * 6).await;
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records, table.snapshots), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_deleted_keeps_what_names_it_and_nothing_else() {
    let ground = Ground::new();
    // Files whose keys begin with this cannot be deleted.
    let undeletable = Arc::new(Mutex::new(None::<String>));
    let kept = Arc::clone(&undeletable);
    let store = FaultyStore::new(ground.store.clone(), move |operation, key| {
        let kept = kept.lock().expect("no test panics here");
        let refused =
            operation == Operation::Delete && kept.as_ref().is_some_and(|kept| key.starts_with(kept));
        if refused { Fault::Refused } else { Fault::None }
    });
    let broker = Broker::open(Env::simulated(1), Arc::new(store), Arc::new(ground.journal.clone())).await;
    let mut folders = Vec::new();
    let mut topics = Vec::new();
    for name in ["a", "b"] {
        let topic = broker.topic(name, 1, JSON).await;
        for n in 0..5 {
            broker.produce(&topic, 0, &[format!("{{\"n\":{n}}}")]).await;
            broker.settled(name).await;
        }
        folders.push(format!("lake/{}-{name}/", topic.id));
        topics.push(topic.id);
    }
    let keys = |folder: &str| -> Vec<String> {
        ground.store.keys().into_iter().filter(|key| key.starts_with(folder)).collect()
    };
    let first = keys(&folders[0]).into_iter().find(|key| key.ends_with("parquet")).expect("there are rows");
    *undeletable.lock().unwrap() = Some(first.clone());
    let documents = || keys(&format!("{}metadata/", folders[0]));
    let before = documents();
    for topic in topics {
        broker.log.delete_topic(&crate::world::writer(), topic).await.unwrap();
    }
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    assert_eq!(keys(&folders[1]), Vec::<String>::new(), "the other table's garbage is not held up");
    assert_eq!(
        (documents(), keys(&first)),
        (before, vec![first.clone()]),
        "without them the file could not be found"
    );
    *undeletable.lock().unwrap() = None;
    tokio::time::sleep(floe_lake::limits::CLEAN_INTERVAL * 3).await;
    assert_eq!(keys(&folders[0]), Vec::<String>::new());
}
