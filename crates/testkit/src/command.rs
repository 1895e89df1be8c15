//! The command line of the simulation: any number of seeds, and what they found.
//!
//! ```text
//! cargo run -p floe-testkit --example simulate -- --seeds 1000 --from 0
//! cargo run -p floe-testkit --example simulate -- --seeds 1 --from 17 --history 17.jsonl --twice
//! cargo run -p floe-sql --example simulate_sql -- --seeds 100       (with statements)
//! ```

#![allow(clippy::print_stdout, reason = "a command line tool prints")]
#![allow(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is measured on the machine's clock"
)]

use std::time::Instant;

use serde_json::{Map, Value};

use crate::bug::Bug;
use crate::sim::{Opener, Options, Report, Tally, add, run};

const USAGE: &str = "usage: simulate [--seeds N] [--from N] [--bug NAME] [--history FILE] [--trace FILE] [--twice] \
                     [--sums] [--stop] [--progress SEEDS]";
/// Prints a progress line after this many seeds.
const PROGRESS_SEEDS: u64 = 50;

struct Arguments {
    seeds: u64,
    from: u64,
    bug: Option<Bug>,
    history: Option<String>,
    trace: Option<String>,
    twice: bool,
    /// Whether the last lines tell everything that was counted.
    sums: bool,
    /// Whether the first seed that fails is the last.
    stops: bool,
    /// Seeds after each of which a line tells how far it is.
    progress: u64,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: Vec<u64>,
    virtual_seconds: u64,
    acknowledged: u64,
    crashes: u64,
    events: u64,
    tally: Tally,
}

/// Runs the simulations of the command line, with statements if `sql` opens an engine for them. Returns the exit code:
/// 0 if every seed passed, 1 if a seed failed (after printing one command per failed seed), 2 if the command line is
/// wrong.
pub fn main(sql: Option<Opener>) -> i32 {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            println!("{wrong}\n{USAGE}");
            return 2;
        }
    };
    let begin = Instant::now();
    let mut totals = Totals::default();
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        note(&arguments, sql, seed, &mut totals);
        if totals.seeds.is_multiple_of(arguments.progress.max(1)) {
            println!("{}", line(&totals, begin));
        }
        if arguments.stops && !totals.failed.is_empty() {
            break;
        }
    }
    println!("{}", line(&totals, begin));
    if arguments.sums {
        println!("sums: {}", sums(&totals));
    }
    let example = if sql.is_some() {
        "-p floe-sql --example simulate_sql"
    } else {
        "-p floe-testkit --example simulate"
    };
    for seed in &totals.failed {
        println!("repeat with: cargo run {example} -- --seeds 1 --from {seed}");
    }
    i32::from(!totals.failed.is_empty())
}

fn options(seed: u64, arguments: &Arguments, sql: Option<Opener>) -> Options {
    let options = Options { keep_trace: arguments.trace.is_some(), sql, ..Options::seed(seed) };
    match arguments.bug {
        Some(bug) => options.with(bug),
        None => options,
    }
}

/// Makes a run, counts it, prints its findings, and writes the requested files.
fn note(arguments: &Arguments, sql: Option<Opener>, seed: u64, totals: &mut Totals) {
    let report: Report = run(&options(seed, arguments, sql));
    totals.seeds += 1;
    totals.virtual_seconds += report.virtual_time.as_secs();
    totals.acknowledged += report.acknowledged;
    totals.crashes += report.crashes;
    totals.events += report.events;
    add(&mut totals.tally, &report.tally);
    let mut failed = !report.findings.is_empty();
    for finding in &report.findings {
        println!("seed {seed}: {finding}");
    }
    if arguments.twice {
        let again = run(&options(seed, arguments, sql));
        if again.hash != report.hash {
            println!("seed {seed}: a second run of the same seed is another run");
            failed = true;
        }
        if let (Some(path), Some(trace)) = (&arguments.trace, &again.trace) {
            write(&format!("{path}.again"), trace);
        }
    }
    if failed {
        totals.failed.push(seed);
    }
    if let Some(path) = &arguments.history {
        write(path, &report.history.to_text());
    }
    if let (Some(path), Some(trace)) = (&arguments.trace, &report.trace) {
        write(path, trace);
    }
}

fn write(path: &str, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        println!("cannot write {path}: {error}");
    }
}

fn line(totals: &Totals, begin: Instant) -> String {
    let Totals { seeds, failed, virtual_seconds, acknowledged, crashes, events, .. } = totals;
    let real = begin.elapsed().as_secs_f64();
    let hours = *virtual_seconds as f64 / 3600.0;
    let failed = failed.len();
    format!(
        "{seeds} seeds, {failed} failed, {hours:.2} virtual hours, {acknowledged} acknowledged records, {crashes} \
         crashes, {events} events in {real:.1} s"
    )
}

/// The sums as one JSON document, for those who add up several runs of this command.
fn sums(totals: &Totals) -> Value {
    let mut sums: Map<String, Value> =
        totals.tally.iter().map(|(what, count)| ((*what).to_owned(), Value::from(*count))).collect();
    sums.insert("seeds".to_owned(), totals.seeds.into());
    sums.insert("events".to_owned(), totals.events.into());
    sums.insert("seconds on their own clocks".to_owned(), totals.virtual_seconds.into());
    Value::Object(sums)
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seeds: 200,
        from: 0,
        bug: None,
        history: None,
        trace: None,
        twice: false,
        sums: false,
        stops: false,
        progress: PROGRESS_SEEDS,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => arguments.seeds = value()?.parse().map_err(|_| "--seeds is a number".to_owned())?,
            "--from" => arguments.from = value()?.parse().map_err(|_| "--from is a number".to_owned())?,
            "--bug" => arguments.bug = Some(bug(&value()?)?),
            "--history" => arguments.history = Some(value()?),
            "--trace" => arguments.trace = Some(value()?),
            "--twice" => arguments.twice = true,
            "--sums" => arguments.sums = true,
            "--stop" => arguments.stops = true,
            "--progress" => {
                arguments.progress = value()?.parse().map_err(|_| "--progress is a number".to_owned())?;
            }
            _ => return Err(format!("{word} is unknown")),
        }
    }
    Ok(arguments)
}

fn bug(name: &str) -> Result<Bug, String> {
    let named = |bug: &&Bug| format!("{bug:?}").eq_ignore_ascii_case(name);
    Bug::ALL.iter().find(named).copied().ok_or_else(|| format!("{name} is no bug; there are {:?}", Bug::ALL))
}
