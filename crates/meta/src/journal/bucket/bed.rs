//! What the tests of this journal stand on: a simulated cluster's store, whose requests may hang, and small helpers.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, Timestamp, lock};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};

use super::{BucketJournal, BucketOptions};
use crate::journal::{Change, Commit, Envelope, Journal, Lsn, Outcome};

pub(super) fn simulate<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(run)
}

pub(super) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The real times, and images so often that a few entries may go.
pub(super) fn options() -> BucketOptions {
    BucketOptions {
        image_entries: 4,
        image_pause: Duration::ZERO,
        image_jitter: Duration::ZERO,
        forget_entries: 1,
        ..BucketOptions::default()
    }
}

/// How often requests fail, of 1,000, and how long they take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) refused: u64,
    pub(super) slow: u64,
    pub(super) slowest: Duration,
}

/// One broker's way to a store that all share. A request that its caller gives up goes on, as in a network.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) env: Env,
    pub(super) inner: MemoryStore,
    pub(super) weather: Arc<Mutex<Weather>>,
    /// How long the next PUTs of entries take before and after their effect.
    pub(super) puts: Arc<Mutex<VecDeque<(Duration, Duration)>>>,
    /// Parts of images arrive with a wrong bit.
    pub(super) rots: Arc<Mutex<bool>>,
    pub(super) counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Way {
    pub(super) fn new(env: &Env, inner: &MemoryStore) -> Way {
        Way {
            env: env.clone(),
            inner: inner.clone(),
            weather: Arc::default(),
            puts: Arc::default(),
            rots: Arc::default(),
            counts: Arc::default(),
        }
    }

    pub(super) async fn open(&self, options: BucketOptions) -> BucketJournal {
        BucketJournal::open(&self.env, Arc::new(self.clone()), options).await.expect("it opens")
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> u64 {
        lock(&self.counts).values().sum()
    }

    pub(super) fn count(&self, what: &str) -> u64 {
        lock(&self.counts).get(what).copied().unwrap_or(0)
    }

    async fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        (mut before, mut after): (Duration, Duration),
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        *lock(&self.counts).entry(what).or_default() += 1;
        let weather = *lock(&self.weather);
        let draw = |of_1000: u64| of_1000 > 0 && self.env.random_u64() % 1_000 < of_1000;
        let (lost_request, lost_answer) = (draw(weather.lost), draw(weather.lost));
        let (refused, slow, slow_answer) = (draw(weather.refused), draw(weather.slow), draw(weather.slow));
        let long = |random: u64| weather.slowest.mul_f64((random % 1_000) as f64 / 1_000.0);
        if slow {
            before += long(self.env.random_u64());
        }
        if slow_answer {
            after += long(self.env.random_u64());
        }
        if refused {
            return Err(StoreError::NotApplied("stormy".to_owned()));
        }
        if before.is_zero() && after.is_zero() && !lost_request && !lost_answer {
            return effect.await;
        }
        let request = self.env.spawn("request", async move {
            tokio::time::sleep(before).await;
            if lost_request {
                return Err(StoreError::Unknown("stormy".to_owned()));
            }
            let answer = effect.await;
            tokio::time::sleep(after).await;
            if lost_answer { Err(StoreError::Unknown("stormy".to_owned())) } else { answer }
        });
        request.await.unwrap_or_else(|ended| Err(StoreError::Unknown(ended.to_string())))
    }
}

const AT_ONCE: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

#[async_trait]
impl Store for Way {
    async fn put(&self, key: &str, mut payload: Vec<Bytes>) -> Result<(), StoreError> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        if *lock(&self.rots) && key.contains("/parts/") {
            let mut bytes = payload.concat();
            bytes[0] ^= 1;
            payload = vec![bytes.into()];
        }
        self.request("put", AT_ONCE, async move { inner.put(&key, payload).await }).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        let planned = match key.contains("/entries/") {
            true => lock(&self.puts).pop_front().unwrap_or(AT_ONCE),
            false => AT_ONCE,
        };
        self.request("put", planned, async move { inner.put_if_absent(&key, payload).await }).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        self.request("get", AT_ONCE, async move { inner.get(&key, range).await }).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        self.request("get", AT_ONCE, async move { inner.size(&key).await }).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        self.request("delete", AT_ONCE, async move { inner.delete(&key).await }).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        let (inner, prefix, after) = (self.inner.clone(), prefix.to_owned(), after.to_owned());
        self.request("list", AT_ONCE, async move { inner.list(&prefix, &after, count).await }).await
    }

    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }

    fn remote(&self) -> bool {
        true
    }
}

/// A commit that puts one value.
pub(super) fn put(key: &str, value: &str) -> Commit {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut envelope = Envelope::broker("test");
    envelope.time = Timestamp(1);
    Commit { envelope, changes: vec![Change { key: bytes(key), value: Some(bytes(value)) }] }
}

/// Commits as many entries of one commit each, a second apart, and returns the last commit.
pub(super) async fn commit_some(journal: &BucketJournal, count: u64) -> Lsn {
    journal.load().await.expect("it loads");
    for _ in 0..count {
        let last = journal.lsn();
        let done = journal.commit(last, u128::from(last.0) + 1_000, &[put("some", &last.to_string())]).await;
        assert_eq!(done, Ok(Outcome::Committed(last.next())));
        tokio::time::sleep(seconds(1)).await;
    }
    journal.lsn()
}

/// The keys of a folder of the journal, without the folder.
pub(super) async fn keys(store: &MemoryStore, folder: &str) -> Vec<String> {
    let prefix = format!("journal/{folder}");
    let listed = store.list(&prefix, "", usize::MAX).await.expect("memory answers");
    listed.into_iter().map(|listed| listed.key[prefix.len() + 1..].to_owned()).collect()
}

/// Whether an entry is there.
pub(super) async fn has_entry(store: &MemoryStore, number: u64) -> bool {
    keys(store, "entries").await.contains(&format!("{number:016x}"))
}
