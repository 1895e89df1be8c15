//! The log from its handle down to the store, in memory, on disk and over S3.

mod basics;
mod cleaning;
mod faults;
mod local;
mod s3;
#[path = "../s3_server/mod.rs"]
mod s3_server;
mod world;
