//! A store that fails, and comes back.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use floe_kafka::Config;
use floe_log::log::Config as LogConfig;
use floe_log::memory::MemoryStore;
use floe_log::store::{PutIfAbsent, Store, StoreError};
use floe_wire::client::Wait;

use crate::harness::*;

/// Refuses to write or to read while it is told to.
#[derive(Default)]
struct Failing {
    inner: MemoryStore,
    writes_fail: AtomicBool,
    reads_fail: AtomicBool,
}

#[async_trait::async_trait]
impl Store for Failing {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        if self.writes_fail.load(Ordering::Relaxed) {
            return Err(StoreError::Full("no space left".to_owned()));
        }
        self.inner.put(key, payload).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.inner.put_if_absent(key, payload).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        if self.reads_fail.load(Ordering::Relaxed) {
            return Err(StoreError::NotApplied("the disk is away".to_owned()));
        }
        self.inner.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn url(&self, key: &str) -> String {
        self.inner.url(key)
    }

    fn remote(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_writes_retriably_and_service_returns() {
    let store = Arc::new(Failing::default());
    let disk = Disk { store: store.clone(), ..disk() };
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(produce(&mut client, "t", &["a"]).await.ok(), Some(0));

    store.writes_fail.store(true, Ordering::Relaxed);
    let refused = produce(&mut client, "t", &["b"]).await.expect_err("the store is full");
    assert!(refused.retriable(), "{refused}");
    assert_eq!(values(&mut client, "t").await, ["a"], "reads go on");

    store.writes_fail.store(false, Ordering::Relaxed);
    assert_eq!(produce(&mut client, "t", &["b"]).await.ok(), Some(1), "service returns by itself");
    assert_eq!(values(&mut client, "t").await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_answers_a_retriable_error_and_does_not_stop_writers() {
    let store = Arc::new(Failing::default());
    let disk = Disk { store: store.clone(), ..disk() };
    let mut config = LogConfig::default();
    config.cache.tail = 0;
    config.cache.cold = 0;
    let world = World::open_with(&disk, Config::default(), config).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(produce(&mut client, "t", &["a"]).await.ok(), Some(0));
    store.reads_fail.store(true, Ordering::Relaxed);
    let wait = Wait { max_ms: 1_000, min_bytes: 1, max_bytes: 1_000 };
    let refused = client.fetch("t", 0, 0, wait).await.expect_err("the store is away");
    assert!(refused.retriable(), "{refused}");
    assert_eq!(produce(&mut client, "t", &["b"]).await.ok(), Some(1));
    store.reads_fail.store(false, Ordering::Relaxed);
    assert_eq!(values(&mut client, "t").await, ["a", "b"]);
}
