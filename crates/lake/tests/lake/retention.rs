//! Tables whose records leave the log, by retention or by a client.

use std::time::Duration;

use floe_env::Env;
use floe_lake::{TailError, unread, unread_by_rebuild};
use floe_log::{Below, Log, PartitionId, topic::Topic};
use tokio::time::sleep;

use crate::world::{Broker, Ground, JSON, writer};

/// The offsets of a partition's rows.
async fn offsets(broker: &Broker) -> Vec<i64> {
    let rows = broker.rows(&broker.table("t")).await;
    rows.iter().map(|row| crate::world::position(row).1).collect()
}

fn start(broker: &Broker, topic: &Topic) -> i64 {
    let bounds = Log::bounds(&broker.log.meta().snapshot(), PartitionId::new(topic.id, 0));
    bounds.expect("it exists").log_start.0
}

/// The records of these tests are of 1970, so they are old at once.
async fn produce(broker: &Broker, topic: &Topic, numbers: std::ops::Range<u32>) {
    for n in numbers {
        broker.produce(topic, 0, &[format!("{{\"n\":{n}}}")]).await;
    }
}

async fn delete_all(broker: &Broker, topic: &Topic) {
    let below = Below { partition: PartitionId::new(topic.id, 0), offset: None };
    broker.log.delete_records(&writer(), &[below]).await.remove(0).expect("deleted");
}

fn lost(broker: &Broker) -> u64 {
    broker.lake.status().iter().find(|view| view.name == "t").expect("its view runs").lost
}

#[tokio::test(start_paused = true)]
async fn rows_stay_when_their_records_go() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(21)).await;
    broker.log.enforce_retention(vec![unread, unread_by_rebuild]);
    let topic = broker.topic("t", 1, JSON).await;
    produce(&broker, &topic, 0..3).await;
    broker.settled("t").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(start(&broker, &topic), 3, "they are old");
    assert_eq!(broker.settled("t").await.rows, 3);
    produce(&broker, &topic, 3..5).await;
    broker.settled("t").await;
    assert_eq!((offsets(&broker).await, lost(&broker)), (vec![0, 1, 2, 3, 4], 0));
    delete_all(&broker, &topic).await;
    broker.lake.rebuild(&broker.table("t"), false).await.expect("nothing is lost");
    sleep(Duration::from_secs(30)).await;
    assert!(broker.lake.rebuilding(&broker.table("t")).unwrap().is_none(), "it is rebuilt");
    assert_eq!(offsets(&broker).await, [0, 1, 2, 3, 4], "also of what the log does not have any more");
    produce(&broker, &topic, 5..6).await;
    broker.settled("t").await;
    assert_eq!(offsets(&broker).await, [0, 1, 2, 3, 4, 5]);
    broker.check_no_orphans(&ground.store).await;
}

/// The table is slow: it takes 90 seconds until records are rows, and retention takes them before.
async fn slow_table(seed: u64, waits: &'static str) -> (Ground, Broker, Topic) {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(seed)).await;
    let settings = [
        ("floe.table", "json"),
        ("floe.table.freshness.ms", "100000"),
        ("floe.retention.wait.for.views", waits),
    ];
    let topic = broker.topic("t", 1, &settings).await;
    broker.log.enforce_retention(vec![unread, unread_by_rebuild]);
    produce(&broker, &topic, 0..3).await;
    sleep(Duration::from_secs(60)).await;
    (ground, broker, topic)
}

#[tokio::test(start_paused = true)]
async fn a_table_says_how_many_records_it_lost() {
    let (_ground, broker, topic) = slow_table(22, "false").await;
    assert_eq!(start(&broker, &topic), 3);
    broker.settled("t").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((offsets(&broker).await, lost(&broker)), (vec![], 3));
    produce(&broker, &topic, 3..4).await;
    delete_all(&broker, &topic).await;
    broker.settled("t").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lost(&broker), 4);
}

#[tokio::test(start_paused = true)]
async fn retention_waits_for_a_table_if_the_topic_says_so() {
    let (_ground, broker, topic) = slow_table(23, "true").await;
    assert_eq!((start(&broker, &topic), broker.log.retain().await.expect("a round").waiting), (0, 1));
    broker.settled("t").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((start(&broker, &topic), offsets(&broker).await, lost(&broker)), (3, vec![0, 1, 2], 0));
}

/// A client deletes what a table that is made anew has not read. The rows are in the running table, so the new one does
/// not go on without them.
#[tokio::test(start_paused = true)]
async fn a_table_that_is_rebuilt_loses_no_rows_to_a_deletion() {
    for wait in [0, 20, 60, 150, 400] {
        let ground = Ground::new();
        let broker = ground.broker(Env::simulated(24)).await;
        broker.log.enforce_retention(vec![unread, unread_by_rebuild]);
        let topic = broker.topic("t", 1, JSON).await;
        produce(&broker, &topic, 0..20).await;
        broker.settled("t").await;
        broker.lake.rebuild(&broker.table("t"), false).await.expect("begun");
        sleep(Duration::from_millis(wait)).await;
        delete_all(&broker, &topic).await;
        sleep(Duration::from_secs(20)).await;
        if let Some(view) = broker.lake.rebuilding(&broker.table("t")).unwrap() {
            let (error, _) = view.error.expect("it stands still");
            assert!(error.contains("ask for the rebuilding again"), "after {wait} ms: {error}");
            broker.lake.rebuild(&broker.table("t"), false).await.expect("begun once more");
            sleep(Duration::from_secs(30)).await;
        }
        assert!(broker.lake.rebuilding(&broker.table("t")).unwrap().is_none(), "after {wait} ms");
        assert_eq!(offsets(&broker).await, (0..20).collect::<Vec<i64>>(), "after {wait} ms");
        produce(&broker, &topic, 20..21).await;
        assert_eq!(broker.settled("t").await.rows, 21);
        sleep(floe_lake::limits::GARBAGE_GRACE * 3).await;
        broker.check_no_orphans(&ground.store).await;
    }
}

/// A tail that takes longer than objects without records are kept says what became of the records.
#[tokio::test(start_paused = true)]
async fn a_tail_whose_records_went_says_so() {
    let (_ground, broker, topic) = slow_table(25, "true").await;
    let (snapshot, table) = (broker.log.meta().snapshot(), broker.table("t"));
    delete_all(&broker, &topic).await;
    let mut hold = |_| Ok(());
    assert_eq!(
        broker.lake.tail(&snapshot, &table, &mut hold).await.expect("within the grace").batches.len(),
        1
    );
    sleep(floe_log::limits::TRASH_GRACE * 2).await;
    let error = broker.lake.tail(&snapshot, &table, &mut hold).await.unwrap_err();
    let partition = PartitionId::new(topic.id, 0);
    assert!(matches!(error, TailError::Gone(of) if of == partition), "{error}");
    assert!(error.to_string().contains("ask again"), "{error}");
}
