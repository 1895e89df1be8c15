//! The history: who committed what, when, and why, in rows. Old rows lie in the store, new ones are in the journal.
//!
//! The journal keeps every commit whole, with all its changes. That is far more than anybody asks of an old commit, so
//! a job makes rows of commits, writes them into the store as Parquet, and lets the journal forget the commits. The
//! rows of a snapshot are those in its parts, and those of the journal's entries after the last part: each commit once.
//!
//! # What it is not
//! It keeps no changes: a setting's former value, the state of a producer, a lease, a file of the lake cannot be found
//! here. `docs/history.md` says what is kept. It is no table of a topic: SQL reads it through [`read`]. Other readers
//! have the parts as an Iceberg table, which misses what is in the journal.
//!
//! # Files
//! ```text
//! row.rs      Row          one row: a commit, a writer, a partition, a range of offsets
//! rows.rs     rows         a journal entry -> its rows
//! names.rs    Names        which numbers were whose at a commit: writers and topics
//! object.rs   Encoder      rows -> a Parquet object, and back
//! map.rs                   the records in the metadata map
//! plan.rs                  what to write and what to merge next
//! waiting.rs  Waiting      the bytes of the commits that are in no part yet
//! table.rs                 the parts as an Iceberg table: its columns, data files, and documents
//! publish.rs               the next snapshot of that table
//! command.rs               the pure functions over the metadata map
//! job.rs      History      the job, one round at a time
//! read.rs                  the parts of a snapshot, and the rows after them
//! ```
//! # One round
//! ```text
//! begin    commit   the lease; a number for an object; what former owners left is waste
//! write             rows of the commits after the last part, or of neighbours that are merged: one PUT
//! finish   commit   the lease is still ours; the part is in the map; parts that it replaces are waste
//! publish  2 commits, if parts changed: numbers for documents; the table's record, when they are put
//! forget            the journal lets go of commits that no snapshot in use reads from it
//! clean    commit   waste is deleted when its grace is over and no snapshot refers to it, of the map or of the table
//! ```
//! A crash before `finish` leaves an object that the map knows as begun. A crash after it leaves entries in the journal
//! that the next round lets it forget. Nothing is lost, and no commit is in two parts.
//!
//! # Formats
//! ```text
//! key 50 Part     first LSN        -> last LSN, object, rows, times                   map.rs
//! key 51 Loose    object number    -> an object that no part names                    map.rs
//! key 52 Table                    -> the newest state of the Iceberg table       map.rs
//! key 53 Document number          -> a document of it                            map.rs
//! document        history/1/metadata/<number>.avro, …/<version>-<uuid>.metadata.json
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
mod publish;
pub mod read;
mod row;
mod rows;
pub mod table;
mod waiting;

pub use error::HistoryError;
pub use job::{Config, Done, History};
pub use names::Names;
pub use object::{Encoder, Wanted, decode, scan, schema, to_batch};
pub use row::{ChangeKind, Row};
pub use rows::rows;
