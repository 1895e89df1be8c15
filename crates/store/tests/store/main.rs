//! Stores on a real disk and against a real S3 server.

mod local;
mod s3;
#[path = "../s3_server/mod.rs"]
#[allow(dead_code, reason = "the tests of the log use the rest")]
mod s3_server;
