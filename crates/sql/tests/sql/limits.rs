//! What is too much is refused with a clear error, and the next statement works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use floe_log::codec::Compression;
use floe_log::faulty::{Fault, FaultyStore, Operation};
use floe_log::memory::MemoryStore;
use floe_log::records::Builder;
use floe_meta::Env;
use floe_sql::{Config, Kind};
use futures::StreamExt;

use crate::world::{World, append_batch};

fn config() -> Config {
    Config { threads: 2, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_time() {
    let limited = Config { result_rows_max: 100_000, query_time_max: Duration::from_secs(3), ..config() };
    let world = World::with(limited).await;
    let error = world.error("select * from generate_series(1, 10000000)").await;
    assert!(error.kind == Kind::Limit && error.message.contains("100000 rows"), "{error}");
    for text in [
        "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "select max(a.value % 7) from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "with recursive r as (select 1 as n union all select n + 1 from r) select max(n) from r",
    ] {
        let error = world.error(text).await;
        assert!(error.kind == Kind::Limit && error.message.contains("longer than 3 s"), "{error}");
    }
    let world = World::with(config()).await;
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let world = World::with(Config { memory_bytes: 20 << 20, ..config() }).await;
    let error =
        world.error("select * from generate_series(1, 5000000) order by value % 1000, value desc").await;
    assert_eq!(error.kind, Kind::Limit, "{error}");
    let error = world.error("select value, count(*) from generate_series(1, 9000000) group by value").await;
    assert_eq!(error.kind, Kind::Limit, "{error}");
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_statement_may_take_the_memory_that_others_do_not_need() {
    let world = World::with(Config { memory_bytes: 64 << 20, threads: 8, ..config() }).await;
    let sort = "select * from generate_series(1, 400000) order by value % 1000, value desc";
    // These have operators that hold next to nothing.
    let mut idle = Vec::new();
    for _ in 0..8 {
        let small = "select * from generate_series(1, 30000) order by value % 1000, value desc";
        let mut result = world.sql.query(small).await.unwrap();
        assert!(result.batches.next().await.unwrap().is_ok());
        idle.push(result);
    }
    assert_eq!(world.number(&format!("select count(*) from ({sort} limit 400000)")).await, 400_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_too_long() {
    let world = World::with(Config { tail_bytes_max: 10_000, ..config() }).await;
    let topic = world.table("t", 1).await;
    let value = format!(r#"{{"text":"{}"}}"#, "x".repeat(1000));
    world.append(&topic, 0, &[value.as_str(); 5]).await;
    assert_eq!(world.number("select count(*) from t").await, 5);
    world.append(&topic, 0, &[value.as_str(); 9]).await;
    let error = world.error("select count(*) from t").await;
    assert!(error.kind == Kind::Limit && error.message.contains("raise sql_tail_bytes"), "{error}");
    world.settle().await;
    assert_eq!(world.number("select count(*) from t").await, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_short_in_the_log_and_long_in_memory() {
    let world = World::with(Config { memory_bytes: 20 << 20, ..config() }).await;
    let topic = world.table("t", 1).await;
    let mut batch = Builder::new(Compression::Zstd);
    batch.push(0, None, Some(format!(r#"{{"text":"{}"}}"#, "x".repeat(40 << 20)).as_bytes()), &[]);
    append_batch(&world.log, &topic, 0, batch.build()).await;
    let error = world.error("select count(*) from t").await;
    assert!(error.kind == Kind::Limit && error.message.contains("log tail of t"), "{error}");
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_at_once() {
    let world = World::with(Config { queries_max: 2, ..config() }).await;
    let long = "select * from generate_series(1, 10000000)";
    // Two readers that take their time hold the turns.
    let mut one = world.sql.query(long).await.unwrap();
    let two = world.sql.query(long).await.unwrap();
    assert!(one.batches.next().await.unwrap().is_ok());
    let error = world.error("select 1").await;
    assert!(error.kind == Kind::Busy && error.message.contains("2 statements"), "{error}");
    // Dropping a result ends its statement and gives the turn back.
    drop(two);
    assert_eq!(world.number("select 1").await, 1);
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_its_time_does_not_keep_its_turn() {
    let limited = Config { queries_max: 1, query_time_max: Duration::from_secs(3), ..config() };
    let world = World::with(limited).await;
    let mut slow = world.sql.query("select * from generate_series(1, 10000000)").await.unwrap();
    // It reads nothing. Past its deadline the next statement, which is not as old, gets the turn.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.number("select 1").await, 1);
    let mut last = None;
    while let Some(batch) = slow.batches.next().await {
        last = batch.err();
    }
    let error = last.expect("the result is not complete");
    assert!(error.kind == Kind::Limit && error.message.contains("longer than 3 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_waits_ends_with_its_statement() {
    let (store, stuck) = stuck_store();
    let limited = Config { queries_max: 1, query_time_max: Duration::from_secs(3), ..config() };
    let world = World::open(Env::real(), Arc::new(store), limited).await;
    let topic = world.table("t", 1).await;
    world.append(&topic, 0, &[r#"{"n":1}"#]).await;
    world.settle().await;
    stuck.store(true, SeqCst);
    // Late, and then left by its reader: the one turn comes back each time.
    let error = world.error("select n from t").await;
    assert!(error.kind == Kind::Limit && error.message.contains("longer than"), "{error}");
    assert_eq!(world.number("select 1").await, 1);
    let left = tokio::time::timeout(Duration::from_millis(50), world.rows("select n from t")).await;
    assert!(left.is_err(), "the store does not answer");
    assert_eq!(world.number("select 1").await, 1);
    stuck.store(false, SeqCst);
    assert_eq!(world.number("select cast(max(n) as bigint) from t").await, 1);
}

/// A store in memory that stops answering reads while it is told to.
fn stuck_store() -> (FaultyStore, Arc<AtomicBool>) {
    let stuck = Arc::new(AtomicBool::new(false));
    let is_stuck = stuck.clone();
    let store = FaultyStore::new(MemoryStore::new(), move |operation, _| {
        let reads = operation == Operation::Get;
        if reads && is_stuck.load(SeqCst) { Fault::Stuck } else { Fault::None }
    });
    (store, stuck)
}
