//! The command line of the long run.
//!
//! ```text
//! cargo run --release -p floe-testkit --example growth -- --commits 1000000 --carries
//! ```

#![allow(clippy::print_stdout, reason = "a command line tool prints")]
#![allow(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is measured on the machine's clock"
)]

use std::time::Instant;

use super::figure::Figure;
use super::{Options, Report, run};

const USAGE: &str = "usage: growth [--commits N] [--starts N] [--seed N] [--carries]";
/// Rows of the table that is printed.
const ROWS: usize = 12;

/// Makes the run of the command line, and prints what was held at some of its moments. Returns the exit code: 0 if
/// nothing grew, 1 if something did, 2 if the command line is wrong.
pub fn main() -> i32 {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            println!("{wrong}\n{USAGE}");
            return 2;
        }
    };
    let begin = Instant::now();
    let report = run(&options);
    for row in table(&report) {
        println!("{row}");
    }
    println!(
        "{} commits, {} acknowledged records, {} starts, {} topics created and deleted, {:.1} virtual hours in {:.0} s",
        report.samples.last().map_or(0, |sample| sample.commits),
        report.acknowledged,
        options.starts + 1,
        report.topics,
        report.virtual_time.as_secs_f64() / 3_600.0,
        begin.elapsed().as_secs_f64(),
    );
    for finding in &report.findings {
        println!("GROWS: {finding}");
    }
    i32::from(!report.findings.is_empty())
}

/// A row for each figure, with some of the samples as columns.
fn table(report: &Report) -> Vec<String> {
    let step = report.samples.len().div_ceil(ROWS).max(1);
    let shown: Vec<_> = report.samples.iter().rev().step_by(step).collect();
    let row = |name: &str, value: &dyn Fn(usize) -> u64| {
        let values: Vec<String> = (0..shown.len()).rev().map(|at| format!("{:>9}", value(at))).collect();
        format!("{name:<34}{}", values.concat())
    };
    let mut rows = vec![row("commits", &|at| shown[at].commits)];
    for figure in Figure::ALL {
        let value = |at: usize| shown[at].figures.get(&figure).copied().unwrap_or_default();
        rows.push(row(&figure.to_string(), &value));
    }
    rows
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::commits(1_000_000);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            value.parse::<u64>().map_err(|_| format!("{word} is a number"))
        };
        match word.as_str() {
            "--commits" => options.commits = number()?.max(1),
            "--starts" => options.starts = number()?,
            "--seed" => options.seed = number()?,
            "--carries" => options.carries = true,
            _ => return Err(format!("{word} is unknown")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let words = |text: &str| options(text.split_whitespace().map(str::to_owned));
        let read = words("--commits 7 --starts 2 --seed 3 --carries").expect("it is right");
        assert_eq!((read.commits, read.starts, read.seed, read.carries), (7, 2, 3, true));
        assert_eq!(words("--commits").err().as_deref(), Some("--commits needs a value"));
        assert_eq!(words("--faster").err().as_deref(), Some("--faster is unknown"));
    }
}
