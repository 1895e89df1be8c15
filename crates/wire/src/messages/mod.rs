//! The messages as tables. The crate's docs draw a frame; `table.rs` explains the rows.
//!
//! Names are the protocol's, so that a table can be compared with it. In `node_id`, `leader_epoch` and offsets -1 means
//! none.

pub mod admin;
pub mod fetch;
pub mod group_offsets;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producer;
pub mod sasl;
