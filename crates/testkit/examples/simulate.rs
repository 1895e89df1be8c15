//! Runs any number of simulations: see [`floe_testkit::command`].

#![allow(clippy::exit, reason = "a command line tool ends with a code")]

fn main() {
    std::process::exit(floe_testkit::command::main(None))
}
