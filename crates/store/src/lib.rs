//! Object stores: places for immutable objects, for the log, the lake and the catalog.
//!
//! # What is here
//! ```text
//! lib.rs        Store        the trait, and its outcomes
//! local/        LocalStore   a local directory: small objects in preallocated packs, large ones in files
//! s3.rs         S3Store      a bucket of S3, or of any other server that speaks S3
//! memory.rs     MemoryStore  for tests and the simulation
//! faulty.rs     FaultyStore  fails on purpose, for tests of the layers above a store
//! measured.rs   Measured     counts requests, bytes, errors and latencies
//! conditional.rs             the test whether a store keeps to the condition of a PUT
//! key.rs        check_key    the rules for keys
//! payload.rs                 helpers for payloads and ranges
//! limits.rs                  every limit of this crate
//! ```
//!
//! # What it is not
//! A store keeps bytes under a key. It does not rename, lock or append. The metadata map knows which objects exist, so
//! nothing here is ever searched for; only a start and `floe check` list, to compare. It knows no batches and no
//! tables.
//!
//! # Outcomes
//! An outcome has three values, because a lost answer is not a refusal. A request was applied (`Ok`), or was
//! certainly not applied ([`StoreError::NotApplied`], [`StoreError::Full`]), or its outcome is unknown
//! ([`StoreError::Unknown`]). Object ids are used once, so nobody repairs an unknown PUT: it is left to the
//! cleaner.
//!
//! # Formats
//! [`local`] draws the files of the local store.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::DiskRoom;
use thiserror::Error;

mod conditional;
#[doc(hidden)]
pub mod faulty;
mod key;
pub mod limits;
pub mod local;
mod measured;
mod memory;
mod payload;
pub mod s3;

pub use conditional::{ConditionalError, check_conditional};
pub use key::check_key;
pub use measured::Measured;
pub use memory::MemoryStore;
pub use payload::{concat, payload_bytes, slice};

/// The folder of the keys that say which cluster owns the store. Nothing in the metadata map refers to these keys,
/// and they are never deleted.
pub const CLUSTER_FOLDER: &str = "floe/";

/// Why a request to the store failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No object has this key.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// The request had no effect. The caller may repeat it.
    #[error("the store refused the request, nothing was changed: {0}")]
    NotApplied(String),
    /// The outcome is not known: the request may have had its effect, or may have it later.
    #[error("the store did not answer, the request may or may not have been applied: {0}")]
    Unknown(String),
    /// The store has no room, and the request had no effect. Service resumes by itself once there is free space.
    #[error("the store is full, nothing was changed; free some space: {0}")]
    Full(String),
    /// The object exists, but its length or its checksum differs from what was put.
    #[error("the object is damaged: {0}")]
    Corrupt(String),
}

/// An object in a [`Store::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object's key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
}

/// The outcome of a successful [`Store::put_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// This call created the object.
    Created,
    /// An object with this key existed before. It is unchanged.
    Exists,
}

/// A place for immutable objects. A PUT is durable before it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates or replaces the object `key` from the concatenation of `payload`. The object is durable when the
    /// call returns.
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError>;

    /// Creates the object `key` if no object has that key. Of several concurrent calls exactly one creates it.
    ///
    /// The payload must differ from that of any other caller (carry an attempt id). After a lost answer, the store
    /// reads the object back and compares it to find out who created it.
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError>;

    /// The bytes of `range`, or of the whole object without a range. An object that ends before the range is
    /// [`StoreError::Corrupt`]. A result is never shorter than the range, and keeps no other memory than its own:
    /// caches count what they hold.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError>;

    /// The length of the object in bytes.
    async fn size(&self, key: &str) -> Result<u64, StoreError>;

    /// Deletes the object, durably. Deleting a missing object succeeds, so a deletion can be repeated.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// The objects of the folder `prefix` (without a slash at its end) and of the folders in it whose keys come after
    /// `after`, in the order of their keys, at most `count`. For comparing the store with the metadata, at a start and
    /// in `floe check`; nothing else lists.
    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError>;

    /// The room of the disk that holds the objects; none if that is not a disk of this machine, or does not say.
    async fn room(&self) -> Option<DiskRoom> {
        None
    }

    /// The address under which other programs find the object: `file:///…`, `s3://bucket/…`. Iceberg's documents
    /// contain it.
    fn url(&self, key: &str) -> String;

    /// Whether a PUT costs money and a network round trip. If so, the log waits longer to fill an object.
    fn remote(&self) -> bool;
}
