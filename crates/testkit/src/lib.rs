//! An in-process cluster under a simulated clock, store and journal; the clients that use it; and the checkers of the
//! history that they write. A dev-dependency, never a part of the binary.
//!
//! It is not a model of Floe. The brokers in a simulation are the real ones, from the Kafka connection down to the
//! metadata map. Only the world around them (clock, store, journal, network) is simulated.
//!
//! # A run, file by file
//! ```text
//! command.rs       the command line: any number of seeds
//! sim/plan.rs      draws a plan from the seed
//! sim/world.rs     lets the faults rage, heals, checks what is left
//! sim/cluster.rs   brokers that die at any await, over sim/store.rs and sim/journal.rs
//! client/*.rs      producers, consumers, groups, an administrator; they note every call and its end
//! recorder.rs      writes the history
//! history.rs       one line per call and end: invoke, ok, fail, info
//! check/*.rs       one property each, from the history alone
//! rows.rs          compares a row of a table with the record that it shows
//! bug.rs           planted bugs, each with the checker that must see it
//! dice.rs          random draws, all from the seed
//! trace.rs         the hash of every event: the same seed is the same run
//! ```
//! A line of a history: `{"at":1204,"op":17,"process":3,"broker":2,"phase":"invoke","event":{…}}`, see [`history`].

mod bug;
pub mod check;
pub mod client;
pub mod command;
pub mod dice;
pub mod history;
pub mod recorder;
pub mod rows;
pub mod sim;
pub mod trace;

pub use bug::Bug;
