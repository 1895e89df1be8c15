//! Runs any number of simulations with statements in them: see [`floe_testkit::command`].

#![allow(clippy::exit, reason = "a command line tool ends with a code")]

#[path = "../tests/sql/opener.rs"]
mod opener;

fn main() {
    std::process::exit(floe_testkit::command::main(Some(opener::open)))
}
