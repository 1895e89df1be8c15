//! Measures the SQLite journal: `commits <directory> [seconds] [callers] [keys per commit] [keys preloaded]`.
//!
//! Each caller commits, waits for the answer, and commits again. The output is commits and groups per second, and
//! the latency of a commit at several percentiles.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floe_env::Env;
use floe_meta::{DecodeError, Envelope, Meta, Options, SqliteJournal, Tx, postcard_record};
use serde::{Deserialize, Serialize};

/// About as long as an extent.
#[derive(Serialize, Deserialize)]
struct Value(u64, u64, u64, [u8; 24]);
postcard_record!(Value, 200, 1, u64);

struct Run {
    seconds: u64,
    callers: u64,
    keys: u64,
    preloaded: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = arguments.first().ok_or("which directory?")?;
    let number = |at: usize, usual: u64| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let run =
        Run { seconds: number(1, 5)?, callers: number(2, 1)?, keys: number(3, 3)?, preloaded: number(4, 0)? };
    let env = Env::real();
    let journal = Arc::new(SqliteJournal::open(&env, Path::new(directory))?);
    let began = env.monotonic();
    let meta = Meta::open(env.clone(), journal, Options::default()).await?;
    println!("loaded {} keys in {:?}", meta.snapshot().len(), began.elapsed());
    preload(&meta, run.preloaded).await?;

    let groups = Arc::new(AtomicU64::new(0));
    let counted = groups.clone();
    let seen = AtomicU64::new(0);
    meta.observe(move |applied| {
        if seen.swap(applied.snapshot.lsn().0, Ordering::Relaxed) != applied.snapshot.lsn().0 {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let began = env.monotonic();
    let mut callers = Vec::new();
    for caller in 0..run.callers {
        callers
            .push(env.spawn("caller", call(env.clone(), meta.clone(), caller << 40, run.keys, run.seconds)));
    }
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!(
        "{:.0} commits/s in {:.0} groups/s",
        latencies.len() as f64 / elapsed,
        groups.load(Ordering::Relaxed) as f64 / elapsed
    );
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = ((latencies.len() - 1) as f64 * part) as usize;
        println!("{name:>6} {:?}", latencies[at]);
    }
    Ok(())
}

/// Commits keys in large commits until the map has this many.
async fn preload(meta: &Meta, keys: u64) -> Result<(), Box<dyn Error>> {
    let have = meta.snapshot().len() as u64;
    for start in (have..keys).step_by(10_000) {
        let done = meta.commit(Envelope::broker("preload"), move |tx| put(tx, (1 << 60) + start, 10_000));
        done.await?;
    }
    Ok(())
}

async fn call(
    env: Env,
    meta: Meta,
    first: u64,
    keys: u64,
    seconds: u64,
) -> Result<Vec<Duration>, floe_meta::CommitError<DecodeError>> {
    let began = env.monotonic();
    let mut latencies = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        let start = first + latencies.len() as u64 * keys;
        let asked = env.monotonic();
        meta.commit(Envelope::client("User:bench".into(), "bench".into()), move |tx| put(tx, start, keys))
            .await?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

fn put(tx: &mut Tx<'_>, start: u64, keys: u64) -> Result<(), DecodeError> {
    for key in start..start + keys {
        tx.put(&key, &Value(tx.lsn().0 << 30, key << 10, key, [7; 24]));
    }
    Ok(())
}
