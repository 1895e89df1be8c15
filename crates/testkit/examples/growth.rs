//! A run of very many commits, and whether anything grows: see [`floe_testkit::sim::growth`].

#![allow(clippy::exit, reason = "a command line tool ends with a code")]

fn main() {
    std::process::exit(floe_testkit::sim::growth::command::main())
}
