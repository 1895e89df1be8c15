//! The messages, as tables. [`crate`] says how they travel; `table.rs` says how to read the rows.
//!
//! Names are those of the protocol, so that a table can be laid beside it. A `node_id` of -1, a `leader_epoch` of -1,
//! an offset of -1 mean that there is none.

pub mod admin;
pub mod fetch;
pub mod group_offsets;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producer;
pub mod sasl;
