//! The way out: offsets to extents, extents to bytes, bytes to batches with offsets.

pub(crate) mod ahead;
pub(crate) mod attribution;
pub(crate) mod cache;
pub(crate) mod damage;
pub(crate) mod frames;
pub(crate) mod lookup;
pub(crate) mod pins;
pub(crate) mod reader;
pub(crate) mod seeks;
pub(crate) mod source;
mod taken;
pub(crate) mod waiters;
pub mod walk;
