//! Object stores: a place to keep immutable objects, for the log, the lake and the catalog.
//!
//! # What is here
//! ```text
//! lib.rs        Store        the trait, and its outcomes
//! local/        LocalStore   a local directory: small objects in preallocated packs, large ones in files
//! s3.rs         S3Store      a bucket of S3, or of anything that speaks S3
//! memory.rs     MemoryStore  for tests and the simulation
//! faulty.rs     FaultyStore  fails on purpose, for tests of what is built on a store
//! measured.rs   Measured     counts requests, bytes, errors and latencies
//! ```
//!
//! # What it is not
//! A store keeps bytes under a key. It does not list, rename, lock or append. The metadata map knows which objects
//! exist, so nothing here ever has to be searched for. It knows no batches and no tables.
//!
//! # Outcomes
//! They have three values, because a lost answer is not a refusal: a request was applied (`Ok`), was certainly
//! not applied ([`StoreError::NotApplied`], [`StoreError::Full`]), or nobody knows ([`StoreError::Unknown`]).
//! Object ids are used once, so an unknown PUT is never repaired: it is left to the cleaner.
//!
//! # Formats
//! The files of the local store are drawn in [`local`].

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

#[doc(hidden)]
pub mod faulty;
mod key;
pub mod limits;
pub mod local;
mod measured;
mod memory;
mod payload;
pub mod s3;

pub use key::check_key;
pub use measured::Measured;
pub use memory::MemoryStore;
pub use payload::{concat, payload_bytes, slice};

/// Keys below this folder say whose store it is. Nothing in the metadata map refers to them, and they stay.
pub const CLUSTER_FOLDER: &str = "floe/";

/// Why a request to the store was not answered with success.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No object has this key.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// The request had no effect; it may be made again.
    #[error("the store refused the request, nothing was changed: {0}")]
    NotApplied(String),
    /// The request may have had its effect, or may have it later.
    #[error("the store did not answer, the request may or may not have been applied: {0}")]
    Unknown(String),
    /// There is no room. The request had no effect; free some space and service returns by itself.
    #[error("the store is full, nothing was changed; free some space: {0}")]
    Full(String),
    /// The object exists and is not what was put: its length or its checksum differs.
    #[error("the object is damaged: {0}")]
    Corrupt(String),
}

/// The outcome of [`Store::put_if_absent`] that is not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// This call created the object.
    Created,
    /// An object with this key was there before; it was not touched.
    Exists,
}

/// A place that keeps immutable objects. A PUT is durable before it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates (or replaces) the object `key` from the concatenation of `payload`; durable when it returns.
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError>;

    /// Creates the object `key` if no object has that key; of several concurrent calls exactly one creates it.
    ///
    /// The payload must be unlike that of any other caller (carry an attempt id): where an answer was lost, the
    /// object is read back and compared to know who created it.
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError>;

    /// The bytes of `range` (the whole object without one). An object that ends before the range is
    /// [`StoreError::Corrupt`]; a result is never shorter than was asked for.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError>;

    /// The length of the object in bytes.
    async fn size(&self, key: &str) -> Result<u64, StoreError>;

    /// Deletes the object, durably. Deleting what does not exist is a success, so a deletion can be repeated.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Where other programs find the object: `file:///…`, `s3://bucket/…`. Written into Iceberg's documents.
    fn url(&self, key: &str) -> String;

    /// Whether a PUT costs money and a network round trip: then the writer waits longer to fill an object.
    fn remote(&self) -> bool;
}
