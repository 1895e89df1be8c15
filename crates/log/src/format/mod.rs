//! Bytes: Kafka's record batch and its records, codecs, WAL objects, segments, the bytes that ride with commits.

pub mod batch;
pub mod codec;
pub(crate) mod control;
pub mod header;
pub(crate) mod payload;
pub(crate) mod raw;
pub mod records;
pub mod seek;
pub mod segment;
pub mod stamp;
pub mod verify;
pub mod wal;
