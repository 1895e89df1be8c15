//! The history: who committed what, when, and why, in rows. Old rows lie in the store, new ones are in the journal.
//!
//! The journal keeps every commit whole, with all its changes. That is far more than anybody asks of an old commit, so
//! a job makes rows of commits, writes them into the store as Parquet, and lets the journal forget the commits. The
//! rows of a snapshot are those in its parts, and those of the journal's entries after the last part: each commit once.
//!
//! # What it is not
//! It keeps no changes: a setting's former value, the state of a producer, a lease, a file of the lake cannot be found
//! here. `docs/history.md` says what is kept. It is no table of a topic: SQL reads it through [`read`].
//!
//! # Files
//! ```text
//! row.rs      Row          one row: a commit, a writer, a partition, a range of offsets
//! rows.rs     rows         a journal entry -> its rows
//! names.rs    Names        which numbers were whose at a commit: writers and topics
//! object.rs   Encoder      rows -> a Parquet object, and back
//! map.rs                   the records in the metadata map
//! plan.rs                  what to write and what to merge next
//! command.rs               the pure functions over the metadata map
//! job.rs      History      the job, one round at a time
//! read.rs                  the parts of a snapshot, and the rows after them
//! ```
//! # One round
//! ```text
//! begin    commit   the lease; a number for an object; what former owners left is waste
//! write             rows of the commits after the last part, or of neighbours that are merged: one PUT
//! finish   commit   the lease is still ours; the part is in the map; parts that it replaces are waste
//! forget            the journal lets go of commits that no snapshot in use reads from it
//! clean    commit   waste is deleted when its grace is over and no snapshot in use refers to it
//! ```
//! A crash before `finish` leaves an object that the map knows as begun. A crash after it leaves entries in the journal
//! that the next round lets it forget. Nothing is lost, and no commit is in two parts.
//!
//! # Formats
//! ```text
//! key 50 Part     first LSN        -> last LSN, object, rows, times                   map.rs
//! key 51 Loose    object number    -> an object that no part names                    map.rs
//! object          history/1/<first LSN>-<number>, each 16 hex digits                  object.rs
//! ```

mod command;
mod error;
mod job;
pub mod limits;
pub mod map;
mod names;
mod object;
mod plan;
pub mod read;
mod row;
mod rows;

pub use error::HistoryError;
pub use job::{Config, Done, History};
pub use names::Names;
pub use object::{Encoder, Wanted, decode, scan, schema, to_batch};
pub use row::{ChangeKind, Row};
pub use rows::rows;
