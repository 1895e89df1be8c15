//! SQL over an in-process log and lake: memory store, memory journal, real engine.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod answer_files;
mod answers;
mod bombs;
mod commits;
mod damage;
mod errors;
mod evolution;
mod fresh;
mod limits;
mod opener;
mod plans;
mod simulated;
mod workers;
mod world;
mod worlds;
