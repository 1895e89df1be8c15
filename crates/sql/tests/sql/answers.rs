//! Answers of statements (joins, nested values, names, raw tables), before and after the lake has the records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use floe_env::Env;
use floe_lake::Lake;
use floe_query::Kind;
use floe_sql::{Config, Sql};
use floe_store::MemoryStore;
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::world::World;

/// Two tables with a little of everything.
async fn sample() -> World {
    let world = World::new().await;
    let orders = world.table("orders", 2).await;
    let people = world.table("people", 1).await;
    world
        .append(
            &orders,
            0,
            &[
                r#"{"id":1,"who":"ann","lines":[{"item":"tea","count":2},{"item":"jam","count":1}],"paid":true}"#,
                r#"{"id":2,"who":"bob","lines":[],"to":{"city":"Oslo","zip":{"code":150}}}"#,
            ],
        )
        .await;
    world.append(&orders, 1, &[r#"{"id":3,"who":"ann","at":"2026-01-02T03:04:05Z","Mixed Case":1.5}"#]).await;
    world.append(&people, 0, &[r#"{"name":"ann","age":30}"#, r#"{"name":"cid","age":40}"#]).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_do_not_depend_on_where_the_records_are() {
    let world = sample().await;
    for settled in [false, true] {
        world
            .check(
                "select id, who, \"to\".city, \"to\".zip.code, lines[1]['item'] as first, paid, at, \"Mixed Case\" \
                 from orders order by id",
                "
         id | who | orders.to[city] | orders.to[zip][code] | first | paid |          at          | Mixed Case
        ----+-----+-----------------+----------------------+-------+------+----------------------+------------
          1 | ann | NULL            |                 NULL | tea   | true | NULL                 |       NULL
          2 | bob | Oslo            |                  150 | NULL  | NULL | NULL                 |       NULL
          3 | ann | NULL            |                 NULL | NULL  | NULL | 2026-01-02T03:04:05Z |        1.5",
            )
            .await;
        world
            .check(
                "select p.name, count(o.id) as orders from people p left join orders o on o.who = p.name \
                 group by p.name order by 1",
                "
         name | orders
        ------+--------
         ann  |      2
         cid  |      0",
            )
            .await;
        world
            .check(
                "with l as (select id, unnest(lines) as line from orders) \
                 select id, line['item'] as item, line['count'] as n \
                 from l order by 2",
                "
         id | item | n
        ----+------+---
          1 | jam  | 1
          1 | tea  | 2",
            )
            .await;
        world
            .check(
                "select _partition_id, _offset, _timestamp, _key, id \
                 from floe.\"default\".orders where _partition_id = 1",
                "
         _partition_id | _offset |      _timestamp      | _key | id
        ---------------+---------+----------------------+------+----
                     1 |       0 | 2023-11-14T22:13:20Z | k0   |  3",
            )
            .await;
        assert_eq!(world.number("select count(*) from orders where id >= 2 and who = 'ann'").await, 1);
        assert_eq!(world.number("select count(*) from orders o, people p where o.who <> p.name").await, 4);
        assert_eq!(world.number("select max(_offset) from default.orders").await, 1);
        if !settled {
            world.settle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_listed_and_found() {
    let world = sample().await;
    world.topic("not-a-table", 1, &[]).await;
    world.table("My-Table.v1", 1).await;
    world
        .check(
            "select table_schema, table_name, table_type from information_schema.tables \
             where table_schema = 'default' order by 2",
            "
         table_schema | table_name  | table_type
        --------------+-------------+------------
         default      | My-Table.v1 | BASE TABLE
         default      | orders      | BASE TABLE
         default      | people      | BASE TABLE",
        )
        .await;
    assert!(world.text("show tables").await.contains("people"));
    let described = world.text("describe people").await;
    assert!(described.contains("age") && described.contains("Int32"), "{described}");
    assert!(world.text("show columns from orders").await.contains("Mixed Case"));
    assert_eq!(world.number("select count(*) from \"My-Table.v1\"").await, 0);
    assert!(world.error("select * from \"not-a-table\"").await.message.contains("not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_quoted_unless_they_are_plain() {
    let world = World::new().await;
    let table = world.table("my-topic.v1", 1).await;
    let record = r#"{"plain":1,"userId":2,"a b":3,"a.b":4,"order":5,"say \"x\"":6,"":7,"to":{"City":8}}"#;
    world.append(&table, 0, &[record]).await;
    for settled in [false, true] {
        for (name, value) in [
            ("Plain", 1),
            (r#""userId""#, 2),
            (r#""a b""#, 3),
            ("a_b", 4),
            (r#""order""#, 5),
            (r#""say ""x""""#, 6),
            ("empty", 7),
            (r#""to"."City""#, 8),
            (r#""to"['City']"#, 8),
        ] {
            for table in [r#""my-topic.v1""#, r#"floe.default."my-topic.v1""#] {
                let statement = format!("select cast({name} as bigint) from {table}");
                assert_eq!(world.number(&statement).await, value, "{statement}, settled: {settled}");
            }
        }
        for statement in ["select 1 from my-topic.v1", r#"select userId from "my-topic.v1""#] {
            assert_eq!(world.error(statement).await.kind, Kind::Invalid, "{statement}");
        }
        if !settled {
            world.settle().await;
        }
    }
}

/// `information_schema` says what the metadata map knows. It does not open thousands of tables one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describing_all_tables_reads_none_of_them() {
    let gets = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gets);
    let store = FaultyStore::new(MemoryStore::new(), move |operation, _| {
        counted.fetch_add(usize::from(operation == Operation::Get), Ordering::SeqCst);
        Fault::None
    });
    let config = Config { threads: 2, ..Config::default() };
    let world = World::open(Env::real(), Arc::new(store), config.clone()).await;
    let mut tables = Vec::new();
    for n in 0..40 {
        tables.push(world.table(&format!("t{n}"), 1).await);
        world.append(&tables[n], 0, &[r#"{"early":1}"#]).await;
    }
    world.settle().await;
    for table in &tables {
        world.append(table, 0, &[r#"{"late":1}"#]).await;
    }
    // Nothing that other statements have read is in the caches of this one.
    let lake = Lake::start(
        world.env.clone(),
        world.log.clone(),
        floe_lake::Config { views: false, ..Default::default() },
    );
    let sql = Sql::new(world.env.clone(), world.log.clone(), lake.clone(), config).unwrap();
    let world = World { sql, lake, ..world };
    let before = gets.load(Ordering::SeqCst);
    let early = "select count(*) from information_schema.columns where column_name = 'early'";
    assert_eq!(world.number(early).await, 40);
    assert_eq!(
        world.number("select count(*) from information_schema.views where table_schema = 'default'").await,
        40
    );
    assert!(world.text("show tables").await.contains("t39"));
    assert_eq!(gets.load(Ordering::SeqCst), before, "the metadata map knows it all");
    // Of one table also the columns of records that no commit has taken.
    let late = "select count(*) from information_schema.columns where column_name = 'late'";
    assert_eq!(world.number(&format!("{late} and table_name = 't7'")).await, 1);
    assert!(world.text("show columns from t8").await.contains("late"));
    assert_eq!(world.number(&format!("{late} and table_name = 'none'")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_and_raw_tables() {
    let world = World::new().await;
    let json = world.table("j", 1).await;
    let raw = world.topic("r", 1, &[("floe.table", "raw"), ("floe.table.freshness.ms", "100")]).await;
    world.append(&json, 0, &[r#"{"a":1}"#, "no json", r#"{"a":2}"#]).await;
    world.append(&raw, 0, &[r#"{"a":1}"#, "no json"]).await;
    for settled in [false, true] {
        assert_eq!(world.number("select count(*) from j").await, 2, "settled: {settled}");
        world
            .check(
                "select _offset, a from j order by 1",
                "
         _offset | a
        ---------+---
               0 | 1
               2 | 2",
            )
            .await;
        world
            .check(
                "select _offset, arrow_cast(key, 'Utf8') as key, arrow_cast(value, 'Utf8') as value, \
                 array_length(headers) as headers from r order by 1",
                "
         _offset | key |  value  | headers
        ---------+-----+---------+---------
               0 | k0  | {\"a\":1} |       0
               1 | k1  | no json |       0",
            )
            .await;
        if !settled {
            world.settle().await;
        }
    }
}
