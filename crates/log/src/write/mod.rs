//! The way in: requests become WAL objects, and commits give them offsets.

pub(crate) mod intake;
pub mod leases;
pub mod marker;
pub mod merged;
pub(crate) mod order;
pub mod sequencer;
pub(crate) mod uploader;
pub(crate) mod wal_writer;
