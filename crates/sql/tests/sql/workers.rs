//! Statements in processes of their own, over the same log and lake. `crates/floe/tests/workers.rs` tries the limits
//! with the real program.

use std::time::Duration;

use floe_query::{Format, Kind};
use floe_sql::Config;
use futures::StreamExt;

use crate::world::World;

/// The environment variable that makes a process of this program a worker.
pub(crate) const IS_WORKER: &str = "FLOE_TEST_IS_WORKER";

/// Not a test, but what a worker runs: this program, with this as its only test.
#[test]
fn a_worker() {
    if std::env::var_os(IS_WORKER).is_some() {
        floe_sql::work().unwrap();
    }
}

async fn world(config: Config) -> World {
    let config = Config { threads: 2, ..config };
    World::with(config.clone()).await.with_workers(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_read_through_the_broker() {
    let world = world(Config { tail_held_bytes: 1 << 10, ..Config::default() }).await;
    let topic = world.table("t", 2).await;
    for settled in [false, true] {
        let values: Vec<String> = (0..2_000).map(|n| format!(r#"{{"n":{n},"s":"{n:0200}"}}"#)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        world.append(&topic, u32::from(settled), &values).await;
        let rows = if settled { 4_000 } else { 2_000 };
        for _ in 0..2 {
            assert_eq!(world.number("select count(*) from t").await, rows);
            assert_eq!(world.number("select cast(sum(n) as bigint) from t").await, rows / 2_000 * 1_999_000);
            assert_eq!(world.number("select count(*) from t where s >= '1'").await, 0);
        }
        assert_eq!(world.number("select count(*) from t where _partition_id = 1").await, rows - 2_000);
        assert!(world.text("show tables").await.contains(" t "));
        assert!(world.text("describe t").await.contains("_offset"));
        world.settle().await;
        assert_eq!(world.number("select count(*) from t").await, rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_ends_its_statement_and_its_worker_goes_on() {
    let world = world(Config { queries_max: 1, ..Config::default() }).await;
    let workers = world.workers.as_ref().unwrap();
    for _ in 0..5 {
        let mut pieces =
            workers.query_as("select * from generate_series(1, 10000000)", Format::Csv).await.unwrap();
        assert!(pieces.next().await.unwrap().is_ok());
        drop(pieces);
        assert_eq!(world.number("select 1").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_ends_at_its_deadline() {
    let world =
        world(Config { query_time_max: Duration::from_secs(1), queries_max: 1, ..Config::default() }).await;
    assert_eq!(world.number("select 1").await, 1);
    let error =
        world.error("select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b").await;
    assert!(error.kind == Kind::Limit && error.message.contains("longer than 1 s"), "{error}");
    assert_eq!(world.number("select 1").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_at_once_have_a_worker_each() {
    let world = world(Config { queries_max: 3, ..Config::default() }).await;
    let world = &world;
    let asked = (0..12).map(|n| async move { world.number(&format!("select {n}")).await });
    let answers = futures::future::join_all(asked).await;
    assert_eq!(answers, (0..12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_start_is_an_error_that_says_so() {
    let world = World::with(Config { threads: 2, ..Config::default() }).await;
    for path in ["/does/not/exist", "/bin/false"] {
        let program = floe_sql::Program {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            faults: false,
        };
        let (env, log, lake) = (world.env.clone(), world.log.clone(), world.lake.clone());
        let workers = floe_sql::Workers::start(env, log, lake, Config::default(), program).unwrap();
        for _ in 0..3 {
            let error = workers.query_as("select 1", Format::Csv).await.err().unwrap();
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
            assert!(error.message.contains("could be started"), "{error}");
        }
    }
}
