//! Columns whose whole numbers become doubles in a table that is too large for one step: a job rewrites it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Fields};
use floe_env::Env;
use floe_iceberg::TableMetadata;
use floe_lake::{Config, limits};
use floe_log::topic::Topic;
use floe_schema::FIELD_ID;
use floe_store::faulty::{Fault, FaultyStore, Operation};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{Broker, Ground, config};

const QUICK: &[(&str, &str)] = &[("floe.table", "json"), ("floe.table.freshness.ms", "100")];

/// Everything is too large for one step.
fn by_jobs() -> Config {
    Config { step_rewrite_bytes: 0, ..config() }
}

/// A broker whose store takes `pause` for each data file that is read.
async fn slow_broker(ground: &Ground, seed: u64, pause: Duration) -> Broker {
    let store = FaultyStore::new(ground.store.clone(), move |operation, key| {
        let slow = operation == Operation::Get && key.ends_with(".parquet");
        if slow { Fault::Slow(pause) } else { Fault::None }
    });
    let journal = Arc::new(ground.journal.clone());
    Broker::open_with(Env::simulated(seed), Arc::new(store), journal, by_jobs()).await
}

/// A table with this many data files.
async fn table_of(broker: &Broker, name: &str, files: usize) -> Topic {
    let topic = broker.topic(name, 1, QUICK).await;
    for n in 0..files {
        broker
            .produce(&topic, 0, &[format!("{{\"x\":{n},\"o\":{{\"y\":[{n}]}},\"x_long\":\"taken\"}}")])
            .await;
        broker.settled(name).await;
    }
    topic
}

async fn metadata(broker: &Broker, name: &str) -> TableMetadata {
    broker.lake.metadata(&broker.table(name)).await.expect("it can be read").expect("it was made")
}

/// The names of the columns that other readers see, and their types.
async fn columns(broker: &Broker, name: &str) -> Vec<String> {
    let metadata = metadata(broker, name).await;
    let fields = metadata.current_schema().fields();
    fields
        .iter()
        .filter(|f| !f.name.starts_with('_'))
        .map(|f| format!("{} {}", f.name, f.field_type))
        .collect()
}

async fn has_column(broker: &Broker, name: &str) -> bool {
    metadata(broker, "t").await.current_schema().field_by_name(name).is_some()
}

/// Every value of the table is in a column that other readers see.
async fn check_visible(broker: &Broker, quiet: &Broker, name: &str) {
    let (metadata, table) = (metadata(broker, name).await, broker.table(name));
    let known = metadata.current_schema().ids();
    for file in quiet.lake.data_files(&table).await.expect("the manifests can be read").iter() {
        let bytes = quiet.log.store().get(&file.key, None).await.expect("a live file exists");
        let file_schema = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a live file can be read");
        for id in ids(file_schema.schema().fields()) {
            assert!(known.contains(&id), "{} has column {id}, which nobody sees", file.key);
        }
    }
}

/// The ids of all columns, including those in structs and lists.
fn ids(fields: &Fields) -> Vec<i32> {
    let mut found = Vec::new();
    for field in fields {
        found.extend(field.metadata().get(FIELD_ID).and_then(|id| id.parse::<i32>().ok()));
        match field.data_type() {
            DataType::Struct(fields) => found.extend(ids(fields)),
            DataType::List(element) => found.extend(ids(&Fields::from(vec![Arc::clone(element)]))),
            _ => {}
        }
    }
    found
}

async fn xs(broker: &Broker, name: &str) -> Vec<Value> {
    let rows = broker.rows(&broker.table(name)).await;
    rows.iter().map(|row| json!([row["x"], row["o"]["y"]])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_large_table_stays_fresh_while_its_files_are_rewritten() {
    let ground = Ground::new();
    // A piece takes 256 seconds, and the next one less.
    let files = limits::PIECE_FILES + 20;
    let broker = slow_broker(&ground, 1, Duration::from_secs(1)).await;
    let quiet = ground.broker_with(Env::simulated(2), Config { views: false, ..by_jobs() }).await;
    let topic = table_of(&broker, "t", files).await;
    let other = table_of(&broker, "other", 1).await;
    // The fraction comes, and more records. To read every file takes minutes.
    broker.produce(&topic, 0, &["{\"x\":0.5}"]).await;
    for second in 1..=120 {
        sleep(Duration::from_secs(1)).await;
        let table = broker.table("t");
        assert_eq!(table.rows, (files + second) as u64, "the table is not fresh: {:?}", broker.lake.status());
        let row =
            if second == 60 { "{\"o\":{\"y\":[0.5]}}".to_owned() } else { format!("{{\"x\":{second}}}") };
        broker.produce(&topic, 0, &[&row]).await;
        broker.produce(&other, 0, &[&row]).await;
        if second % 20 == 0 {
            check_visible(&broker, &quiet, "t").await;
        }
    }
    let during = columns(&broker, "t").await;
    assert!(during[0].starts_with("x double") && during[1].starts_with("x_long_2 int"), "{during:?}");
    assert!(has_column(&broker, "o.y_long").await, "{during:?}");
    assert!(broker.lake.status().iter().all(|view| view.error.is_none()), "{:?}", broker.lake.status());
    assert_eq!(broker.settled("other").await.rows, 121);

    broker.jobs_done().await;
    broker.settled("t").await;
    let after = columns(&broker, "t").await;
    assert!(after[0].starts_with("x double") && !after.iter().any(|c| c.contains("_long_2")), "{after:?}");
    assert!(!has_column(&broker, "o.y_long").await, "{after:?}");
    check_visible(&broker, &quiet, "t").await;
    let found = xs(&quiet, "t").await;
    let old = (0..files).map(|n| json!([n as f64, [n as f64]]));
    let new = (0..=120).map(|n| match n {
        0 => json!([0.5, null]),
        60 => json!([null, [0.5]]),
        n => json!([f64::from(n), null]),
    });
    assert_eq!(found, old.chain(new).collect::<Vec<_>>());
    let table = broker.table("t");
    assert!(table.files < files as u64 + 121, "pieces make larger files: {}", table.files);
    quiet.check_every_snapshot("t").await;
    quiet.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_under_the_next_owner() {
    let ground = Ground::new();
    let world = Env::simulated(3);
    let env = world.scope();
    let first = ground.broker_with(env.clone(), by_jobs()).await;
    let topic = table_of(&first, "t", 5).await;
    first.lake.clone().close().await;
    env.abort_all();
    // This one crashes before the job has read a file.
    let env = world.scope();
    let store = FaultyStore::new(ground.store.clone(), |operation, key| {
        let slow = operation == Operation::Get && key.ends_with(".parquet");
        if slow { Fault::Slow(Duration::from_secs(100_000)) } else { Fault::None }
    });
    let journal = Arc::new(ground.journal.clone());
    let second = Broker::open_with(env.clone(), Arc::new(store), journal, by_jobs()).await;
    second.produce(&topic, 0, &["{\"x\":0.5}"]).await;
    second.settled("t").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(second.lake.status()[0].job, Some("widen"));
    env.abort_all();

    let third = ground.broker_with(world.scope(), by_jobs()).await;
    sleep(Duration::from_secs(60)).await;
    third.jobs_done().await;
    let ids: BTreeSet<String> = columns(&third, "t").await.into_iter().collect();
    assert!(!ids.iter().any(|column| column.starts_with("x_long_2")), "{ids:?}");
    assert_eq!(xs(&third, "t").await[5], json!([0.5, null]));
    third.check_every_snapshot("t").await;
    third.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_stops_the_job_and_not_the_table() {
    let ground = Ground::new();
    let broker = ground.broker_with(Env::simulated(4), by_jobs()).await;
    let topic = table_of(&broker, "t", 3).await;
    let key = ground.store.keys().into_iter().find(|key| key.ends_with(".parquet")).expect("there are rows");
    let whole = broker.log.store().get(&key, None).await.expect("it is there");
    let mut damaged = whole.to_vec();
    damaged[100] ^= 1;
    broker.log.store().put(&key, vec![damaged.into()]).await.expect("it is taken");
    broker.produce(&topic, 0, &["{\"x\":0.5}"]).await;
    for n in 5..10 {
        sleep(Duration::from_secs(60)).await;
        broker.produce(&topic, 0, &["{\"x\":1}"]).await;
        let table = broker.settled("t").await;
        assert_eq!(table.rows, n);
        let status = broker.lake.status();
        assert_eq!((status[0].job, &status[0].error), (Some("widen"), &None));
    }
    broker.log.store().put(&key, vec![whole]).await.expect("it is taken");
    sleep(Duration::from_secs(120)).await;
    broker.jobs_done().await;
    broker.check_every_snapshot("t").await;
}
