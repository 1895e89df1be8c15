//! `floe bench`: a load generator for any broker that speaks Kafka's protocol, on Floe's own client.
//!
//! ```text
//! args.rs      what was typed                 plan.rs      checked settings, with limits.rs and size.rs
//! cluster.rs   the topic and its leaders      lanes.rs     which connection works on which partitions
//! load.rs      which request is due when      turns.rs     hands the turns to connections in time
//! content.rs   the batches that are sent      produce.rs   connections that write
//! cursor.rs    how far was read, with batches.rs           consume.rs   connections that read
//! histogram.rs, tally.rs   what was counted   run.rs       the clock and the end that all share
//! modes.rs     produce, consume, latency, mixed            progress.rs, report.rs   what a person or a program sees
//! ```
//! Plans, lanes, loads, cursors, counts and reports are pure. The rest is sockets.
//!
//! # What it is not
//! It does not replace a client: it retries nothing, because a retry would hide what a request met.

pub(crate) mod args;
mod batches;
mod cluster;
mod consume;
mod content;
mod cursor;
mod histogram;
mod lanes;
mod limits;
mod load;
mod modes;
mod plan;
mod produce;
mod progress;
mod report;
mod run;
mod size;
mod tally;
mod turns;

use anyhow::Result;
use floe_env::Env;

use crate::bench::args::{BenchArgs, ModeArgs};
use crate::bench::modes::Bench;
use crate::bench::plan::{ConsumePlan, LatencyPlan, ProducePlan};
use crate::term::say;

/// Runs the command.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    let BenchArgs { bootstrap, json, timeout, mode } = args;
    let bench = Bench { env: Env::real(), bootstrap, timeout: plan::timeout(timeout)? };
    let report = match mode {
        ModeArgs::Produce(args) => bench.produce("produce", ProducePlan::new(args)?).await?,
        ModeArgs::Mixed(args) => bench.produce("mixed", ProducePlan::mixed(args)?).await?,
        ModeArgs::Consume(args) => bench.consume(ConsumePlan::new(args)?).await?,
        ModeArgs::Latency(args) => bench.latency(LatencyPlan::new(args)?).await?,
    };
    say(&if json { report.to_json() } else { report.to_text() })?;
    report.verdict()
}
