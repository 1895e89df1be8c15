//! EXPLAIN shows both parts of a table, the skipped row groups, and a query that reads nothing at all.

use arrow::array::AsArray;

use crate::world::World;

async fn plan(world: &World, text: &str) -> String {
    let rows = world.rows(text).await.unwrap();
    rows.iter()
        .flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_shows_the_lake_and_the_tail() {
    let world = World::new().await;
    let topic = world.table("t", 1).await;
    let values: Vec<String> = (0..1000).map(|n| format!(r#"{{"n":{n},"text":"t{n}"}}"#)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    world.append(&topic, 0, &values).await;
    let tail_only = plan(&world, "explain format indent select n from t where n > 5000").await;
    assert!(tail_only.contains("log_tail=t, records=1000, offsets=[0:0..1000]"), "{tail_only}");
    assert!(!tail_only.contains("parquet"), "{tail_only}");

    world.settle().await;
    world.append(&topic, 0, &[r#"{"n":1000}"#]).await;
    let both = plan(&world, "explain format indent select n from t where n > 5000").await;
    for part in ["UnionExec", "file_type=parquet", "log_tail=t, records=1, offsets=[0:1000..1001]"] {
        assert!(both.contains(part), "{part} in {both}");
    }
    // The filter reaches the files, and the scan reads only the selected column.
    assert!(both.contains("pruning_predicate=n_null_count@1 != row_count@2 AND n_max@0 > 5000"), "{both}");
    assert!(both.contains("projection=[n]"), "{both}");

    // No row group can hold such a number, so the scan reads none.
    let run = plan(&world, "explain analyze select n from t where n > 5000").await;
    assert!(run.contains("row_groups_pruned_statistics=1 total → 0 matched"), "{run}");

    // The statistics give the count without a read.
    let count = plan(&world, "explain format indent select count(*) from t").await;
    assert!(count.contains("PlaceholderRowExec") && !count.contains("parquet"), "{count}");
    assert_eq!(world.number("select count(*) from t").await, 1001);
    assert_eq!(world.number("select count(*) from (select 1 from t limit 7)").await, 7);
}

/// A view of text becomes a plain one at the end. That once stood above the sort in a plan, in two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_with_views_is_in_its_order() {
    let world = World::new().await;
    let series = "(select value k, cast(value as varchar) s from generate_series(1, 100000))";
    for made in
        ["arrow_cast(s, 'Utf8View')", "md5(s)", "max(arrow_cast(s, 'Utf8View')) over (partition by k)"]
    {
        let rows = world.rows(&format!("select k, {made} m from {series} order by k")).await.unwrap();
        let keys: Vec<i64> = rows
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec())
            .collect();
        assert!(keys.len() == 100_000 && keys.is_sorted(), "{made}");
        assert!(rows.iter().all(|batch| !batch.schema().field(1).data_type().to_string().contains("View")));
    }
}
