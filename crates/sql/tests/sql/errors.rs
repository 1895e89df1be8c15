//! Errors name their place in the statement. The engine refuses statements that are not read-only.

use floe_query::Kind;

use crate::world::World;

/// Checks that the statement fails with this message at the place of its one `»`.
async fn check(world: &World, marked: &str, message: &str) {
    let text = marked.replacen('»', "", 1);
    let before = &marked[..marked.find('»').expect("a mark")];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() as u64 + 1;
    let error = world.error(&text).await;
    let place = error.place.unwrap_or_else(|| panic!("{text}: no place in {error}"));
    assert_eq!((place.line, place.column), (line, column), "{text}: {error}");
    assert!(error.message.to_lowercase().contains(&message.to_lowercase()), "{text}: {error}");
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(error.to_string().lines().last().unwrap().trim_end().ends_with('^'), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_their_place() {
    let world = World::new().await;
    let topic = world.table("t", 1).await;
    world.append(&topic, 0, &[r#"{"a":1,"b":"x"}"#]).await;
    check(&world, "select * »form t", "expected").await;
    check(&world, "select a b\n  »c from t", "expected").await;
    check(&world, "select a\nfrom t where»  ", "expected").await;
    check(&world, "select »'a from t", "unterminated").await;
    check(&world, "select a, »nope from t", "nope").await;
    check(&world, "select a\nfrom »nowhere", "not found").await;
    check(&world, "select t.a, »t.nope from t", "nope").await;
    check(&world, "select »nofunction(a) from t", "nofunction").await;
    check(&world, "select a from t group by »c", "c").await;
    check(&world, "select x.a from t as y join t as x on x.a = »y.zz", "zz").await;
    check(&world, "select cast('»abc' as bigint)", "abc").await;
    check(&world, "select 1; »select 2", "second statement").await;
    check(&world, "select now() at time zone '»Mars/Base'", "no time zone").await;
    check(&world, "select *\nfrom t »for system_time as of now()", "Iceberg reader").await;
    check(&world, "»show databases", "SHOW TABLES").await;
    check(&world, "»select a from t union all select a, b from t", "columns").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_only_read_is_refused() {
    let world = World::new().await;
    world.table("t", 1).await;
    for text in [
        "insert into t values (1)",
        "delete from t",
        "update t set a = 1",
        "truncate table t",
        "create table u as select 1",
        "create view u as select 1",
        "create external table u stored as csv location '/etc/passwd'",
        "create database d",
        "create function f() returns int return 1",
        "drop table t",
        "alter table t add column x int",
        "copy t to 'floe-never.csv'",
        "copy (select 1) to 'floe-never.parquet' stored as parquet",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
        "prepare p as select 1",
        "execute p",
        "deallocate p",
        "begin",
        "commit",
        "use floe",
        "explain insert into t values (1)",
        "explain analyze copy t to 'floe-never.csv'",
        "explain analyze create table u as select 1",
        "analyze table t",
        "grant select on t to u",
    ] {
        let error = world.error(text).await;
        assert_eq!(error.kind, Kind::Invalid, "{text}: {error}");
        assert!(error.place.is_some(), "{text}: {error}");
    }
    for text in [
        "select * from '/etc/passwd'",
        "select * from \"/etc/passwd\"",
        "select * from \"file:///etc/passwd.csv\"",
        "select * from 's3://bucket/x.parquet'",
        "select * from read_csv('/etc/passwd')",
        "select * from read_parquet('/etc/passwd')",
        "select * into u from t",
        "",
        " ; ",
    ] {
        let error = world.error(text).await;
        assert_eq!(error.kind, Kind::Invalid, "{text}: {error}");
    }
    assert!(!std::path::Path::new("floe-never.csv").exists());
    assert_eq!(world.number("select count(*) from t;").await, 0);
}
