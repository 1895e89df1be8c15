//! The log from its handle down to the store, in memory, on disk and over S3.

mod basics;
mod world;
