//! The front over a log in memory under a simulated clock. Clients of floe-client speak to it over pipes in memory.

mod bad_input;
mod damaged;
mod deleting;
mod documentation;
mod every_version;
mod faults;
mod fetching;
mod groups;
mod harness;
mod listener;
mod markers;
mod memory;
mod producing;
