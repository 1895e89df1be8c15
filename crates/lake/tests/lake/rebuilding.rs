//! Tables that are damaged and made anew from the log, beside the running one.

use std::time::Duration;

use floe_env::Env;
use floe_lake::{LakeError, map::Rebuild};
use floe_log::{
    PartitionId,
    partition::Head,
    topic::{self, Topic},
};
use floe_meta::{Envelope, Tx};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{Broker, Ground, JSON, position};

/// Waits until nothing is rebuilt any more and the table has caught up.
async fn rebuilt(broker: &Broker, name: &str) -> floe_lake::TableRef {
    for _ in 0..1_000 {
        sleep(Duration::from_millis(200)).await;
        if broker.lake.rebuilding(&broker.table(name)).expect("it can be read").is_none() {
            return broker.settled(name).await;
        }
    }
    panic!("it is not rebuilt: {:?}", broker.lake.rebuilding(&broker.table(name)));
}

/// Flips a bit in the middle of each file of the table whose key ends so.
async fn damage(broker: &Broker, ground: &Ground, topic: &Topic, end: &str) -> usize {
    let folder = format!("lake/{}-", topic.id);
    let keys = ground.store.keys().into_iter().filter(|key| key.starts_with(&folder) && key.ends_with(end));
    let keys: Vec<String> = keys.collect();
    for key in &keys {
        let mut bytes = broker.log.store().get(key, None).await.expect("it was just listed").to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        if end == "json" {
            bytes.truncate(middle);
        }
        broker.log.store().put(key, vec![bytes.into()]).await.expect("memory takes it");
    }
    keys.len()
}

async fn table_with(broker: &Broker, rows: u32) -> Topic {
    let topic = broker.topic("t", 2, JSON).await;
    for n in 0..rows {
        broker.produce(&topic, n % 2, &[format!("{{\"n\":{n}}}"), "bad".to_owned()]).await;
        broker.settled("t").await;
    }
    topic
}

async fn ns(broker: &Broker) -> Vec<Value> {
    let rows = broker.rows(&broker.table("t")).await;
    rows.iter().map(|row| json!([position(row).0, position(row).1, row["n"]])).collect()
}

/// Lets the log of a partition begin here.
async fn move_start(broker: &Broker, topic: &Topic, index: u32, start: i64) {
    let partition = PartitionId::new(topic.id, index);
    let command = move |tx: &mut Tx<'_>| -> Result<(), floe_meta::DecodeError> {
        let head = tx.get::<Head>(&partition)?.expect("the partition exists");
        tx.put(&partition, &Head { log_start: floe_log::Offset(start), ..head });
        Ok(())
    };
    broker.log.meta().commit(Envelope::broker("test"), command).await.expect("it is applied");
}

#[tokio::test(start_paused = true)]
async fn a_table_with_damaged_documents_or_files_is_made_anew() {
    for (seed, end) in [".parquet", "-m.avro", "-s.avro", ".json"].into_iter().enumerate() {
        let ground = Ground::new();
        let world = Env::simulated(seed as u64);
        let env = world.scope();
        let first = ground.broker(env.clone()).await;
        let topic = table_with(&first, 6).await;
        let before = first.table("t");
        first.lake.clone().close().await;
        env.abort_all();
        assert!(damage(&first, &ground, &topic, end).await > 0, "{end}");

        let broker = ground.broker(world.scope()).await;
        for n in 6..9 {
            broker.produce(&topic, 0, &[format!("{{\"n\":{n}}}")]).await;
        }
        sleep(Duration::from_secs(5)).await;
        let lost = broker.lake.rebuild(&broker.table("t"), false).await.expect("the log has every record");
        assert_eq!(lost, 0);
        let table = rebuilt(&broker, "t").await;
        assert_eq!((table.rows, table.bad_records), (9, 6), "{end}");
        assert_eq!(ns(&broker).await.len(), 9);
        assert!(table.snapshots > before.snapshots, "states of a table are told apart by their number");
        // Without a new record.
        sleep(floe_view::limits::BACKOFF_MAX * 2).await;
        assert!(broker.lake.status().iter().all(|view| view.error.is_none()), "{:?}", broker.lake.status());
        // It goes on.
        broker.produce(&topic, 1, &["{\"n\":0.5}"]).await;
        assert_eq!(broker.settled("t").await.rows, 10);
        broker.check_every_snapshot("t").await;
        let letters = topic::by_name(&broker.log.meta().snapshot(), "t.dead-letter").unwrap().unwrap();
        assert_eq!(broker.records(&letters).await.len(), 6, "no letter is written twice");

        // The files of the old table go, as far as its documents tell.
        sleep(floe_lake::limits::GARBAGE_GRACE * 3).await;
        broker.check_every_snapshot("t").await;
        let old = format!("lake/{}-t/", topic.id);
        let left: Vec<String> = ground.store.keys().into_iter().filter(|key| key.starts_with(&old)).collect();
        let named = |key: &String| key.ends_with(".parquet") || key.ends_with("-m.avro");
        match end {
            ".parquet" => assert_eq!(left, Vec::<String>::new()),
            _ => assert!(left.iter().filter(|key| !named(key)).count() <= 12, "{end}: {left:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_running_table_goes_on_until_the_new_one_has_caught_up() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(11)).await;
    let topic = table_with(&broker, 4).await;
    let uuid = broker.lake.metadata(&broker.table("t")).await.unwrap().unwrap().uuid();
    broker.lake.rebuild(&broker.table("t"), false).await.unwrap();
    broker.lake.rebuild(&broker.table("t"), false).await.expect("asking twice changes nothing");
    for n in 4..40 {
        broker.produce(&topic, n % 2, &[format!("{{\"n\":{n}}}")]).await;
        sleep(Duration::from_millis(250)).await;
        broker.check_every_snapshot("t").await;
    }
    let table = rebuilt(&broker, "t").await;
    assert_eq!(table.rows, 40);
    let metadata = broker.lake.metadata(&table).await.unwrap().unwrap();
    assert_ne!(metadata.uuid(), uuid, "readers see that it is another table");
    assert!(metadata.location().ends_with("-t.rebuilt-1"), "{}", metadata.location());
    // Once more: the next folder.
    broker.lake.rebuild(&table, false).await.unwrap();
    let table = rebuilt(&broker, "t").await;
    assert_eq!(table.rows, 40);
    let metadata = broker.lake.metadata(&table).await.unwrap().unwrap();
    assert!(metadata.location().ends_with("-t.rebuilt-2"), "{}", metadata.location());
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
    sleep(floe_lake::limits::GARBAGE_GRACE * 3).await;
    let new = format!("lake/{}-t.rebuilt-2/", topic.id);
    let others = |key: &String| key.starts_with("lake/") && !key.starts_with(&new);
    let left: Vec<String> = ground.store.keys().into_iter().filter(others).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn rows_below_the_start_of_the_log_are_kept_if_they_verify() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(12)).await;
    let topic = table_with(&broker, 6).await;
    let before = ns(&broker).await;
    move_start(&broker, &topic, 0, 3).await;
    move_start(&broker, &topic, 1, 6).await;
    assert_eq!(broker.lake.rebuild(&broker.table("t"), false).await.unwrap(), 0);
    let table = rebuilt(&broker, "t").await;
    assert_eq!((ns(&broker).await, table.rows), (before, 6));
    broker.produce(&topic, 0, &["{\"n\":0.5}"]).await;
    assert_eq!(broker.settled("t").await.rows, 7);
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn damage_below_the_start_of_the_log_is_refused_with_its_cost() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(13)).await;
    let topic = table_with(&broker, 6).await;
    move_start(&broker, &topic, 1, 4).await;
    // One of the files that hold partition 1, with the row of offset 0.
    let all = broker.lake.data_files(&broker.table("t")).await.unwrap();
    let mut of_one = Vec::new();
    for file in all.iter() {
        let bytes = broker.log.store().get(&file.key, None).await.unwrap();
        let rows = floe_lake::data_file::read(bytes, &broker.table("t").schema).unwrap();
        let rows: Vec<Value> = rows.iter().flat_map(crate::world::as_json).collect();
        of_one.extend(rows.iter().any(|row| position(row) == (1, 0)).then(|| file.key.clone()));
    }
    let mut bytes = broker.log.store().get(&of_one[0], None).await.unwrap().to_vec();
    bytes[50] ^= 1;
    broker.log.store().put(&of_one[0], vec![bytes.into()]).await.unwrap();

    let refused = broker.lake.rebuild(&broker.table("t"), false).await;
    // Offsets 0 to 3 of partition 1: two rows and two bad records. One row is kept, and it is not known which of the
    // others were rows.
    assert!(matches!(refused, Err(LakeError::WouldLose { rows: 3 })), "{refused:?}");
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("up to 3 rows") && error.contains("--lose"), "{error}");
    assert!(broker.log.meta().snapshot().get::<Rebuild>(&topic.id).unwrap().is_none(), "nothing was begun");

    assert_eq!(broker.lake.rebuild(&broker.table("t"), true).await.unwrap(), 3);
    assert_eq!(rebuilt(&broker, "t").await.rows, 5);
    let found = ns(&broker).await;
    assert_eq!(
        found,
        [json!([0, 0, 0]), json!([0, 2, 2]), json!([0, 4, 4]), json!([1, 2, 3]), json!([1, 4, 5])]
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_while_its_table_is_rebuilt_leaves_nothing() {
    for wait in [0, 50, 300, 1_000] {
        let ground = Ground::new();
        let broker = ground.broker(Env::simulated(14)).await;
        let topic = table_with(&broker, 4).await;
        broker.lake.rebuild(&broker.table("t"), false).await.unwrap();
        sleep(Duration::from_millis(wait)).await;
        broker.log.delete_topic(&crate::world::writer(), topic.id).await.unwrap();
        sleep(floe_lake::limits::GARBAGE_GRACE * 3).await;
        let left: Vec<String> =
            ground.store.keys().into_iter().filter(|key| key.starts_with("lake/")).collect();
        assert_eq!(left, Vec::<String>::new(), "after {wait} ms");
        assert!(broker.log.meta().snapshot().get::<Rebuild>(&topic.id).unwrap().is_none());
    }
}

/// Rebuilds and crashes at the poll `poll`, then goes on.
async fn crash_while_rebuilding(poll: u64) -> u64 {
    let ground = Ground::new();
    let world = Env::simulated(15);
    let env = world.scope();
    let first = ground.broker(env.clone()).await;
    let topic = table_with(&first, 3).await;
    first.lake.clone().close().await;
    env.abort_all();

    let env = world.scope();
    env.crash_at_poll(poll);
    let broker = ground.broker(env.clone());
    let work = async {
        let broker = broker.await;
        broker.lake.rebuild(&broker.table("t"), false).await.expect("nothing is lost");
        rebuilt(&broker, "t").await;
    };
    tokio::select! {
        biased;
        () = env.crashed() => {}
        () = work => {}
    }
    let polls = env.polls();
    env.abort_all();

    let broker = ground.broker(world.scope()).await;
    broker.lake.rebuild(&broker.table("t"), false).await.expect("nothing is lost");
    assert_eq!(rebuilt(&broker, "t").await.rows, 3);
    broker.produce(&topic, 0, &["{\"n\":7}"]).await;
    assert_eq!(broker.settled("t").await.rows, 4);
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
    polls
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_a_table_is_rebuilt_loses_and_doubles_nothing() {
    let polls = crash_while_rebuilding(u64::MAX).await;
    assert!(polls > 20, "{polls} polls");
    for poll in (1..polls).step_by(3) {
        crash_while_rebuilding(poll).await;
    }
}
