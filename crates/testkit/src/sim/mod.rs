//! The whole engine in one thread under a simulated clock: brokers over one store and one journal that fail in every
//! way that is allowed, clients that write and read, and at the end the checkers.
//!
//! ```text
//! plan.rs                  seed -> the plan of this run
//! world.rs                 faults, healing, audit, checkers
//! cluster.rs               brokers that die at any await
//! store.rs, journal.rs     requests that may be lost or land late
//! remote.rs                a remote store: requests are made in tries that time out
//! weather.rs               the faults of the store and the journal
//! marking.rs               markers by a test command
//! holding.rs               a reader that pins a snapshot for long
//! log_front.rs             a client in the broker's process, as views are
//! engine.rs, sql.rs        statements, if the caller brings an engine for them
//! compacting.rs            the clients of a compacted topic
//! tally.rs                 what happened, in numbers
//! audit/                   all records, objects, rows, commits and leftovers at the end
//! growth/                  a long run without faults, and whether anything grows
//! metadata.rs, full.rs     two small worlds: the metadata alone, and a full journal
//! ```

mod audit;
mod cluster;
mod compacting;
mod engine;
#[cfg(test)]
mod full;
pub mod growth;
mod holding;
mod journal;
mod log_front;
mod marking;
#[cfg(test)]
mod metadata;
mod plan;
mod remote;
mod restoring;
mod sql;
mod store;
mod tally;
mod undeleting;
mod weather;
mod world;

pub use cluster::Harm;
pub use engine::{Engine, Opener, Refused};
pub use plan::Options;
pub use tally::{Tally, add};
pub use world::{Report, run};
