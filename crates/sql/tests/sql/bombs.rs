//! Hostile statements. Each one gets an error or an answer, the process survives, and the next statement works.

use std::time::Duration;

use floe_query::Kind;
use floe_sql::Config;
use floe_sql::limits::{NESTING_MAX, TEXT_BYTES_MAX, WEIGHT_MAX};

use crate::world::World;

fn repeated(head: &str, part: &str, count: usize, tail: &str) -> String {
    format!("{head}{}{tail}", part.repeat(count))
}

async fn world() -> World {
    let config = Config { threads: 2, query_time_max: Duration::from_secs(120), ..Config::default() };
    let world = World::with(config).await;
    let topic = world.table("t", 1).await;
    world.append(&topic, 0, &[r#"{"x":1,"s":"a","l":[1],"o":{"p":1}}"#]).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_and_huge_statements_are_errors() {
    let world = world().await;
    let doubling: Vec<String> =
        (1..30).map(|i| format!("c{i} as (select a.* from c{} a, c{} b)", i - 1, i - 1)).collect();
    let chain: Vec<String> = (1..60).map(|i| format!("c{i} as (select * from c{})", i - 1)).collect();
    let bombs = [
        repeated("select 1", "+1", 5_000, ""),
        repeated("select 1", "+1", 100_000, ""),
        repeated("select 'a'", "||'a'", 5_000, ""),
        repeated("select * from t where x = 0", " or x = 1", 5_000, ""),
        repeated("select * from t where x = 0", " and x = 1", 5_000, ""),
        repeated("select ", "(", 1_000, "1"),
        format!("select {}1{}", "(".repeat(3_000), ")".repeat(3_000)),
        format!("select {}1{}", "abs(".repeat(3_000), ")".repeat(3_000)),
        format!("select * from {}t{}", "(select * from ".repeat(1_000), ")".repeat(1_000)),
        format!("select * from {}t{}", "(select * from ".repeat(60), ")".repeat(60)),
        format!("select {}1{} from t", "case when x = 1 then (".repeat(60), ") end".repeat(60)),
        format!(
            "select x from t where x in ({}1{})",
            "select x from t where x in (".repeat(30),
            ")".repeat(30)
        ),
        format!("with c0 as (select * from t), {} select count(*) from c59", chain.join(", ")),
        (0..200).fold("select count(*) from t".to_owned(), |text, i| {
            text + &format!(" join t a{i} on a{i}.x = t.x")
        }),
        repeated("select ", "not ", 20_000, "true"),
        repeated("select ", "- ", 20_000, "1"),
        repeated("select 1", "::int", 5_000, ""),
        repeated("select l", "[1]", 5_000, " from t"),
        repeated("select o", ".p", 5_000, " from t"),
        repeated("select 1", " union all select 1", 5_000, ""),
        repeated("select * from t", ", t", 5_000, ""),
        repeated("select * from t", " cross join t", 5_000, ""),
        repeated("select ", "case when true then ", 5_000, "1"),
        repeated("select ", "interval ", 5_000, "'1'"),
        repeated("select cast(1 as ", "array<", 5_000, ""),
        format!("with c0 as (select * from t), {} select count(*) from c29", doubling.join(", ")),
        format!("select '{}'", "x".repeat(TEXT_BYTES_MAX)),
        repeated("select 1 where 1 in (1", ", 1", 60_000, ")"),
        "select count(*) from t group by cube (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16)".to_owned(),
        repeated("/*", "/*", 50_000, ""),
        repeated("select \"", "x", 100, ""),
        format!(
            "select {}",
            (0..100).map(|i| format!("repeat('x', {})", 67_000_000 + i)).collect::<Vec<_>>().join(",")
        ),
    ];
    for bomb in bombs {
        let error = world.error(&bomb).await;
        assert!(matches!(error.kind, Kind::Limit | Kind::Invalid), "{bomb:.80}: {error}");
        assert!(error.to_string().len() < 2_000, "{bomb:.80}: {}", error.to_string().len());
    }
    assert_eq!(world.number("select count(*) from t").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_statements_that_are_let_through_fit_the_stack() {
    let world = world().await;
    let most = usize::try_from(WEIGHT_MAX).unwrap() - 10;
    let deep = NESTING_MAX - 1;
    let allowed = [
        repeated("select 1", "+1", most, ""),
        repeated("select x", "+x", most, " from t"),
        repeated("select x from t where x = 0", " or x = 1", most / 2 - 1, ""),
        repeated("select x from t where x = 0", " or x = x + 1", most / 3 - 1, ""),
        format!("select {}1{}", "(".repeat(deep), ")".repeat(deep)),
        format!("select {}x{} from t", "abs(".repeat(deep), ")".repeat(deep)),
        repeated("select 1", "::int", most, ""),
        repeated("select null::int", "[]", most / 2, ""),
        repeated("select ", "not ", 200, "true"),
        repeated("select 1", " union all select 1", 100, ""),
        format!("select * from {}t{}", "(select * from ".repeat(22), ")".repeat(22)),
        format!("select {}1{} from t", "case when x = 1 then (".repeat(10), ") end".repeat(10)),
        format!(
            "select x from t where x in ({}1{})",
            "select x from t where x in (".repeat(5),
            ")".repeat(5)
        ),
        (0..20).fold("select count(*) from t".to_owned(), |text, i| {
            text + &format!(" join t a{i} on a{i}.x = t.x")
        }),
    ];
    for text in allowed {
        match world.rows(&text).await {
            Ok(_) => {}
            // The error of the parser's own limit on recursion is an answer, too.
            Err(error) => assert_eq!(error.kind, Kind::Limit, "{text:.80}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_are_not_nested_without_an_end() {
    let world = world().await;
    for call in ["arrow_cast", "arrow_try_cast"] {
        let named =
            |depth| format!("select {call}(null, '{}Int8{}')", "List(".repeat(depth), ")".repeat(depth));
        let error = world.rows(&named(5_000)).await.expect_err("it is too deep");
        assert!(error.kind == Kind::Invalid && error.message.contains("5000 deep"), "{error}");
        assert!(world.rows(&named(NESTING_MAX)).await.is_ok(), "{call}");
    }
    for text in [
        repeated("select null::int", "[]", 5_000, ""),
        format!("select cast(null as {}int{})", "array<".repeat(5_000), ">".repeat(5_000)),
    ] {
        let error = world.rows(&text).await.expect_err("it is too deep");
        assert!(matches!(error.kind, Kind::Limit | Kind::Invalid), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_do_not_make_much_out_of_little() {
    let world = world().await;
    for text in [
        "select repeat('x', 2000000000)",
        "select length(repeat(repeat('x', 1000000), 1000000))",
        "select lpad('x', 2000000000)",
        "select rpad('x', 2000000000, 'yz')",
        "select replace(repeat('x', 1000000), 'x', repeat('y', 1000000))",
        "select replace(repeat('x', 1000000), '', repeat('y', 1000000))",
        "select regexp_replace(repeat('x', 1000000), 'x', repeat('y', 1000000), 'g')",
        "select range(0, 100000000000)",
        "select range(-9223372036854775808, 9223372036854775807)",
        "select generate_series(0, 100000000000)",
        "select generate_series(timestamp '1900-01-01', timestamp '2100-01-01', interval '1 microsecond')",
        "select array_repeat(1, 1000000000)",
        "select array_repeat(array_repeat(1, 100000), 100000)",
        "select array_resize([1], 1000000000, 0)",
        "select array_resize([[1]], 1000000, range(0, 1000000))",
        "select array_resize([arrow_cast('', 'LargeUtf8')], 1000, arrow_cast(repeat('x', 60000000), 'LargeUtf8'))",
        "select array_resize(l, 100000 * x, range(0, 100000)) from (select [l] as l, x from t)",
        // One large value among many small ones.
        "select array_repeat(case when value = 1 then repeat('x', 9000000) else 'a' end, \
         case when value = 1 then 1000 else 0 end) from generate_series(1, 8192)",
        // The engine copies a constant for every row.
        "select repeat('x', 1000000), value from generate_series(1, 8192)",
        "select range(0, 100000), x from t",
        "select unnest(range(0, 9)), arrow_cast(repeat('x', 60000000), 'LargeUtf8')",
        "select array_repeat(repeat('x', 60000000), value % 2) from generate_series(1, 8192)",
        "select concat(repeat('x', 60000000), value) from generate_series(1, 8192)",
        "select repeat(s, x * 2000000000) from t",
        // A text between many elements, and in their place.
        "select length(array_to_string(range(0, 1000000), repeat('x', 100000)))",
        "select array_replace_all(array_repeat(1, 1000000), 1, x) from t where length(repeat(s, 70000000)) > 0",
        "select length(array_to_string(array_repeat(null, 100000), ',', repeat('x', 100000)))",
        "select array_length(regexp_match(repeat('a', 10000000), '(((((((((((a*)))))))))))'))",
        "select to_char(now(), repeat('%+', 4000000))",
        // Types whose every NULL takes this much.
        "select arrow_cast(arrow_cast(null, 'Binary'), 'FixedSizeBinary(2000000000)') from t",
        "select arrow_cast(null, 'FixedSizeList(1000000000, Int64)') from t",
        // Everything with everything.
        "select levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "select levenshtein(repeat(s, 1000000), repeat('b', 1000000)) from t",
        "select btrim(repeat('a', 50000000), repeat('b', 50000000))",
        "select array_has_any(range(0, 1000000), range(1000000, 2000000))",
        // Room that is allocated before there is a row.
        "select approx_percentile_cont(0.5, 9000000000000000000) within group (order by value) from generate_series(1, 3)",
        "select approx_percentile_cont(0.5, 20000000000000) within group (order by value) from generate_series(1, 3)",
        "select approx_percentile_cont_with_weight(1, 0.5, 20000000000000) within group (order by value) \
         from generate_series(1, 3)",
        "select approx_percentile_cont(value, 0.5, 1000000000) over () from generate_series(1, 3)",
        "select 1 where 2 > (select approx_percentile_cont(0.5, 20000000 * 1000000) within group (order by value) \
         from generate_series(1, 3))",
        "select approx_percentile_cont(0.5, cast(random() * 0 + 20000000000000 as bigint)) \
         within group (order by value) from generate_series(1, 3)",
    ] {
        let error = world.error(text).await;
        assert!(matches!(error.kind, Kind::Limit | Kind::Invalid), "{text}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_make_a_little_are_let_through() {
    let world = world().await;
    for text in [
        "select length(repeat('x', 1000000)) from t",
        "select repeat('x', 1000000) as x",
        "select repeat('x', 1000000), count(*) from t",
        "select count(*) from (select unnest(range(0, 100000)))",
        "select approx_percentile_cont(0.5, 200) within group (order by value) from generate_series(1, 3)",
        "select levenshtein(s, 'kitten'), upper(s) || lower(s), s || '-' || cast(x as varchar) from t",
        // A batch of long texts goes through in slices.
        "select count(*), max(length(encode(arrow_cast(upper(k), 'Binary'), 'hex'))) from \
         (select repeat(cast(value % 10 as varchar), 2000) as k from generate_series(1, 8192))",
    ] {
        world.rows(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    world
        .check(
            "select repeat('ab', 2) as a, lpad(s, 3, '.') as b, replace('aXa', 'X', s) as c, concat(s, 1, null) as d, \
             range(0, 3) as e, array_repeat(x, 2) as f, array_resize(l, 2) as g, concat_ws('-', s, 'b') as h from t",
            "
          a   |  b  |  c  | d  |     e     |   f    |     g     |  h
        ------+-----+-----+----+-----------+--------+-----------+-----
         abab | ..a | aaa | a1 | [0, 1, 2] | [1, 1] | [1, NULL] | a-b",
        )
        .await;
}
