//! Bytes: Kafka's record batch and its records, codecs, WAL objects.

pub mod batch;
pub mod codec;
pub(crate) mod control;
pub mod header;
pub mod records;
pub mod verify;
pub mod wal;
