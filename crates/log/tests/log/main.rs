//! The log from its handle down to the store, in memory and over S3.

mod basics;
mod cleaning;
mod compaction;
mod damage;
mod deleting;
mod extents;
mod faults;
mod frames;
mod full;
mod merging;
mod pinned;
mod power;
mod removed;
mod retention;
mod s3;
#[path = "../../../store/tests/s3_server/mod.rs"]
#[allow(dead_code, reason = "the store's own tests use the rest")]
mod s3_server;
mod starting;
mod taking_over;
mod world;
