//! A statement that exceeds a limit gets a clear error, and the next statement works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_query::Kind;
use floe_sql::{Config, Sql};
use floe_store::MemoryStore;
use floe_store::faulty::{Fault, FaultyStore, Operation};
use futures::StreamExt;
use tokio::sync::watch;

use crate::world::{World, append_batch};

fn config() -> Config {
    Config { threads: 2, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows() {
    let world = World::with(Config { result_rows_max: 100_000, ..config() }).await;
    let error = world.error("select * from generate_series(1, 10000000)").await;
    assert!(error.kind == Kind::Limit && error.message.contains("100000 rows"), "{error}");
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

/// Advances the paused clock second by second. All tasks run between two seconds, however slow the machine is.
async fn seconds(count: u64) {
    for _ in 0..count {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

/// The clock only moves when the busy statement yields. So each of these statements has to yield before it is done, and
/// then gets the error of its deadline.
#[tokio::test(start_paused = true)]
async fn time() {
    let limited = Config { queries_max: 1, query_time_max: Duration::from_secs(3), ..config() };
    let world = World::simulated_with(1, limited).await;
    for text in [
        "select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b",
        "select max(a.value % 7) from generate_series(1, 5000) a, generate_series(1, 5000) b",
        "select count(*) from generate_series(1, 9000) a join generate_series(1, 9000) b on a.value % 2 = b.value % 2",
        "with recursive r as (select 1 as n union all select n + 1 from r where n < 30000) select max(n) from r",
    ] {
        let error = tokio::select! {
            biased;
            error = world.error(text) => error,
            () = seconds(60) => panic!("it goes on: {text}"),
        };
        assert!(error.kind == Kind::Limit && error.message.contains("longer than 3 s"), "{error}");
        assert!(error.message.contains("sql_timeout_ms"), "{error}");
    }
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let world = World::with(Config { memory_bytes: 20 << 20, ..config() }).await;
    let error =
        world.error("select * from generate_series(1, 5000000) order by value % 1000, value desc").await;
    assert_eq!(error.kind, Kind::Limit, "{error}");
    let error =
        world.error("select value % 8999999, count(*) from generate_series(1, 9000000) group by 1").await;
    assert_eq!(error.kind, Kind::Limit, "{error}");
    let error = world
        .error("select max(s) from (select sum(value) over () s from generate_series(1, 5000000))")
        .await;
    assert!(error.kind == Kind::Limit && error.message.contains("window function"), "{error}");
    assert_eq!(world.number("select count(*) from generate_series(1, 1000)").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_statement_may_take_the_memory_that_others_do_not_need() {
    let world = World::with(Config { memory_bytes: 64 << 20, threads: 8, ..config() }).await;
    let sort = "select * from generate_series(1, 400000) order by value % 1000, value desc";
    // The operators of these statements hold very little memory.
    let mut idle = Vec::new();
    for _ in 0..8 {
        let small = "select * from generate_series(1, 30000) order by value % 1000, value desc";
        let mut result = world.sql.query(small).await.unwrap();
        assert!(result.batches.next().await.unwrap().is_ok());
        idle.push(result);
    }
    assert_eq!(world.number(&format!("select count(*) from ({sort} limit 400000)")).await, 400_000);
}

/// A sort holds dozens of batches. How wide their rows are is known once the first ones are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_wide_rows_begins_again_with_fewer_rows_in_a_batch() {
    let world = World::with(Config { memory_bytes: 64 << 20, ..config() }).await;
    let sorted = |text: &str, count: usize| {
        format!("select value, {text} p from generate_series(1, {count}) order by value % 1000, value")
    };
    // Text of a row, rows, and rows of a batch that has 512 at first and a quarter of a MiB later.
    for (text, count, most) in [
        ("repeat('x', 100)", 10_000, 512),
        ("repeat('x', 2000)", 10_000, 131),
        // Then it begins again twice.
        ("repeat('x', case when value < 5000 then 2000 else 8000 end)", 7_000, 40),
        // One row is wider than a batch of all others.
        ("repeat('x', case when value = 5000 then 5000000 else 10 end)", 10_000, 512),
        ("repeat('x', 100000 + value % 2)", 100, 16),
    ] {
        let batches = world.rows(&sorted(text, count)).await.unwrap();
        let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows.iter().sum::<usize>(), count, "{text}");
        assert!(rows.iter().all(|rows| *rows <= most), "{text}: {rows:?}");
        let values = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let values: Vec<i64> = batches.iter().flat_map(values).collect();
        assert!(values.is_sorted_by_key(|value| (value % 1_000, *value)), "{text}");
    }
    // A statement that hands rows on at once does so, however wide they become.
    let streamed = "select value, repeat('x', case when value < 5000 then 1 else 8000 end) from generate_series(1, 7000)";
    let batches = world.rows(streamed).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 7_000);
    // Groups, joins and windows look, too. Both stages of a group may hold all keys at once, in vectors that are half
    // empty, and nothing spills here: 9 MB of keys fit whichever stage runs ahead.
    let wide = "(select value % 1500 k, repeat('x', 3000) || value p from generate_series(1, 3000))";
    assert_eq!(
        world.number(&format!("select count(*) from (select p, count(*) from {wide} group by p)")).await,
        3_000
    );
    assert_eq!(
        world.number(&format!("select count(a.p || b.p) from {wide} a join {wide} b on a.k = b.k")).await,
        6_000
    );
    let numbered =
        format!("select count(n) from (select row_number() over (partition by k order by p) n from {wide})");
    assert_eq!(world.number(&numbered).await, 3_000);
}

/// Statements over a tail that is larger than the memory of all statements, in the log and in columns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_tail_is_streamed() {
    let world = World::with(Config { memory_bytes: 24 << 20, tail_held_bytes: 1 << 20, ..config() }).await;
    let topic = world.table("t", 2).await;
    let text = "x".repeat(1_000);
    let append = async |from: i64, count: i64| {
        let values: Vec<String> =
            (from..from + count).map(|n| format!(r#"{{"n":{n},"text":"{text}"}}"#)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        world.append(&topic, u32::try_from(from / count % 2).unwrap(), &values).await;
    };
    for batch in 0..60 {
        append(batch * 500, 500).await;
    }
    let check = async || {
        assert_eq!(world.number("select count(*) from t").await, 30_000);
        assert_eq!(world.number("select cast(sum(n) as bigint) from t where n >= 29000").await, 29_499_500);
        assert_eq!(world.number("select count(*) from (select n from t limit 7)").await, 7);
        assert_eq!(world.number("select count(distinct n) from t").await, 30_000);
        let both = "select count(*) from t a join t b on a.n = b.n where a.n % 1000 = 0";
        assert_eq!(world.number(both).await, 30);
    };
    check().await;
    // Another column, and whole numbers that become doubles, come with the last records.
    world.append(&topic, 1, &[r#"{"n":0.5,"new":"a"}"#]).await;
    world
        .check(
            "select count(*) as rows, cast(sum(n) as bigint) as n, max(new) as new from t",
            "
         rows  |     n     | new
        -------+-----------+-----
         30001 | 449985000 | a",
        )
        .await;
    let plan = world.text("explain format indent select n from t").await;
    assert!(plan.contains("log_tail=t, streamed, bytes="), "{plan}");
    world.settle().await;
    assert_eq!(world.number("select count(*) from t").await, 30_001);
    assert!(!world.text("explain format indent select n from t").await.contains("streamed"));
}

/// A statement that reads no more than it needs of a long tail.
#[tokio::test(start_paused = true)]
async fn a_limit_ends_the_reading_of_a_tail() {
    let world = World::simulated_with(3, Config { tail_held_bytes: 0, ..config() }).await;
    let topic = world.table("t", 1).await;
    for batch in 0..40 {
        let values: Vec<String> = (0..3_000).map(|n| format!(r#"{{"n":{}}}"#, batch * 3_000 + n)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        world.append(&topic, 0, &values).await;
    }
    let polls = async |text: &str| {
        let before = world.env.polls();
        world.rows(text).await.unwrap();
        world.env.polls() - before
    };
    // The first statement looks at every record to learn the columns.
    polls("select n from t limit 1").await;
    let (one, all) = (polls("select n from t limit 1").await, polls("select n from t").await);
    assert!(one * 2 < all, "{one} polls for one row, {all} for all");
    let last = polls("select n from t where _offset >= 119000").await;
    assert!(last * 2 < all, "{last} polls for the last rows, {all} for all");
    assert_eq!(
        world.number("select count(*) from t where _offset >= 119000 and _partition_id = 0").await,
        1_000
    );
    assert_eq!(world.number("select count(*) from t where _partition_id = 1").await, 0);
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

#[tokio::test(start_paused = true)]
async fn statements_at_once() {
    let world = World::simulated_with(1, Config { queries_max: 2, ..config() }).await;
    let long = "select * from generate_series(1, 10000000)";
    // Two slow readers hold the turns.
    let mut one = world.sql.query(long).await.unwrap();
    let two = world.sql.query(long).await.unwrap();
    assert!(one.batches.next().await.unwrap().is_ok());
    let error = world.error("select 1").await;
    assert!(error.kind == Kind::Busy && error.message.contains("2 statements"), "{error}");
    // Dropping a result ends its statement and frees the turn.
    drop(two);
    assert_eq!(world.number("select 1").await, 1);
    drop(one);
}

/// A body that nobody reads loses its turn long before the deadline of its statement.
#[tokio::test(start_paused = true)]
async fn a_result_that_nobody_reads_loses_its_turn() {
    let patient = Config { queries_max: 1, query_time_max: Duration::from_secs(600), ..config() };
    let world = World::simulated_with(1, patient).await;
    let mut slow = world.sql.query("select * from generate_series(1, 10000000)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.number("select 1").await, 1);
    let error = slow.batches.next().await.unwrap().expect_err("the rows are gone");
    assert!(error.kind == Kind::Limit && error.message.contains("nobody read"), "{error}");
    // A short result is whole, however late it is read, and its statement has ended.
    let mut short = world.sql.query("select * from generate_series(1, 5000)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.number("select 1").await, 1);
    let mut rows = 0;
    while let Some(batch) = short.batches.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 5_000);
}

/// Sorting and grouping more than the memory holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_in_memory_is_spilled() {
    let directory = std::env::temp_dir().join(format!("floe-sql-spill-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("left behind")).unwrap();
    let query_time_max = Duration::from_secs(600);
    let limited = Config {
        memory_bytes: 12 << 20,
        spill_directory: Some(directory.clone()),
        query_time_max,
        ..config()
    };
    let world = World::with(limited.clone()).await;
    assert!(!directory.join("left behind").exists());
    let sort = "select cast(max(r) as bigint) from \
                (select row_number() over (order by value % 1000, value desc) as r from generate_series(1, 1000000))";
    assert_eq!(world.number(sort).await, 1_000_000);
    let group = "select count(*) from (select value % 799999 as k, count(*) from generate_series(1, 1000000) group by 1)";
    assert_eq!(world.number(group).await, 799_999);
    let files = || {
        std::fs::read_dir(&directory).unwrap().flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
    };
    assert_eq!(files().count(), 0, "what was spilled is deleted");
    drop(world);
    // The disk that all statements may use is bounded, too.
    let world = World::with(Config { spill_bytes: 1 << 20, ..limited }).await;
    let error = world.error(sort).await;
    assert!(error.kind == Kind::Limit && error.message.contains("raise sql_spill_bytes"), "{error}");
    drop(world);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_its_time_does_not_keep_its_turn() {
    let limited = Config { queries_max: 1, query_time_max: Duration::from_secs(3), ..config() };
    let world = World::simulated_with(1, limited).await;
    let mut slow = world.sql.query("select * from generate_series(1, 10000000)").await.unwrap();
    // The slow reader reads nothing. Past its deadline the next statement gets the turn. That statement is younger, so
    // its own deadline is later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.number("select 1").await, 1);
    let mut last = None;
    while let Some(batch) = slow.batches.next().await {
        last = batch.err();
    }
    let error = last.expect("the result is not complete");
    assert!(error.kind == Kind::Limit && error.message.contains("longer than 3 s"), "{error}");
}

/// This runs on real threads, because the thread that plans is not dropped with its statement and has to notice the end
/// by itself. The next statement waits some seconds for the one turn. The test checks that the turn becomes free before
/// that statement is refused as busy. It does not depend on how long a statement takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_waits_ends_with_its_statement() {
    let (store, stuck, mut reads) = stuck_store();
    let world = World::open(Env::real(), Arc::new(store), Config { queries_max: 1, ..config() }).await;
    let topic = world.table("t", 1).await;
    world.append(&topic, 0, &[r#"{"n":1}"#]).await;
    world.settle().await;
    let engine = |query_time_max| {
        let limited = Config { queries_max: 1, query_time_max, ..config() };
        Sql::new(world.env.clone(), world.log.clone(), world.lake.clone(), limited).unwrap()
    };
    stuck.store(true, SeqCst);

    let impatient = engine(Duration::from_millis(100));
    let error = impatient.query("select n from t").await.expect_err("the store does not answer");
    assert!(error.kind == Kind::Limit && error.message.contains("longer than"), "{error}");
    let next = impatient.query("select 1").await;
    assert!(next.as_ref().err().is_none_or(|error| error.kind != Kind::Busy), "{next:?}");

    let patient = engine(Duration::from_secs(600));
    let before = *reads.borrow();
    tokio::select! {
        biased;
        result = patient.query("select n from t") => panic!("the store does not answer: {result:?}"),
        read = reads.wait_for(|reads| *reads > before) => assert!(read.is_ok()),
    }
    // The reader of the patient statement left while its plan waited for the store.
    patient.query("select 1").await.expect("the turn is free");
    stuck.store(false, SeqCst);
    assert_eq!(world.number("select cast(max(n) as bigint) from t").await, 1);
}

/// A store in memory that counts reads, and does not answer them while the flag is set.
fn stuck_store() -> (FaultyStore, Arc<AtomicBool>, watch::Receiver<u64>) {
    let stuck = Arc::new(AtomicBool::new(false));
    let (is_stuck, (count, reads)) = (stuck.clone(), watch::channel(0));
    let store = FaultyStore::new(MemoryStore::new(), move |operation, _| {
        if operation != Operation::Get {
            return Fault::None;
        }
        count.send_modify(|reads| *reads += 1);
        if is_stuck.load(SeqCst) { Fault::Stuck } else { Fault::None }
    });
    (store, stuck, reads)
}
