//! A store that fails and recovers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use floe_client::Wait;
use floe_kafka::Config;
use floe_log::Config as LogConfig;
use floe_store::MemoryStore;
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::harness::*;

/// A store whose writes or reads fail while a test wants it.
#[derive(Clone, Default)]
struct Failing {
    writes: Arc<AtomicBool>,
    reads: Arc<AtomicBool>,
}

impl Failing {
    fn store(&self) -> Arc<FaultyStore> {
        let failing = self.clone();
        let plan = move |operation, _: &str| match operation {
            Operation::Put if failing.writes.load(Ordering::Relaxed) => Fault::Full,
            Operation::Get if failing.reads.load(Ordering::Relaxed) => Fault::Refused,
            _ => Fault::None,
        };
        Arc::new(FaultyStore::new(MemoryStore::new(), plan))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_writes_retriably_and_service_returns() {
    let failing = Failing::default();
    let disk = Disk { store: failing.store(), ..disk() };
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(produce(&mut client, "t", &["a"]).await.ok(), Some(0));

    failing.writes.store(true, Ordering::Relaxed);
    let refused = produce(&mut client, "t", &["b"]).await.expect_err("the store is full");
    assert!(refused.retriable(), "{refused}");
    assert_eq!(values(&mut client, "t").await, ["a"], "reads go on");

    failing.writes.store(false, Ordering::Relaxed);
    assert_eq!(produce(&mut client, "t", &["b"]).await.ok(), Some(1), "service returns by itself");
    assert_eq!(values(&mut client, "t").await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_answers_a_retriable_error_and_does_not_stop_writers() {
    let failing = Failing::default();
    let disk = Disk { store: failing.store(), ..disk() };
    let mut config = LogConfig::default();
    config.cache.tail = 0;
    config.cache.cold = 0;
    let world = World::open_with(&disk, Config::default(), config).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    assert_eq!(produce(&mut client, "t", &["a"]).await.ok(), Some(0));
    failing.reads.store(true, Ordering::Relaxed);
    let wait = Wait { max_ms: 1_000, min_bytes: 1, max_bytes: 1_000 };
    let refused = client.fetch("t", 0, 0, wait).await.expect_err("the store is away");
    assert!(refused.retriable(), "{refused}");
    assert_eq!(produce(&mut client, "t", &["b"]).await.ok(), Some(1));
    failing.reads.store(false, Ordering::Relaxed);
    assert_eq!(values(&mut client, "t").await, ["a", "b"]);
}
