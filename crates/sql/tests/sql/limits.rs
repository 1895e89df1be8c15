//! What is too much is refused with a clear error, and the next statement works.

use std::time::Duration;

use floe_sql::{Config, Kind};
use futures::StreamExt;

use crate::world::World;

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
async fn a_tail_that_is_too_long() {
    let world = World::with(Config { tail_bytes_max: 10_000, ..config() }).await;
    let topic = world.table("t", 1).await;
    let value = format!(r#"{{"text":"{}"}}"#, "x".repeat(1000));
    world.append(&topic, 0, &[value.as_str(); 5]).await;
    assert_eq!(world.number("select count(*) from t").await, 5);
    world.append(&topic, 0, &[value.as_str(); 9]).await;
    let error = world.error("select count(*) from t").await;
    assert!(error.kind == Kind::Limit && error.message.contains("wait for the lake"), "{error}");
    world.settle().await;
    assert_eq!(world.number("select count(*) from t").await, 14);
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
