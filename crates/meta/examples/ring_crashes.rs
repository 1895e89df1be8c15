//! Runs many disks of the ring's crash test: `ring_crashes [disks] [first seed]`. Each disk ends six times.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;

use floe_env::Env;
use floe_meta::crash::{Met, lives};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: u64| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let (disks, first) = (number(0, 1_000)?, number(1, 0)?);
    let mut met = Met::default();
    let mut failed = Vec::new();
    for seed in first..first + disks {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        match runtime.block_on(async { lives(Env::simulated(seed), seed) }) {
            Ok(more) => met.add(&more),
            Err(wrong) => failed.push(wrong),
        }
    }
    println!("{met:#?}");
    failed.iter().take(20).for_each(|wrong| println!("{wrong}"));
    match failed.len() {
        0 => Ok(()),
        count => Err(format!("{count} of {disks} disks failed").into()),
    }
}
