//! What statements take is measured: the peak of this process's resident memory while they run. This is a binary of its
//! own, because a process has one such peak.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "sql/world.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod world;

use floe_query::{Format, Kind};
use floe_sql::Config;
use futures::StreamExt;

use crate::world::World;

/// A field of this process's status, in bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Makes the peak begin anew.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

const MEMORY: usize = 256 << 20;

/// Beside what is counted: a fifth, and the process's own work.
const BESIDE: usize = MEMORY / 5 + (32 << 20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_takes_no_more_than_its_limit_and_a_fifth() {
    let world = World::with(Config { threads: 2, memory_bytes: MEMORY, ..Config::default() }).await;
    let topic = world.table("t", 1).await;
    world.append(&topic, 0, &[r#"{"x":1,"s":"a"}"#]).await;
    assert_eq!(world.number("select count(*) from t").await, 1);
    let long = "(select repeat('x', 60000000) s) q";
    let listed = |count: usize, part: fn(usize) -> String| (0..count).map(part).collect::<Vec<_>>().join(",");
    let texts = "(select repeat('x', 20000 + cast(value as bigint)) s from generate_series(1, 8192)) q";
    let statements = [
        (format!("select length({}s) from {long}", "s||".repeat(80)), true),
        ("select length(array_to_string(range(0,1000000), repeat('x',100000)))".to_owned(), true),
        (format!("select {} from {long}", listed(200, |n| format!("s s{n}"))), true),
        (format!("select named_struct({}) v from {long}", listed(100, |n| format!("'f{n}',s"))), true),
        (format!("select make_array({}) v from {long}", listed(100, |_| "s".to_owned())), true),
        (format!("select {} from {long}", listed(40, |n| format!("upper(s) u{n}"))), true),
        (
            format!("select {} from {texts}", listed(5, |n| format!("sum(length(upper(s)||'{n}')) u{n}"))),
            false,
        ),
        (format!("select max(length(encode(arrow_cast(s, 'Binary'), 'hex'))) from {texts}"), false),
        (format!("select max(array_length(string_to_array(s, 'x'))) from {texts}"), false),
        (format!("select max(length(regexp_replace(s, 'x', 'yz', 'g'))) from {texts}"), false),
        (
            format!(
                "select max(length(s)) from (select s, {} from {texts})",
                listed(5, |n| format!("s||'{n}' u{n}"))
            ),
            false,
        ),
        (
            format!(
                "select {} from generate_series(1, 1000000)",
                listed(400, |n| format!("'{}' c{n}", "x".repeat(500)))
            ),
            false,
        ),
    ];
    for (statement, is_refused) in statements {
        for format in [Format::Json, Format::Csv, Format::ArrowStream] {
            let (before, code) = (status("VmRSS:"), status("RssFile:"));
            forget_peak();
            let outcome = run(&world, &statement, format).await;
            // Pages of the program that this statement is the first to use are not its memory.
            let code = status("RssFile:").saturating_sub(code);
            let taken = status("VmHWM:").saturating_sub(before + code);
            assert!(taken <= MEMORY + BESIDE, "{} MiB: {statement:.200}: {outcome:?}", taken >> 20);
            println!("{} MiB {outcome:?} {statement:.80}", taken >> 20);
            match outcome {
                Ok(_) => assert!(!is_refused || matches!(format, Format::ArrowStream), "{statement:.200}"),
                Err(kind) => assert_eq!(kind, Kind::Limit, "{statement:.200}"),
            }
        }
        assert_eq!(world.number("select 1").await, 1);
    }
}

/// The bytes of a result, of which at most 64 MiB are read.
async fn run(world: &World, statement: &str, format: Format) -> Result<usize, Kind> {
    let mut pieces = world.sql.query_as(statement, format).await.map_err(|error| error.kind)?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        bytes += piece.map_err(|error| error.kind)?.len();
        if bytes > 64 << 20 {
            break;
        }
    }
    Ok(bytes)
}
