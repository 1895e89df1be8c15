//! The whole engine in one thread under a simulated clock: brokers over one store and one journal that fail
//! in every way that is allowed, clients that write and read, and at the end the checkers.
//!
//! ```text
//! plan.rs      seed -> what this run is made of       weather.rs   faults of the store and the journal
//! world.rs     faults, healing, audit, checkers       store.rs, journal.rs   requests that may be lost or land late
//! remote.rs    a store far away: tries that time out
//! cluster.rs   brokers that die at any await          audit.rs     all records, objects and rows at the end
//! sql.rs       statements, if the caller brings an engine for them
//! ```

mod audit;
mod cluster;
mod engine;
#[cfg(test)]
mod full;
mod journal;
mod log_front;
#[cfg(test)]
mod metadata;
mod plan;
mod remote;
mod sql;
mod store;
mod weather;
mod world;

pub use engine::{Engine, Opener, Refused};
pub use plan::Options;
pub use world::{Report, run};
