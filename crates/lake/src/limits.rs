//! Every limit of this crate, with the reason for its size.

use std::time::Duration;

/// Bytes of records in one Arrow batch on its way into Parquet.
pub const BATCH_BYTES: usize = 8 << 20;

/// Rows of one Arrow batch.
pub const BATCH_ROWS: usize = 32 << 10;

/// Bytes of encoded pages that a Parquet row group holds before it is closed.
pub const ROW_GROUP_BYTES: usize = 64 << 20;

/// Bytes of a bound of text or bytes, in Parquet's statistics and in manifests (Iceberg's `truncate(16)`).
pub const BOUND_BYTES: usize = 16;

/// Snapshots that a table keeps, unless the broker sets another value ([`crate::Config::snapshots_kept`]). Every commit
/// writes all of them into a new metadata document, some 800 bytes each.
pub const SNAPSHOTS_KEPT: usize = 20;

/// Earlier metadata documents that the current one names. Older ones become garbage.
pub const METADATA_KEPT: usize = 20;

/// How long a file is kept that no snapshot names any more, unless the broker sets another value
/// ([`crate::Config::garbage_grace`]).
pub const GARBAGE_GRACE: Duration = Duration::from_secs(600);

/// How often the cleaner looks for files whose grace is over, unless the broker sets another value
/// ([`crate::Config::clean_interval`]).
pub const CLEAN_INTERVAL: Duration = Duration::from_secs(30);

/// Files that one record of garbage names.
pub const GARBAGE_FILES_MAX: usize = 512;

/// Records of garbage that one round of the cleaner deletes.
pub const GARBAGE_RECORDS_MAX: usize = 1_024;

/// File numbers that an owner reserves at once; see `layout.rs`.
pub const NUMBERS_LEASED: u64 = 256;

/// Files that are put for one commit, read by a merge, or deleted by the cleaner at the same time.
pub const PUTS_AT_ONCE: usize = 8;

/// Bytes of data files up to which a table is rewritten in the step that replaces a column, unless the broker sets
/// another value ([`crate::Config::step_rewrite_bytes`]). That takes about a second of one core.
pub const STEP_REWRITE_BYTES: u64 = 8 << 20;

/// Files up to which it is.
pub const STEP_REWRITE_FILES: u64 = 64;

/// Bytes of data files that one piece of a job rewrites, and one file more at most. They and their copies are in
/// memory.
pub const PIECE_BYTES: u64 = 32 << 20;

/// Files that one piece of a job rewrites.
pub const PIECE_FILES: usize = 256;

/// Small files of about as many rows that are merged into one, unless the broker sets another value
/// ([`crate::Config::merge_files`]). More make fewer merges and more files.
pub const MERGE_FILES: usize = 8;

/// Bytes that a merged file should have. It has a quarter more at most, and the rest of the last one's commit: a piece
/// has it in memory. A smaller `floe.table.file.bytes` of a topic counts instead.
pub const MERGE_BYTES_MAX: u64 = 128 << 20;

/// Files that one piece merges, and the rest of the last one's commit.
pub const MERGE_FILES_MAX: usize = 256;

/// Bytes of small files that a piece reads at once, or one file.
pub const MERGE_READ_BYTES: u64 = 8 << 20;

/// Small files of a table that its owner knows at least before it merges some. Each takes some 150 bytes of memory.
pub const SMALL_FILES_KNOWN_MAX: usize = 16_384;

/// Bytes of a topic's name in the name of the folder of a rebuilt table: a file system takes 255 in all.
pub const REBUILT_NAME_BYTES: usize = 200;

/// How often a file is put before the whole commit fails.
pub const PUT_ATTEMPTS: u32 = 3;

/// Bytes of the log, as stored, at which a view commits although the freshness allows more, unless the broker sets
/// another value ([`crate::Config::gather_bytes`]). Every query decodes them, some of them twice.
pub const GATHER_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the cache of data files' names: enough for some million files.
pub const FILE_CACHE_BYTES: usize = 256 << 20;

/// With more partitions than this in a commit, the snapshot's summary leaves their offsets out. The table's properties
/// always have the offsets of all partitions.
pub const SUMMARY_PARTITIONS_MAX: usize = 16;
/// Bytes of batches that one read of a tail asks of the log.
pub const TAIL_READ_BYTES: usize = floe_view::limits::READ_BYTES;

const _: () = assert!(BATCH_BYTES < floe_view::limits::COMMIT_BYTES_MAX);
const _: () = assert!(CLEAN_INTERVAL.as_secs() < GARBAGE_GRACE.as_secs());
