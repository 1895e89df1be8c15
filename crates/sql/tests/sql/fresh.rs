//! Every acknowledged record is in the answer, once, from the moment of its acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use floe_sql::Config;

use crate::world::{World, append};

const COUNTS: &str = "select count(*), count(distinct _partition_id * 1000000000 + _offset), sum(n) from t";

/// Checks that counts, places and contents are those of the first `count` records. Record i holds n = i.
async fn check(world: &World, count: i64) {
    assert_eq!(world.number("select count(*) from t").await, count);
    let sum = if count == 0 { "NULL".to_owned() } else { (count * (count - 1) / 2).to_string() };
    let row = world.text(COUNTS).await;
    let row: Vec<&str> = row.lines().last().unwrap().split('|').map(str::trim).collect();
    assert_eq!(row, [count.to_string(), count.to_string(), sum]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_sees_exactly_what_was_acknowledged() {
    let world = World::new().await;
    let topic = world.table("t", 3).await;
    assert_eq!(world.number("select count(*) from t").await, 0);
    let mut count = 0;
    let mut views = None;
    let mut snapshots = 0;
    for round in 0..90 {
        // The lake rests, then works beside the statements, then rests again.
        match round {
            20 => views = Some(world.views()),
            70 => {
                let views = views.take().unwrap();
                world.settle().await;
                views.close().await;
                check(&world, count).await;
                let snapshot = world.log.meta().snapshot();
                snapshots = world.lake.table(&snapshot, "t").unwrap().unwrap().snapshots;
            }
            _ => {}
        }
        let values: Vec<String> = (0..1 + round % 7).map(|i| format!(r#"{{"n":{}}}"#, count + i)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        world.append(&topic, u32::try_from(round % 3).unwrap(), &values).await;
        count += i64::try_from(values.len()).unwrap();
        check(&world, count).await;
    }
    assert!(snapshots >= 2, "the lake committed while statements ran: {snapshots} snapshots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_beside_producers_see_between_acknowledged_and_sent() {
    let world = World::new().await;
    let topic = world.table("t", 2).await;
    let views = world.views();
    let (sent, acknowledged) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let producers: Vec<_> = (0..2)
        .map(|index| {
            let (log, topic) = (world.log.clone(), topic.clone());
            let (sent, acknowledged) = (sent.clone(), acknowledged.clone());
            world.env.spawn("producer", async move {
                for _ in 0..60 {
                    sent.fetch_add(5, SeqCst);
                    append(&log, &topic, index, &[r#"{"n":1}"#; 5]).await;
                    acknowledged.fetch_add(5, SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    loop {
        let done = producers.iter().all(floe_env::Task::is_finished);
        let low = acknowledged.load(SeqCst);
        let count = world.number("select count(*) from t").await;
        let high = sent.load(SeqCst);
        assert!(low <= count && count <= high, "{low} <= {count} <= {high}");
        // A statement has one cut, however often it names a table.
        let same = "select (select count(*) from t) - (select sum(n) from t where n = 1) + count(*) - count(*) from t";
        assert_eq!(world.number(same).await, 0);
        if done {
            break;
        }
    }
    assert_eq!(world.number("select count(*) from t").await, 600);
    views.close().await;
}

/// The tail of a table stays short, however long the freshness of the table is.
#[tokio::test(start_paused = true)]
async fn a_patient_table_can_always_be_read() {
    let world = World::simulated_with(2, Config { tail_held_bytes: 4 << 20, ..Config::default() }).await;
    let views = world.views_with(floe_lake::Config { gather_bytes: 1 << 20, ..floe_lake::Config::default() });
    let topic = world.topic("t", 2, &[("floe.table", "json"), ("floe.table.freshness.ms", "86400000")]).await;
    let value = format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(200 << 10));
    for count in 1..=60 {
        world.append(&topic, count % 2, &[&value]).await;
        assert_eq!(world.number("select cast(sum(n) as bigint) from t").await, i64::from(count));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let snapshot = world.log.meta().snapshot();
    let snapshots = world.lake.table(&snapshot, "t").unwrap().unwrap().snapshots;
    assert!((5..=10).contains(&snapshots), "{snapshots} commits of a megabyte each");
    views.close().await;
}
