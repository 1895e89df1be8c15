//! The front over a log in memory, under a simulated clock, asked by floe-wire's client over an in-memory pipe.

mod bad_input;
mod damaged;
mod documentation;
mod every_version;
mod faults;
mod fetching;
mod groups;
mod harness;
mod listener;
mod memory;
mod producing;
