//! Bytes: Kafka's record batch and its records, codecs, WAL objects, the bytes that ride with commits.

pub mod batch;
pub mod codec;
pub(crate) mod control;
pub mod header;
pub(crate) mod payload;
pub mod records;
pub mod verify;
pub mod wal;
