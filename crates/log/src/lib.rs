//! The diskless log: records enter as Kafka batches, are stored once on an object store, and are found again
//! through the metadata map.
//!
//! # What it is not
//! It knows no Kafka API numbers and no Arrow; it never decodes a batch on the produce or fetch path
//! ([`records`] serves views, clients and tests); it holds no state that a crash could lose: what it keeps in
//! memory is a cache of the store or of the metadata map.
//!
//! # Rooms
//! ```text
//! map/     what the metadata map holds, and the pure functions over it
//! format/  bytes: Kafka's record batch, records, codecs, WAL objects
//! write/   the way in: intake, object ids, uploads, sequencer
//! read/    the way out: walk, cache, reader, waiters
//! clean/   deletes what nobody needs any more
//! ```
//! # A write, file by file
//! ```text
//! handle.rs            Log::append       takes batches of many partitions from one writer
//! format/header.rs     validate          length, magic, checksum, count; nothing is decoded
//! write/intake.rs      Intake::push      a FIFO queue with a limit
//! write/wal_writer.rs  WalWriter::run    closes objects by size, age, or an idle uploader; commits keep order
//! write/uploader.rs    Uploader::upload  an id, the object's bytes (format/wal.rs), the PUT
//! write/sequencer.rs   sequence          one commit: offsets, extents, producers, object
//! handle.rs            AppendTicket      is answered after the commit; readers wake (read/waiters.rs)
//! ```
//! # A read, file by file
//! ```text
//! handle.rs         Log::read        a snapshot, a partition, an offset, a byte budget
//! read/walk.rs      extents          the extents that cover the offsets, in order
//! read/cache.rs     blocks           memory first, one flight per block, coalesced ranged GETs for what is missing
//! read/walk.rs      batches          splits an extent's bytes, assigns base offsets
//! format/batch.rs   stamped_prefix   16 bytes replace the client's base offset; the rest is not copied
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

mod claim;
mod clean;
mod config;
mod error;
mod format;
mod handle;
pub mod limits;
mod map;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use clean::cleaner::Cleaned;
pub use config::{Config, Times};
pub use error::OpenError;
pub use format::{batch, codec, header, records, wal};
pub use handle::{Append, AppendTicket, Log, Permit, ProducerIdError};
pub use map::identity::{OTHER_CLIENTS, WRITER_TEXT_BYTES_MAX, WRITERS_MAX, Writer};
pub use map::ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};
pub use map::{cluster, extent, object, partition, producer, remains, topic, topic_config};
pub use read::cache::{Cache, Capacity};
pub use read::walk;
pub use write::{leases, sequencer};
