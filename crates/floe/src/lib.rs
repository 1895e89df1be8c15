//! The floe binary: commands, settings and wiring. It has no logic of its own.
//!
//! It is a library so that it is compiled beside the crates that it needs, and not after them: `main.rs` is nothing but
//! its call.
//!
//! - `cli.rs`: the commands and their flags; `settings/`: the settings of a broker, in one table.
//! - `server.rs`: one broker, wired from the crates below; `journal/`: which journal it opens; `descriptors.rs`: how
//!   its file descriptors are shared out.
//! - `query.rs`: SQL and the lake behind HTTP.
//! - `serve.rs`, `demo/`, `sql.rs`, `topic.rs`, `table.rs`, `check/`, `bench/`: the commands.
//! - `client.rs`, `bootstrap.rs`: connections to the two addresses of a broker.
//! - `term.rs`: what a person sees: colour, spinner, tables.

mod bench;
mod bootstrap;
mod check;
mod cli;
mod client;
mod damage;
mod demo;
mod descriptors;
mod journal;
mod query;
mod serve;
mod server;
mod settings;
mod sql;
mod table;
mod term;
mod topic;
mod trash;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Threads for blocking work: files of the store (each kind of request has a limit of its own), decoding, compressing.
/// Work that finds no thread waits for one.
const BLOCKING_THREADS_MAX: usize = 128;

/// The exit status of a broker whose place a newer one has taken: whoever starts it again takes the place back.
const REPLACED: u8 = 3;

/// Runs the command that the arguments of the process name.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Command::SqlWorker = cli.command {
        return query::work();
    }
    // Both HTTP clients (the S3 store, `floe sql`) are built without a TLS provider and panic if there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return term::fail(&anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Sql(args) => sql::run(args).await,
            Command::Topic(args) => topic::run(args).await,
            Command::Table(args) => table::run(args).await,
            Command::Check(args) => check::run(*args).await,
            Command::Bench(args) => bench::run(*args).await,
            Command::SqlWorker => Ok(()),
        }
    });
    // A blocked read of standard input must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if term::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match (term::fail(&error), error.is::<serve::Replaced>()) {
            (_, true) => ExitCode::from(REPLACED),
            (failed, false) => failed,
        },
    }
}
