//! The journal in a bucket passes the suite: on a store that answers at once, on one whose requests are lost and
//! late, on a directory, and with entries that go while the suite runs. And several brokers with handles of their own
//! commit.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::*;
use floe_meta::conformance::{self, Place};
use floe_meta::*;
use floe_store::faulty::{Fault, FaultyStore};
use floe_store::local::{self, LocalStore};
use floe_store::{MemoryStore, Store};
use futures::future::BoxFuture;

/// The reason that the faulty store gives.
const PLANNED: &str = "planned";

/// Entries go as soon as the suite lets them.
fn short() -> BucketOptions {
    BucketOptions {
        image_entries: 4,
        image_pause: Duration::ZERO,
        image_jitter: Duration::ZERO,
        forget_entries: 1,
        grace: Duration::from_millis(20),
        trust: Duration::from_millis(5),
        keeper_look: Duration::from_millis(5),
        carries: 1 << 20,
        ..BucketOptions::default()
    }
}

/// Opens a store, or gives the one that is open.
type OpenStore = Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>;

fn opened(store: impl Store) -> OpenStore {
    let store: Arc<dyn Store> = Arc::new(store);
    Arc::new(move || Box::pin(std::future::ready(store.clone())))
}

/// A journal that is opened with its first call, and whose calls are repeated until they have an outcome, as a
/// committer does.
struct Opened {
    env: Env,
    store: OpenStore,
    options: BucketOptions,
    journal: tokio::sync::OnceCell<BucketJournal>,
}

impl Opened {
    async fn journal(&self) -> &BucketJournal {
        let open = || async move {
            loop {
                let store = (self.store)().await;
                match BucketJournal::open(&self.env, store, self.options.clone()).await {
                    Ok(journal) => break journal,
                    Err(error) => assert!(error.to_string().contains(PLANNED), "{error}"),
                }
            }
        };
        self.journal.get_or_init(open).await
    }

    async fn insist<T, F: Future<Output = Result<T, JournalError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, JournalError> {
        loop {
            match call().await {
                Err(JournalError::NotApplied(reason)) if reason.contains(PLANNED) => {}
                answer => return answer,
            }
        }
    }
}

#[async_trait]
impl Journal for Opened {
    async fn load(&self) -> Result<Loaded, JournalError> {
        let journal = self.journal().await;
        self.insist(|| journal.load()).await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        Ok(self.commit_with(expected, attempt, commits, &[]).await?.outcome)
    }

    fn carries(&self) -> u64 {
        self.options.carries
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        let journal = self.journal().await;
        let mut unknown = false;
        loop {
            match journal.commit_with(expected, attempt, commits, attachments).await {
                Err(JournalError::Unknown(_)) => unknown = true,
                Err(JournalError::NotApplied(reason)) if reason.contains(PLANNED) => {}
                Ok(Carried { outcome: Outcome::Conflict(entries), .. })
                    if unknown && entries[0].attempt == attempt && entries.len() == commits.len() =>
                {
                    return Ok(Carried::of(Outcome::Committed(expected.plus(commits.len()))));
                }
                answer => return answer,
            }
        }
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let journal = self.journal().await;
        loop {
            match journal.attached(lsn, range.clone()).await {
                Err(AttachedError::Failed { reason, .. }) if reason.contains(PLANNED) => {}
                answer => return answer,
            }
        }
    }

    fn released(&self, lsn: Lsn) {
        self.journal.get().into_iter().for_each(|journal| journal.released(lsn));
    }

    fn attachments(&self) -> Vec<Lsn> {
        self.journal.get().map(BucketJournal::attachments).unwrap_or_default()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let journal = self.journal().await;
        self.insist(|| journal.follow(from)).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let journal = self.journal().await;
        self.insist(|| journal.history(from, count)).await
    }

    fn forget(&self, upto: Lsn) {
        self.journal.get().into_iter().for_each(|journal| journal.forget(upto));
    }
}

struct InStore {
    env: Env,
    store: OpenStore,
    options: BucketOptions,
}

impl Place for InStore {
    fn open(&self) -> Arc<dyn Journal> {
        let (env, store, options) = (self.env.clone(), self.store.clone(), self.options.clone());
        Arc::new(Opened { env, store, options, journal: tokio::sync::OnceCell::new() })
    }
}

fn place(env: &Env, store: impl Store, options: BucketOptions) -> Box<dyn Place> {
    Box::new(InStore { env: env.clone(), store: opened(store), options })
}

#[tokio::test(start_paused = true)]
async fn conformance_in_memory() {
    let env = Env::simulated(1);
    conformance::run(&env, || place(&env, MemoryStore::new(), BucketOptions { carries: 0, ..short() })).await;
    conformance::run(&env, || place(&env, MemoryStore::new(), short())).await;
}

/// One request in twelve has no outcome, and some take longer than a committer waits.
fn faulty(env: &Env) -> FaultyStore {
    let chance = env.clone();
    let plan = move |_, _: &str| match chance.random_u64() % 24 {
        0 => Fault::LostRequest,
        1 => Fault::LostAnswer,
        2 => Fault::Refused,
        3 => Fault::Slow(Duration::from_millis(chance.random_u64() % 60)),
        _ => Fault::None,
    };
    FaultyStore::new(MemoryStore::new(), plan).with_latency(Duration::from_micros(300))
}

#[tokio::test(start_paused = true)]
async fn conformance_in_bad_weather() {
    for seed in 0..3 {
        let env = Env::simulated(seed);
        conformance::run(&env, || place(&env, faulty(&env), short())).await;
    }
}

/// A small store in a directory that lives as long as it is needed. It is opened anew with each journal, which waits
/// for the requests of the one before: a commit that was given up may have its effect until then.
fn in_a_directory(env: &Env) -> OpenStore {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let env = env.clone();
    Arc::new(move || {
        let (env, directory) = (env.clone(), directory.clone());
        Box::pin(async move {
            let options = local::Options { pack_bytes_first: 1 << 20, ..local::Options::default() };
            let store = LocalStore::open(env, directory.path(), options).await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        })
    })
}

#[tokio::test]
async fn conformance_in_a_directory() {
    let env = Env::real();
    conformance::run(&env, || {
        Box::new(InStore { env: env.clone(), store: in_a_directory(&env), options: short() })
    })
    .await;
}

fn next_number(tx: &mut Tx<'_>) -> Result<u64, DecodeError> {
    tx.next_counter(&CounterKey::named("number"))
}

/// Three brokers, each with a handle of its own and a bad way to the bucket. Every command sees all earlier ones, its
/// bytes are where it is, and all end with one map.
#[tokio::test(start_paused = true)]
async fn brokers_with_handles_of_their_own_race() {
    for seed in 0..20 {
        let env = Env::simulated(seed);
        let store = opened(faulty(&env));
        let mut brokers = Vec::new();
        for _ in 0..3 {
            let scope = env.scope();
            let place = InStore { env: scope.clone(), store: store.clone(), options: short() };
            brokers.push(Meta::open(scope, place.open(), Options::default()).await.unwrap());
        }
        let mut numbers = BTreeMap::new();
        for round in 0..10_u8 {
            let asked: Vec<_> = brokers
                .iter()
                .map(|meta| {
                    let bytes = Attachment::of(vec![vec![round; 1_000].into()]);
                    meta.commit_attached(Envelope::broker("test"), bytes, |_, _| (), next_number)
                })
                .collect();
            for answer in futures::future::join_all(asked).await {
                let done = answer.unwrap();
                assert_eq!(numbers.insert(done.reply, (done.lsn, round)), None, "a number is given twice");
            }
        }
        assert!(numbers.keys().copied().eq(1..=30));
        let last = Lsn(30);
        for meta in &brokers {
            meta.watch().wait_for(|lsn| *lsn >= last).await.unwrap();
            assert!(meta.snapshot().pairs().eq(brokers[0].snapshot().pairs()));
            for (lsn, round) in numbers.values() {
                assert_eq!(meta.attached(*lsn, 0..1_000).await.unwrap(), vec![*round; 1_000]);
            }
        }
    }
}
