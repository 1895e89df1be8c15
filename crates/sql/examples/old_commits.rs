//! How long statements over `system.commits` take, and what they pass over.
//!
//! `cargo run --release -p floe-sql --example old_commits -- [COMMITS]`
//!
//! The history has a million commits by default, of a hundred clients and 16 partitions, in objects of a day's merging.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "its output is what it is for, and it fails as tests do"
)]

use std::sync::Arc;

use floe_env::{Env, Timestamp};
use floe_history::map::{Part, object_key};
use floe_history::{ChangeKind, Encoder, Names, Row};
use floe_lake::Lake;
use floe_log::Log;
use floe_meta::{DecodeError, Envelope, Lsn, MemoryJournal, Meta, Options, Tx};
use floe_query::Format;
use floe_sql::{Config, Sql};
use floe_store::{MemoryStore, Store};
use futures::TryStreamExt;

/// Commits of one object.
const PART: u64 = 250_000;
/// 2026-01-01.
const BEGIN_MS: i64 = 1_767_225_600_000;

fn row(lsn: u64) -> Row {
    let client = lsn * 7_919 % 100;
    let text = |text: String| -> Arc<str> { text.into() };
    Row {
        lsn: Lsn(lsn),
        time: Timestamp(BEGIN_MS + lsn.cast_signed() * 20),
        principal: "anonymous".into(),
        client_id: text(format!("sensor-{client:04}")),
        run_id: None,
        cause: None,
        undo_of: None,
        comment: None,
        change: ChangeKind::Append,
        topic: Some(text(format!("topic-{}", client % 10))),
        topic_id: Some(client % 10),
        partition: Some((client % 16) as u32),
        first_offset: Some(lsn.cast_signed() / 16),
        offsets: Some(1),
        bytes: Some(100 + lsn % 50),
        group: None,
        detail: None,
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let commits: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let env = Env::real();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let meta = Meta::open(env.clone(), Arc::new(MemoryJournal::new()), Options::default()).await.unwrap();
    let log = Log::open(env.clone(), meta, store.clone(), floe_log::Config::default()).await.unwrap();
    let (mut parts, mut first) = (Vec::new(), 1);
    while first <= commits {
        let last = commits.min(first + PART - 1);
        let mut encoder = Encoder::new().unwrap();
        (first..=last).for_each(|lsn| encoder.push(row(lsn)).unwrap());
        let rows = encoder.rows();
        let object = encoder.finish(Some(&Names::default())).unwrap();
        let (bytes, crc, number) = (object.len() as u64, crc32c::crc32c(&object), first);
        store.put(&object_key(Lsn(first), number), vec![object]).await.unwrap();
        let (from, to, since) = (row(first).time, row(last).time, Lsn(1));
        parts.push((first, Part { last: Lsn(last), number, bytes, crc, rows, from, to, since }));
        first = last + 1;
    }
    let put = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
        parts.iter().for_each(|(first, part)| tx.put(first, part));
        Ok(())
    };
    log.meta().commit(Envelope::broker("example"), put).await.unwrap();
    let lake =
        Lake::start(env.clone(), log.clone(), floe_lake::Config { views: false, ..Default::default() });
    let sql = Sql::new(env.clone(), log, lake, Config { threads: 2, ..Config::default() }).unwrap();
    let middle = commits / 2;
    for text in [
        "select count(*) from system.commits".to_owned(),
        "select change, count(*) from system.commits group by 1".to_owned(),
        "select client_id, sum(offsets), sum(bytes) from system.commits group by 1".to_owned(),
        "select topic, partition, max(first_offset) from system.commits group by 1, 2".to_owned(),
        "select * from system.commits order by lsn desc limit 10".to_owned(),
        format!("select * from system.commits where lsn = {middle}"),
        format!(
            "select client_id, count(*) from system.commits where lsn between {middle} and {middle} + 1000 group by 1"
        ),
    ] {
        let plan = ask(&sql, &format!("explain {text}")).await;
        let at = plan.find("commits=").unwrap_or(0);
        let told = plan[at..].lines().next().unwrap_or_default().trim_end_matches(['"', '|', ' ', '\\', 'n']);
        let mut times: Vec<u128> = Vec::new();
        for _ in 0..5 {
            let begun = env.monotonic();
            ask(&sql, &text).await;
            times.push((env.monotonic() - begun).as_millis());
        }
        times.sort_unstable();
        println!("{:>6} ms (least {}, most {})  {text}\n          {told}", times[2], times[0], times[4]);
    }
}

async fn ask(sql: &Sql, text: &str) -> String {
    let body = sql.query_as(text, Format::Csv).await.unwrap();
    let pieces: Vec<_> = body.try_collect().await.unwrap();
    pieces.iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}
