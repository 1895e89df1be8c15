//! The diskless log. Records enter as Kafka batches, are stored once on an object store, and are found again
//! through the metadata map.
//!
//! # What it is not
//! It knows no Kafka API numbers and no Arrow. It keeps no record of a batch on the produce path, which only looks
//! whether consumers can decode it, and decodes none on the fetch path ([`records`] serves views, clients and tests).
//! A crash loses none of its state: its memory only caches the store and the metadata map.
//!
//! # Rooms
//! ```text
//! map/     what the metadata map holds, and the pure functions over it
//! format/  bytes: Kafka's record batch, records, codecs, WAL objects, segments
//! write/   the way in: intake, object ids, uploads, sequencer
//! read/    the way out: walk, cache, reader, waiters
//! merge/   makes few large segments of many small objects, and of the bytes in the journal
//! clean/   lets old records go, and deletes what nobody needs any more
//! compact/ lets records go that a later one of their key replaces
//! start/   what a start compares before it serves, and the number that it takes
//! check/   reads every byte of the objects, for `floe check`
//! ```
//! Beside them: `claim.rs` binds a store to its cluster, `config.rs` holds the settings, `limits.rs` every limit,
//! `error.rs` the errors of opening, and `handle.rs` the handle.
//!
//! # A write, file by file
//! ```text
//! handle.rs            Log::append       takes batches of many partitions from one writer
//! format/header.rs     validate          length, magic, checksum, count
//! format/verify.rs     walk              whether consumers can decode the records; keeps none of them
//! write/order.rs       Order::enter      behind the failed and the unanswered batches of its producer
//! write/intake.rs      Intake::push      a FIFO queue with a limit
//! write/wal_writer.rs  WalWriter::run    closes objects by size, age, or an idle uploader; commits keep order
//! format/payload.rs    lay_out           where the journal carries bytes: no upload, they ride with the commit
//! write/uploader.rs    Uploader::upload  an id (write/leases.rs), the object's bytes (format/wal.rs), the PUT
//! write/sequencer.rs   sequence          one commit: offsets, extents, producers, object
//! handle.rs            AppendTicket      is answered after the commit; readers wake (read/waiters.rs)
//! ```
//! # A read, file by file
//! ```text
//! handle.rs         Log::read        a snapshot, a partition, an offset, a byte budget
//! read/reader.rs    Reader::read     plans windows of extents, fetches them within the memory for reads
//! read/walk.rs      extents          the extents that cover the offsets, in order
//! read/seeks.rs     Seeks::index     where in a large section of a segment an offset is
//! read/ahead.rs     Ahead::get_bytes how much of it a remote store is asked for at once
//! read/cache.rs     Cache::read      memory first, one flight per block, coalesced ranged GETs for missing blocks,
//!                                    of an object or of the bytes of a commit (read/source.rs, read/frames.rs)
//! read/taken.rs     Taken::take      cuts batches within the byte budget, keeps no larger buffer
//! read/walk.rs      batches          splits an extent's bytes, assigns base offsets
//! format/batch.rs   stamped_prefix   16 bytes replace the client's base offset; the rest is not copied
//! ```
//! # Formats
//! A batch is Kafka's RecordBatch v2, byte for byte as the client sent it. Its offset lives in the metadata map and
//! is stamped on the way out; the checksum of a batch does not cover it. [`wal`] draws the layout of a WAL object,
//! [`segment`] that of a segment, in which each batch has its offset.
//! The values in the metadata map are versioned; their modules define them.
//!
//! ```text
//! key 10 Topic     topic id                          -> name, partitions, settings, creation time
//! key 12 Partition topic id | index                  -> next offset, log start, max timestamp, bytes
//! key 13 Extent    topic id | index | base offset    -> place, position, bytes, offsets, max timestamp, writer, LSN;
//!                                                       or a marker, or a gap (`map/extent.rs`)
//! key 14 Producer  topic id | index | producer id    -> epoch, hour of the last append, last five batches
//! key 15 Object    object id                         -> size, live extents, how far it is merged
//! key 16 Lease     first object id                   -> end of the range, owning process, expiry
//! key 17 Trash     object id                         -> time and LSN at which it became useless, size
//! key 18 Remains   topic id                          -> when a topic was deleted whose extents are not all freed
//! key 19 Count     topic id | index                  -> producers, the oldest hour of an append among them
//! key 20 Writer number                               -> the highest number of a start
//! key 21 Mark      topic id | index                  -> a time, and the next offset at that time
//! key 22 Level                                       -> the newest formats that may be written
//! key 23 Session   writer number                     -> epoch, renewal, oldest snapshot in use, format level
//! key 24 Deleted   topic id                          -> a deleted topic that can come back, time and LSN, bytes
//! key 25 Heads     topic id                          -> the heads of its partitions
//! key 26 Totals                                      -> how many deleted topics can come back, partitions, bytes
//! key 27 Compacted topic id | index                  -> the first dirty offset, time of the last pass
//! key 28 Part      topic id                          -> records that a topic has lost and that can come back
//! key 29 Part head topic id | index                  -> their first and last offset, bytes
//! ```
//! Indexes and identities have kinds of their own: 1 the cluster, 4 to 9 writers (`map/identity.rs`), 11 topics by
//! name, 60 the part that takes what a topic loses.

pub mod check;
mod claim;
mod clean;
mod compact;
mod config;
mod error;
mod format;
mod handle;
pub mod limits;
mod map;
mod merge;
mod read;
mod start;
mod write;

#[cfg(test)]
mod tests;

pub use claim::{Claim, JournalId, read_claim};
pub use clean::cleaner::Cleaned;
pub use clean::deletion::{Below, DeleteError};
pub use clean::retainer::{Needs, Retained, Unread};
pub use clean::retention::Defaults as RetentionDefaults;
pub use compact::compactor::CompactionRound;
pub use compact::filter::PlantedBug as PlantedCompactionBug;
pub use config::{Compaction, Config, Times};
pub use error::OpenError;
pub use format::{batch, codec, header, records, seek, segment, stamp, verify, wal};
pub use handle::{Append, AppendTicket, Log, Permit, ProducerIdError};
pub use map::identity::{OTHER_CLIENTS, WRITER_TEXT_BYTES_MAX, WRITERS_MAX, Writer};
pub use map::ids::{ObjectId, Offset, PartitionId, TopicId, WriterId};
pub use map::writer_number::{self, WriterNumber};
pub use map::{
    cluster, compacted, deleted, extent, format_level, mark, object, partition, producer, remains, removed,
    session, topic, topic_config,
};
pub use map::{
    identity::miscounted as miscounted_writers, identity::names_writer,
    producer_count::miscounted as miscounted_producers,
};
pub use merge::merger::MergeRound;
#[doc(hidden)]
pub use merge::planted::PlantedBug;
pub use merge::sizes::Sizes as MergeSizes;
pub use read::attribution::Attribution;
pub use read::cache::Capacity;
pub use read::damage::{Damaged, FoundBy};
pub use read::pins::Pinned;
pub use read::walk;
pub use start::{attached, compare, judge};
pub use write::{leases, marker, merged, sequencer};
