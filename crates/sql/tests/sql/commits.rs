//! `system.commits`: every commit up to the cut has its rows, from objects and from the journal, in this process and in
//! a worker.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use floe_history::History;
use floe_query::Kind;
use floe_sql::Config;

use crate::world::World;

fn small() -> floe_history::Config {
    floe_history::Config { commits_due: 20, part_commits_max: 30, ..floe_history::Config::default() }
}

/// The numbers of the commits in a column.
async fn lsns(world: &World, text: &str) -> Vec<i64> {
    let rows = world.rows(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn explained(world: &World, text: &str) -> String {
    world.text(&format!("explain {text}")).await
}

async fn filled(world: &World) {
    let topic = world.table("orders", 2).await;
    let history = History::new(world.log.clone(), small());
    for round in 0..5 {
        for number in 0..20 {
            world.append(&topic, number % 2, &[r#"{"n":1}"#, r#"{"n":2}"#]).await;
        }
        if round < 4 {
            assert!(history.round().await.unwrap().commits > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_commits_are_one_table() {
    let world = World::new().await;
    filled(&world).await;
    let world = world.with_workers(Config { threads: 1, ..Config::default() });
    let last = world.log.meta().snapshot().lsn().0.cast_signed();
    let found: BTreeSet<i64> = lsns(&world, "select lsn from system.commits").await.into_iter().collect();
    assert!(found.into_iter().eq(1..=last), "every commit, up to {last}");
    let appended = "select cast(sum(offsets) as bigint) from system.commits where change = 'append' and topic = 'orders'";
    assert_eq!(world.number(appended).await, 200);
    assert_eq!(world.number("select count(*) from floe.system.commits where lsn = 25").await, 1);
    assert_eq!(
        lsns(&world, "select lsn from system.commits where lsn > 3 order by lsn limit 2").await,
        [4, 5]
    );
    let twice = "select count(*) from (select lsn, partition, first_offset from system.commits where change = 'append' \
                 group by 1, 2, 3 having count(*) > 1)";
    assert_eq!(world.number(twice).await, 0);
    // Objects are passed over by number and by time.
    let parts = "objects";
    for (filter, expected) in [
        ("lsn < 5", "commits=1 of 4 objects\n"),
        ("lsn >= 1000000", "commits=0 of 4 objects and the journal"),
        ("time < timestamp '2001-01-01 00:00:00'", "commits=0 of 4 objects"),
        ("partition = 1", "commits=4 of 4 objects and the journal"),
    ] {
        let plan = explained(&world, &format!("select lsn from system.commits where {filter}")).await;
        let at = plan.find("commits=").map_or("", |at| &plan[at..]);
        let expected = expected.trim_end();
        assert!(at.starts_with(expected) && plan.contains(parts), "{filter}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_it_passes_over() {
    let world = World::new().await;
    filled(&world).await;
    for (statement, expected) in [
        ("select change from system.commits where lsn between 3 and 7", "lsn >= 3, lsn <= 7"),
        ("select change from system.commits where lsn in (3, 7)", "lsn >= 3, lsn <= 7"),
        ("select change, count(*) from system.commits group by 1", "columns=[change]"),
        ("select count(*) from system.commits", "columns=[]"),
    ] {
        let plan = explained(&world, statement).await;
        assert!(plan.contains(expected), "{statement}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_listed_and_described() {
    let world = World::new().await;
    world.table("orders", 1).await;
    world
        .check(
            "select table_schema, table_name, table_type from information_schema.tables \
             where table_schema <> 'information_schema' order by 1",
            "
         table_schema | table_name | table_type
        --------------+------------+------------
         default      | orders     | BASE TABLE
         system       | commits    | BASE TABLE",
        )
        .await;
    assert!(world.text("show tables").await.contains("commits"));
    let described = world.text("describe system.commits").await;
    assert!(described.contains("first_offset") && described.contains("Int64"), "{described}");
    assert!(world.text("show columns from system.commits").await.contains("undo_of"));
    let columns =
        "select count(*) from information_schema.columns where table_schema = 'system' and table_name = ";
    assert_eq!(world.number(&format!("{columns}'commits'")).await, 17);
    // A topic may have the same name.
    world.table("commits", 1).await;
    assert_eq!(world.number(&format!("{columns}'commits'")).await, 17);
    assert_eq!(world.number("select count(*) from commits").await, 0);
    assert!(world.number("select count(*) from system.commits").await > 2);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_named() {
    let world = World::simulated(3).await;
    filled(&world).await;
    let first = floe_history::read::parts(&world.log.meta().snapshot()).unwrap()[0];
    world.log.store().delete(&first.key()).await.unwrap();
    let error = world.error("select count(*) from system.commits").await;
    assert!(error.kind == Kind::Unavailable && error.message.contains(&first.key()), "{error}");
    let later = format!("select lsn from system.commits where lsn > {} limit 1", first.part.last);
    assert_eq!(lsns(&world, &later).await.len(), 1);
    let unknown = world.error("select * from system.nothing").await;
    assert!(unknown.message.contains("nothing"), "{unknown}");
    tokio::time::sleep(Duration::from_secs(1)).await;
}
