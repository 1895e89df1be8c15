//! Measures the journal in PostgreSQL: `postgres <address> [seconds] [handles] [keys per commit]`.
//!
//! Each handle is a broker of its own: it commits, waits for the answer, and commits again; what another one committed
//! first it takes over. The output is commits per second, lost races, and the latency of a commit. The tables are made
//! in a schema of their own, which is to be dropped afterwards.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::time::Duration;

use floe_env::Env;
use floe_meta::{
    Change, Commit, Envelope, Journal, JournalError, Lsn, Outcome, PostgresJournal, PostgresOptions,
};

/// About as long as an extent with its key.
const VALUE_BYTES: usize = 60;

struct Measured {
    latencies: Vec<Duration>,
    lost: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().ok_or("which address?")?;
    let number = |at: usize, usual: u64| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let (seconds, handles, keys) = (number(1, 5)?, number(2, 1)?, number(3, 3)?);
    let env = Env::real();
    let schema = format!("measured_{:016x}", env.random_u64());
    let mut journals = Vec::new();
    for _ in 0..handles {
        let options = PostgresOptions { schema: schema.clone(), ..PostgresOptions::at(address) };
        journals.push(PostgresJournal::open(&env, options).await?);
    }
    let began = env.monotonic();
    let running: Vec<_> = journals
        .into_iter()
        .map(|journal| env.spawn("handle", run(env.clone(), journal, Duration::from_secs(seconds), keys)))
        .collect();
    let (mut latencies, mut lost) = (Vec::new(), 0);
    for handle in running {
        let measured = handle.await??;
        latencies.extend(measured.latencies);
        lost += measured.lost;
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!(
        "{handles} handles, {keys} keys: {:.0} commits/s, {:.2} lost races per commit",
        latencies.len() as f64 / elapsed,
        lost as f64 / latencies.len() as f64
    );
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = ((latencies.len() - 1) as f64 * part) as usize;
        println!("{name:>6} {:?}", latencies[at]);
    }
    Ok(())
}

/// Commits until the time is up. A commit's latency includes the races that it lost.
async fn run(
    env: Env,
    journal: PostgresJournal,
    time: Duration,
    keys: u64,
) -> Result<Measured, JournalError> {
    let began = env.monotonic();
    let (mut measured, mut last) = (Measured { latencies: Vec::new(), lost: 0 }, Lsn(0));
    while began.elapsed() < time {
        let asked = env.monotonic();
        loop {
            let group = [commit(last, keys)];
            match journal.commit(last, env.random_u128(), &group).await? {
                Outcome::Committed(lsn) => {
                    last = lsn;
                    break;
                }
                Outcome::Conflict(missed) => {
                    last = missed.last().map_or(last, |entry| entry.lsn);
                    measured.lost += 1;
                }
            }
        }
        measured.latencies.push(asked.elapsed());
    }
    Ok(measured)
}

fn commit(last: Lsn, keys: u64) -> Commit {
    let change = |key: u64| Change {
        key: format!("{:012}", (last.0 * keys + key) % 100_000).into(),
        value: Some(vec![7; VALUE_BYTES].into()),
    };
    let changes = (0..keys).map(change).collect();
    Commit { envelope: Envelope::client("User:bench".into(), "bench".into()), changes }
}
