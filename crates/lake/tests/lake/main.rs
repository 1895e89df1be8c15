//! The lake against a log in memory: what is in the table is what is in the log, at every snapshot, whatever fails.

mod catalog;
mod cleaning;
mod crash;
mod faults;
mod freshness;
mod merging;
mod rebuilding;
mod retention;
mod rewriting;
mod stories;
mod world;
