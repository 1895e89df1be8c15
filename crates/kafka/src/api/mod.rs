//! The APIs that are answered: their table, what a handler gets and gives, and one file per API group.
//!
//! ```text
//! table.rs   the table, and what reads it          answer_room.rs  bounds of an answer about several groups
//! call.rs    a request, its context, its answer    errors.rs       error codes of failures below the front
//! ```
//! The other files are handlers, named by their API group.

pub(crate) mod answer_room;
pub(crate) mod call;
pub(crate) mod committed_offsets;
pub(crate) mod configs;
pub(crate) mod consumer_groups;
pub(crate) mod delete_records;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod operations;
pub(crate) mod produce;
pub(crate) mod producer_id;
pub(crate) mod sasl;
pub(crate) mod table;
pub(crate) mod topics;
