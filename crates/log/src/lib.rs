//! The diskless log: records enter as Kafka batches, are stored once on an object store, and are found again
//! through the metadata map.
//!
//! # What it is not
//! It knows no Kafka API numbers and no Arrow; it never decodes a batch on the produce or fetch path
//! ([`records`] serves views, clients and tests); it holds no state that a crash could lose: what it keeps in
//! memory is a cache of the store or of the metadata map.
//!
//! # A write, file by file
//! ```text
//! log.rs        Log::append            takes batches of many partitions from one writer
//! batch.rs      validate               length, magic, checksum, count; nothing is decoded
//! writer.rs     the open WAL object    closes by size, age, or an idle uploader
//! wal.rs        encode                 groups by partition, adds the checksummed footer
//! store.rs      Store::put             durable when it returns
//! sequencer.rs  sequence               one commit: offsets, extents, producers, object
//! log.rs        AppendTicket           is answered after the commit, readers wake
//! ```
//! # A read, file by file
//! ```text
//! log.rs        Log::read              a snapshot, a partition, an offset, a byte budget
//! walk.rs       extents                the extents that cover the offsets, in order
//! cache.rs      blocks                 memory first, one flight per block
//! store.rs      Store::get             coalesced ranged GETs for what is missing
//! walk.rs       batches                splits an extent's bytes, assigns base offsets
//! batch.rs      stamped_prefix         16 bytes replace the client's base offset; the rest is not copied
//! ```
//! # Formats
//! A batch is Kafka's RecordBatch v2, byte for byte as the client sent it; offsets live in the metadata map
//! and are stamped on the way out (the checksum of a batch does not cover them). The layout of a WAL object is
//! drawn in [`wal`]; the values in the metadata map are versioned, see the modules named after them.
//!
//! ```text
//! key 10 Topic     topic id                          -> name, partitions, settings, creation time
//! key 12 Partition topic id | index                  -> next offset, log start, max timestamp, bytes
//! key 13 Extent    topic id | index | base offset    -> object, bytes, offsets, max timestamp, writer, flags
//! key 14 Producer  topic id | index | producer id    -> epoch, last five batches
//! key 15 Object    object id                         -> size, live extents
//! key 16 Lease     first object id                   -> range of object ids, owner's writer session, expiry
//! key 17 Trash     object id                         -> since when it may be deleted
//! key 18 Remains   topic id                          -> when a topic was deleted whose extents are not all freed
//! ```

// The log: identifiers, batches, formats.
pub mod batch;
pub mod codec;
pub mod ids;
pub mod records;
pub mod wal;

// What the metadata map holds, and the pure functions over it.
pub mod cluster;
pub mod config;
pub mod extent;
pub mod identity;
pub mod object;
pub mod partition;
pub mod producer;
pub mod sequencer;
pub mod topic;
pub mod walk;

// The edge: stores, uploads, reads.
pub mod cache;
mod claim;
pub mod limits;
pub mod log;
pub mod objects;
pub mod reader;
pub mod writer;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use config::TopicConfig;
pub use identity::Writer;
pub use ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};
pub use partition::Bounds;
pub use records::Record;
pub use sequencer::{AppendError, Appended, Placed, Uploaded};
pub use topic::{NewTopic, Topic, TopicError};
pub use walk::{At, Read, ReadError};
