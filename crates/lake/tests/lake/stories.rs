//! What users do, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::DataType};
use floe_env::Env;
use floe_lake::{
    Config, TailError,
    map::{Garbage, Table},
};
use floe_log::{
    Append, PartitionId,
    codec::Compression,
    records::Builder,
    topic::{self, Topic},
};
use floe_meta::lease::Lease;
use floe_view::dead_letter;
use serde_json::json;

use crate::world::{Broker, Ground, JSON, SNAPSHOTS_KEPT, as_json, config, position, writer};

#[tokio::test(start_paused = true)]
async fn records_become_rows_and_the_schema_grows() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    let flights = broker.topic("flights", 2, JSON).await;
    let empty = broker.settled("flights").await;
    assert_eq!((empty.rows, empty.snapshots, empty.snapshot_id), (0, 0, None));
    assert!(broker.rows(&empty).await.is_empty());

    broker.produce(&flights, 0, &[r#"{"carrier":"UA","delay":2}"#, r#"{"carrier":"AA","delay":-4}"#]).await;
    broker
        .produce(&flights, 1, &[r#"{"carrier":"B6","delay":5000000000,"time":"2013-01-01T05:00:00Z"}"#])
        .await;
    let table = broker.settled("flights").await;
    assert_eq!((table.rows, table.bad_records), (3, 0));
    let rows = broker.rows(&table).await;
    let short: Vec<_> = rows.iter().map(|row| json!([row["carrier"], row["delay"], row["time"]])).collect();
    assert_eq!(
        json!(short),
        json!([["UA", 2, null], ["AA", -4, null], ["B6", 5_000_000_000_i64, "2013-01-01T05:00:00Z"]])
    );
    assert_eq!(rows.iter().map(position).collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0)]);
    assert_eq!((&rows[0]["_key"], &rows[0]["_timestamp"]), (&json!("k"), &json!("1970-01-01T00:00:01Z")));

    // A plain topic has no table, and idle tables make no commits.
    broker.topic("plain", 1, &[]).await;
    let before = broker.log.meta().snapshot().lsn();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let snapshot = broker.log.meta().snapshot();
    assert!(broker.lake.table(&snapshot, "plain").unwrap().is_none());
    assert_eq!(broker.lake.tables(&snapshot).unwrap().len(), 1);
    assert_eq!(broker.table("flights").snapshots, table.snapshots);
    assert!(
        snapshot.lsn().0 - before.0 <= 5,
        "an idle lake makes no entries: {before:?} {:?}",
        snapshot.lsn()
    );
    broker.check_every_snapshot("flights").await;
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn bad_records_are_dead_letters_with_their_reason() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(2)).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.produce(&topic, 0, &["{\"x\":1}", "nonsense", "[1]", "{\"x\":2}", "{\"x\":"]).await;
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records), (2, 3));

    let letters = topic::by_name(&broker.log.meta().snapshot(), &dead_letter::topic_of("t").unwrap());
    let letters = letters.unwrap().expect("the dead-letter topic was made");
    assert_eq!(letters.name, "t.dead-letter");
    let snapshot = broker.log.meta().snapshot();
    let partition = letters.partition_ids().next().unwrap();
    let read = broker.log.read(&snapshot, partition, floe_log::Offset::ZERO, 1 << 20).await.unwrap();
    let mut found = Vec::new();
    for record in read.batches.iter().flat_map(|batch| batch.records(1 << 20).unwrap()) {
        let header = |name: &str| {
            let value =
                record.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
            String::from_utf8(value.expect("the header is there").to_vec()).unwrap()
        };
        let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        found.push(json!([value, header("floe.offset"), header("floe.topic"), header("floe.reason")]));
    }
    assert_eq!(
        json!(found),
        json!([
            ["nonsense", "1", "t", "the value is not a JSON object"],
            ["[1]", "2", "t", "the value is not a JSON object"],
            ["{\"x\":", "4", "t", "EOF while parsing a value at line 1 column 5"],
        ])
    );
    // Under the other rule they are only counted.
    let skip = broker.topic("skip", 1, &[("floe.table", "json"), ("floe.table.bad.record", "skip")]).await;
    broker.produce(&skip, 0, &["nonsense"]).await;
    let table = broker.settled("skip").await;
    assert_eq!((table.rows, table.bad_records), (0, 1));
    assert!(topic::by_name(&broker.log.meta().snapshot(), "skip.dead-letter").unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_of_somebody_else_takes_letters_of_any_size() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(8)).await;
    // A consumer that subscribes before there are letters creates such a topic.
    let letters = broker.topic("t.dead-letter", 3, &[("max.message.bytes", "1000")]).await;
    let topic = broker.topic("t", 1, &[("floe.table", "json"), ("max.message.bytes", "10000")]).await;
    let large: String = (0..2_000).map(|n| (n * n).to_string()).collect();
    broker.produce(&topic, 0, &["{\"x\":1}", "nonsense", &large]).await;
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records), (1, 2));
    let found: Vec<_> = broker.records(&letters).await.into_values().collect();
    assert_eq!(found, [b"nonsense".as_slice(), large.as_bytes()]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_ends_inside_of_what_was_read() {
    let ground = Ground::new();
    let broker =
        ground.broker_with(Env::simulated(9), Config { commit_bytes: 10_000, ..Config::default() }).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.settled("t").await;
    // One read gets all of these. Half of them become dead letters.
    let row = format!("{{\"x\":\"{}\"}}", "y".repeat(1_000));
    let dead = "x".repeat(1_000);
    for _ in 0..10 {
        broker.produce(&topic, 0, &[&row, &dead, &row, &dead, &row, &dead]).await;
    }
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records, table.snapshots), (30, 30, 5));
    broker.check_every_snapshot("t").await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_partition_does_not_starve_the_others() {
    let ground = Ground::new();
    let broker = ground
        .broker_with(
            Env::simulated(10),
            Config { commit_bytes: 2_000, snapshots_kept: 100, ..Config::default() },
        )
        .await;
    let topic = broker.topic("t", 3, JSON).await;
    broker.settled("t").await;
    let row = format!("{{\"x\":\"{}\"}}", "y".repeat(1_000));
    for _ in 0..60 {
        broker.produce(&topic, 1, &[&row]).await;
    }
    broker.produce(&topic, 2, &["{}"]).await;
    broker.produce(&topic, 0, &["{}"]).await;
    let table = broker.settled("t").await;
    let metadata = broker.lake.metadata(&table).await.unwrap().unwrap();
    // The number of the commit that has the last record of a partition.
    let commit_of = |partition: &str| {
        let snapshots = metadata.snapshots();
        let of = snapshots.iter().filter(|s| {
            s.summary.additional_properties["floe.offsets-to"].contains(&format!("\"{partition}\":"))
        });
        of.map(|snapshot| snapshot.sequence_number).max().unwrap()
    };
    let commits = ["0", "1", "2"].map(commit_of);
    assert!(commits[0] < 5 && commits[1] > 25 && commits[2] < 5, "{commits:?}");
}

#[tokio::test(start_paused = true)]
async fn whole_numbers_that_become_doubles_take_their_files_along() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(3)).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.produce(&topic, 0, &["{\"x\":1,\"l\":[1]}", "{\"x\":9007199254740993}"]).await;
    broker.settled("t").await;
    broker.produce(&topic, 0, &["{\"y\":true}"]).await;
    let before = broker.settled("t").await;
    let old_files = broker.lake.data_files(&before).await.unwrap();
    broker.produce(&topic, 0, &["{\"x\":2.5}", "{\"l\":[0.5]}"]).await;
    let table = broker.settled("t").await;
    let rows = broker.rows(&table).await;
    let short: Vec<_> = rows.iter().map(|row| json!([row["x"], row["x_json"], row["l"], row["y"]])).collect();
    assert_eq!(
        json!(short),
        json!([
            [1.0, null, [1.0], null],
            [null, "9007199254740993", null, null],
            [null, null, null, true],
            [2.5, null, null, null],
            [null, null, [0.5], null],
        ])
    );
    let new_files = broker.lake.data_files(&table).await.unwrap();
    assert!(new_files.iter().all(|new| old_files.iter().all(|old| old.key != new.key)));
    let metadata = broker.lake.metadata(&table).await.unwrap().unwrap();
    let summary = &metadata.current_snapshot().unwrap().summary;
    assert_eq!(summary.operation, floe_iceberg::Operation::Overwrite);
    assert_eq!(summary.additional_properties["deleted-records"], "3");
    assert_eq!(summary.additional_properties["total-records"], "5");
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn old_snapshots_expire_and_their_files_go_after_the_grace() {
    let ground = Ground::new();
    let lake = Config { merge_files: 0, ..config() };
    let broker = ground.broker_with(Env::simulated(4), lake).await;
    let topic = broker.topic("t", 1, &[("floe.table", "json"), ("floe.table.freshness.ms", "100")]).await;
    for n in 0..60 {
        let value = if n == 40 { "{\"n\":0.5}".to_owned() } else { format!("{{\"n\":{n}}}") };
        broker.produce(&topic, 0, &[value]).await;
        broker.settled("t").await;
    }
    let table = broker.table("t");
    assert_eq!((table.rows, table.snapshots), (60, 60));
    let metadata = broker.lake.metadata(&table).await.unwrap().unwrap();
    assert_eq!(metadata.snapshots().len(), SNAPSHOTS_KEPT);
    assert!(metadata.metadata_log().len() <= floe_lake::limits::METADATA_KEPT);
    assert_eq!(metadata.properties()["floe.committed-offsets"], "{\"0\":60}");
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;

    // The widening may remove more files than one entry of the journal can name.
    let snapshot = broker.log.meta().snapshot();
    let garbage: Vec<_> = snapshot.range::<Garbage>(..).map(|found| found.unwrap().1).collect();
    let removed = garbage.iter().filter(|garbage| matches!(garbage, Garbage::Removed { .. }));
    assert_ne!(removed.count(), 0);
    let is_data = |key: &String| key.ends_with("parquet");
    let named = |garbage: &Garbage| matches!(garbage, Garbage::Files(keys) if keys.iter().any(is_data));
    assert!(!garbage.iter().any(named), "{garbage:?}");

    let lake_files = || ground.store.keys().into_iter().filter(|key| key.starts_with("lake/")).count();
    let before = lake_files();
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    // 60 data files, the 10 kept manifest lists, their manifests, 21 metadata documents.
    assert!(lake_files() < before - 100, "{before} files became {}", lake_files());
    assert!(lake_files() <= 60 + 10 + 40 + 21, "{} files are left", lake_files());
    assert_eq!(broker.rows(&broker.table("t")).await.len(), 60);
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
}

#[tokio::test(start_paused = true)]
async fn few_kept_snapshots_leave_no_orphans() {
    for snapshots_kept in [0, 1, 2, 3] {
        let ground = Ground::new();
        let config = Config { snapshots_kept, ..Config::default() };
        let broker = ground.broker_with(Env::simulated(11), config).await;
        let topic = broker.topic("t", 1, &[("floe.table", "json"), ("floe.table.freshness.ms", "100")]).await;
        for value in ["1", "2", "0.5", "3", "4", "5", "6", "7", "8", "9", "10"] {
            broker.produce(&topic, 0, &[format!("{{\"n\":{value}}}")]).await;
            broker.settled("t").await;
        }
        broker.check_every_snapshot("t").await;
        broker.check_no_orphans(&ground.store).await;
        tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
        broker.check_no_orphans(&ground.store).await;
        assert_eq!(broker.rows(&broker.table("t")).await.len(), 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_takes_its_table_along() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(5)).await;
    let topic = broker.topic("t", 1, JSON).await;
    broker.produce(&topic, 0, &["{\"x\":1}", "bad"]).await;
    broker.settled("t").await;
    broker.log.delete_topic(&writer(), topic.id).await.unwrap();
    let again = broker.topic("t", 1, JSON).await;
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.snapshots), (0, 0));
    broker.produce(&again, 0, &["{\"y\":1}"]).await;
    let table = broker.settled("t").await;
    assert_eq!(table.rows, 1);
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    let old = format!("lake/{}-", topic.id);
    assert!(ground.store.keys().iter().all(|key| !key.starts_with(&old)), "{:?}", ground.store.keys());
    assert_eq!(broker.rows(&broker.table("t")).await.len(), 1);
    let leases: Vec<String> =
        broker.log.meta().snapshot().range::<Lease>(..).map(|pair| pair.unwrap().0).collect();
    let of_views: Vec<&String> = leases.iter().filter(|name| name.starts_with("view/")).collect();
    assert_eq!(of_views, [&format!("view/lake/{}", again.id)]);
}

/// The table of a topic that comes back has each row once, under the topic's new name, also after rounds of the
/// cleaners.
#[tokio::test(start_paused = true)]
async fn a_topic_that_comes_back_has_its_table() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(5)).await;
    let kept = [JSON, &[("floe.trash.ms", "86400000")]].concat();
    let topic = broker.topic("t", 1, &kept).await;
    broker.produce(&topic, 0, &["{\"x\":1}", "bad"]).await;
    let before = broker.settled("t").await;
    // These are in the log only.
    broker.produce(&topic, 0, &["{\"x\":2}", "{\"z\":3}"]).await;
    broker.log.delete_topic(&writer(), topic.id).await.unwrap();
    let again = broker.topic("t", 1, JSON).await;
    broker.produce(&again, 0, &["{\"y\":1}"]).await;
    assert_eq!(broker.settled("t").await.rows, 1);
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    assert_eq!(
        broker.log.meta().snapshot().get::<Table>(&topic.id).unwrap().map(|table| table.rows),
        Some(1)
    );

    let which = floe_log::deleted::Which::Name("t".to_owned());
    broker.log.undelete_topic(&writer(), which, Some("u".to_owned())).await.unwrap();
    let table = broker.settled("u").await;
    assert_eq!((table.rows, table.bad_records), (before.rows + 2, before.bad_records));
    assert_eq!(broker.rows(&broker.table("u")).await.len(), 3);
    assert_eq!(broker.rows(&broker.table("t")).await.len(), 1);
    broker.check_every_snapshot("u").await;
    broker.check_no_orphans(&ground.store).await;

    broker.log.delete_topic(&writer(), topic.id).await.unwrap();
    broker.log.purge_topics(&writer(), floe_log::deleted::Which::All).await.unwrap();
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    let old = format!("lake/{}-", topic.id);
    assert!(ground.store.keys().iter().all(|key| !key.starts_with(&old)), "{:?}", ground.store.keys());
}

#[tokio::test(start_paused = true)]
async fn the_tail_holds_what_the_table_does_not() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(6)).await;
    let slow = &[("floe.table", "json"), ("floe.table.freshness.ms", "20000")];
    let topic = broker.topic("t", 2, slow).await;
    broker.produce(&topic, 0, &["{\"x\":1}"]).await;
    broker.produce(&topic, 1, &["{\"x\":2}", "bad"]).await;
    let snapshot = broker.log.meta().snapshot();
    let table = broker.lake.table(&snapshot, "t").unwrap().unwrap();
    // This cut does not see later records.
    broker.produce(&topic, 0, &["{\"later\":1}"]).await;
    let tail = broker.lake.tail(&snapshot, &table, &mut |_| Ok(())).await.unwrap();
    assert_eq!(tail.bad_records, 1);
    let rows: Vec<_> =
        tail.batches.iter().flat_map(as_json).map(|row| json!([position(&row), row["x"]])).collect();
    assert_eq!(json!(rows), json!([[[0, 0], 1], [[1, 0], 2]]));

    let table = broker.settled("t").await;
    broker.produce(&topic, 1, &["{\"x\":0.5}"]).await;
    let snapshot = broker.log.meta().snapshot();
    let tail = broker.lake.tail(&snapshot, &table, &mut |_| Ok(())).await.unwrap();
    let rows: Vec<_> =
        tail.batches.iter().flat_map(as_json).map(|row| json!([position(&row), row["x"]])).collect();
    assert_eq!(json!(rows), json!([[[1, 2], 0.5]]));
    assert_ne!(tail.schema, table.schema);
}

/// A tail that is longer than the memory that may be taken for it.
#[tokio::test(start_paused = true)]
async fn a_long_tail_is_read_batch_by_batch() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(18)).await;
    let slow = &[
        ("floe.table", "json"),
        ("floe.table.freshness.ms", "200000"),
        ("floe.table.file.bytes", "1000000000"),
    ];
    let topic = broker.topic("t", 2, slow).await;
    let text = "y".repeat(10_000);
    let produce = async |partition: u32, value: &str| {
        let values: Vec<String> =
            (0..100).map(|_| format!("{{\"x\":{value},\"text\":\"{text}\"}}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        broker.produce(&topic, partition, &values).await;
    };
    for n in 0..40 {
        produce(n % 2, &n.to_string()).await;
    }
    // The column becomes another one, with a text beside it.
    produce(1, "9007199254740993").await;
    produce(0, "0.5").await;
    let (snapshot, table) = (broker.log.meta().snapshot(), broker.table("t"));
    let mut most = 0;
    let mut hold = |bytes| {
        most = most.max(bytes);
        Ok(())
    };
    let seen = broker.lake.tail_schema(&snapshot, &table, None, &mut hold).await.unwrap();
    let mut reader = broker.lake.tail_reader(&snapshot, &table, seen.schema.clone());
    let mut streamed = Vec::new();
    while let Some(batch) = reader.next(&mut hold).await.unwrap() {
        assert_eq!(batch.schema(), seen.schema.arrow());
        streamed.extend(as_json(&batch));
    }
    assert!(most < 32 << 20, "{most} bytes at once");
    let whole = broker.lake.tail(&snapshot, &table, &mut |_| Ok(())).await.unwrap();
    assert_eq!(whole.schema, seen.schema);
    assert_eq!(streamed.len(), 4_200);
    assert_eq!(streamed, whole.batches.iter().flat_map(as_json).collect::<Vec<_>>());

    // What has been looked at is not read again.
    broker.produce(&topic, 0, &["{\"new\":1}"]).await;
    let later = broker.log.meta().snapshot();
    let mut most = 0;
    let mut hold = |bytes| {
        most = most.max(bytes);
        Ok(())
    };
    let more = broker.lake.tail_schema(&later, &table, Some(seen.clone()), &mut hold).await.unwrap();
    assert!(most < 1 << 20, "{most} bytes for one small record");
    // The columns are the same. A column that is not in the table yet has an id for this statement only, and ids follow
    // the order of reading.
    let columns = |schema: &floe_schema::TableSchema| -> BTreeMap<String, DataType> {
        let fields = schema.arrow();
        fields.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    let whole = broker.lake.tail(&later, &table, &mut |_| Ok(())).await.unwrap();
    assert_eq!(columns(&more.schema), columns(&whole.schema));
    // What a later cut needed is no column of an earlier one.
    let again = broker.lake.tail_schema(&snapshot, &table, Some(more), &mut |_| Ok(())).await.unwrap();
    assert_eq!(again, seen);
}

#[tokio::test(start_paused = true)]
async fn a_tail_takes_no_memory_that_it_is_not_given() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(16)).await;
    let slow = &[("floe.table", "json"), ("floe.table.freshness.ms", "20000")];
    let mut long = Builder::new(Compression::Zstd);
    long.push(0, None, Some(format!("{{\"x\":\"{}\"}}", "y".repeat(20 << 20)).as_bytes()), &[]);
    let mut many = Builder::new(Compression::Zstd);
    for n in 0..200_000 {
        many.push(n, None, None, &[]);
    }
    let mut headers = Builder::new(Compression::Zstd);
    headers.push(0, None, Some(b"{}"), &vec![(b"".as_slice(), None); 300_000]);
    let mut wide = Builder::new(Compression::Zstd);
    let columns: Vec<_> = (0..1_000).map(|n| format!("\"c{n}\":1")).collect();
    wide.push(0, None, Some(format!("{{{}}}", columns.join(",")).as_bytes()), &[]);
    for n in 0..5_000 {
        wide.push(n, None, Some(b"{}"), &[]);
    }
    // Parsed into a tree, these take more than their text and their cells.
    let mut tree = Builder::new(Compression::Zstd);
    tree.push(0, None, Some(format!("{{\"a\":[1{}]}}", ",1".repeat(600_000)).as_bytes()), &[]);
    let bombs = [("long", long), ("many", many), ("headers", headers), ("wide", wide), ("tree", tree)];
    for (name, batch) in bombs {
        let topic = broker.topic(name, 1, slow).await;
        append_small(&broker, &topic, &batch).await;
        let (snapshot, table) = (broker.log.meta().snapshot(), broker.table(name));
        let mut hold = |bytes| if bytes > 10 << 20 { Err("full".to_owned()) } else { Ok(()) };
        let error = broker.lake.tail(&snapshot, &table, &mut hold).await.expect_err(name);
        assert!(matches!(&error, TailError::Memory(reason) if reason == "full"), "{name}: {error}");
        let mut held = 0;
        let mut hold = |bytes| {
            held = bytes;
            Ok(())
        };
        let tail = broker.lake.tail(&snapshot, &table, &mut hold).await.unwrap();
        assert_eq!(held, tail.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_grows_wider_takes_no_memory_that_it_is_not_given() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(17)).await;
    let topic = broker.topic("t", 1, &[("floe.table", "json"), ("floe.table.freshness.ms", "20000")]).await;
    let element = |from: usize, to: usize| {
        let members: Vec<_> = (from..to).map(|n| format!("\"c{n}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    let list = |elements: &[String]| {
        let mut batch = Builder::new(Compression::Zstd);
        batch.push(0, None, Some(format!("{{\"a\":[{}]}}", elements.join(",")).as_bytes()), &[]);
        batch
    };
    let mut hold = |bytes| if bytes > 256 << 20 { Err("full".to_owned()) } else { Ok(()) };
    append_small(&broker, &topic, &list(&vec![element(0, 10); 105_000])).await;
    let (snapshot, table) = (broker.log.meta().snapshot(), broker.table("t"));
    broker.lake.tail(&snapshot, &table, &mut hold).await.unwrap();
    // Every element before them gets a cell for each of these columns.
    append_small(&broker, &topic, &list(&[element(10, 410)])).await;
    let (snapshot, table) = (broker.log.meta().snapshot(), broker.table("t"));
    let error = broker.lake.tail(&snapshot, &table, &mut hold).await.expect_err("340 MB of nulls");
    assert!(matches!(&error, TailError::Memory(reason) if reason == "full"), "{error}");
}

async fn append_small(broker: &Broker, topic: &Topic, batch: &Builder) {
    let batches = vec![(PartitionId::new(topic.id, 0), batch.build())];
    assert!(batches[0].1.len() < 1 << 20, "it is small in the log");
    let appended = broker.log.append(Append { writer: writer(), batches }).await;
    assert!(appended.iter().all(Result::is_ok), "{appended:?}");
}

#[tokio::test(start_paused = true)]
async fn raw_tables_and_a_changed_setting() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(7)).await;
    let topic = broker.topic("t", 1, &[("floe.table", "raw")]).await;
    broker.produce(&topic, 0, &[b"\xff\x00".as_slice(), b"x"]).await;
    let table = broker.settled("t").await;
    let rows = broker.rows(&table).await;
    assert_eq!((table.rows, &rows[0]["value"], &rows[1]["key"]), (2, &json!("ff00"), &json!("6b")));

    let id = topic.id;
    let json_now = [("floe.table".to_owned(), "json".to_owned())].into();
    let configure = move |tx: &mut floe_meta::Tx<'_>| topic::configure(tx, id, &json_now).map(drop);
    broker.log.meta().commit(floe_meta::Envelope::broker("test"), configure).await.unwrap();
    broker.produce(&topic, 0, &["{}"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = broker.lake.status();
    let (error, _) = status[0].error.as_ref().expect("the view says what is wrong");
    assert!(error.contains("set it back"), "{error}");
    assert_eq!(broker.table("t").rows, 2);
}

/// Keys that are values use up the columns of a table. Their columns go, and the table takes new keys again.
#[tokio::test(start_paused = true)]
async fn columns_of_junk_keys_are_dropped_and_there_is_room_again() {
    let ground = Ground::new();
    let broker = ground.broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 1, JSON).await;
    let junk: Vec<String> = (0..1_998).map(|n| format!("\"user-{n}\":{n}")).collect();
    broker.produce(&topic, 0, &[format!("{{\"id\":1,{}}}", junk.join(","))]).await;
    broker.produce(&topic, 0, &[r#"{"id":2,"a":1,"b":1}"#]).await;
    let full = broker.settled("t").await;
    assert_eq!((full.schema.columns_used(), full.rows, full.bad_records), (1_999, 1, 1));

    assert_eq!(broker.lake.drop_columns(&full, vec!["none-*".to_owned()]).await.expect("taken"), 0);
    let patterns = vec!["user-*".to_owned()];
    assert_eq!(broker.lake.drop_columns(&full, patterns).await.expect("taken"), 1_998);
    assert_eq!(broker.table("t").schema.columns_used(), 1, "readers of the map see it at once");
    broker.produce(&topic, 0, &[r#"{"id":3,"a":1,"b":1,"user-7":"again"}"#]).await;
    let table = broker.settled("t").await;
    assert_eq!((table.rows, table.bad_records, table.schema.columns_used()), (2, 1, 4));
    let rows = broker.rows(&table).await;
    let short: Vec<_> = rows.iter().map(|row| json!([row["id"], row["a"], row["user-7"]])).collect();
    assert_eq!(json!(short), json!([[1, null, null], [3, 1, "again"]]));

    // Foreign readers see the same columns, and no id is used twice.
    let metadata = broker.lake.metadata(&table).await.expect("readable").expect("it was made");
    let names: Vec<String> =
        metadata.current_schema().fields().iter().map(|field| field.name.clone()).collect();
    assert_eq!(names[4..], ["id", "a", "b", "user-7"]);
    let id = |table: &floe_lake::TableRef| {
        table.schema.columns().into_iter().find(|column| column.name == "user-7").expect("a column").id
    };
    assert!(id(&table) > full.schema.last_column_id(), "{} is a new id", id(&table));
    assert!(broker.lake.status().iter().all(|view| view.error.is_none()), "{:?}", broker.lake.status());
    broker.check_no_orphans(&ground.store).await;
}

/// The clock is years ahead for a while, and then it is put right. The table goes on, its snapshots have times of their
/// own in their order, and its garbage is deleted when it has been there for the grace.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_right_freezes_no_table() {
    const YEARS_MS: i64 = 10 * 365 * 86_400_000;
    let (ground, env) = (Ground::new(), Env::simulated(1));
    let broker = ground.broker(env.clone()).await;
    let topic = broker.topic("t", 1, JSON).await;
    for (n, ahead) in [0, YEARS_MS, YEARS_MS, 0, 0, 0].into_iter().enumerate() {
        env.set_wall_clock_ahead(ahead);
        // The schema grows now and then, and is the same again.
        broker.produce(&topic, 0, &[format!("{{\"x\":1,\"y{}\":1}}", n / 2)]).await;
        broker.settled("t").await;
    }
    for n in 0..2 * SNAPSHOTS_KEPT {
        broker.produce(&topic, 0, &[format!("{{\"x\":{n}}}")]).await;
        broker.settled("t").await;
    }
    let table = broker.settled("t").await;
    assert!(broker.lake.status().iter().all(|view| view.error.is_none()), "{:?}", broker.lake.status());
    let metadata = broker.lake.metadata(&table).await.expect("readable").expect("it was made");
    let mut times: Vec<(i64, i64)> =
        metadata.snapshots().iter().map(|s| (s.sequence_number, s.timestamp_ms)).collect();
    times.sort_unstable();
    assert!(times.windows(2).all(|pair| pair[0].1 < pair[1].1), "{times:?}");
    assert_eq!(metadata.last_updated_ms(), times.last().expect("there are some").1);
    broker.check_every_snapshot("t").await;
    tokio::time::sleep(floe_lake::limits::GARBAGE_GRACE * 2).await;
    let snapshot = broker.log.meta().snapshot();
    assert_eq!(snapshot.range::<Garbage>(..).count(), 0, "the grace of garbage does not wait for the clock");
    broker.check_no_orphans(&ground.store).await;
}
