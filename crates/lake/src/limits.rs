//! Every limit of this crate, with the reason for its size.

use std::time::Duration;

/// Bytes of records in one Arrow batch on its way into Parquet.
pub const BATCH_BYTES: usize = 8 << 20;

/// Rows of one Arrow batch.
pub const BATCH_ROWS: usize = 32 << 10;

/// Bytes of encoded pages that a Parquet row group holds before it is closed.
pub const ROW_GROUP_BYTES: usize = 64 << 20;

/// Bytes of bounds of strings and bytes, in Parquet's statistics and in manifests (Iceberg's `truncate(16)`).
pub const BOUND_BYTES: usize = 16;

/// Manifests of about the same size that are merged into one; see [`crate::manifest`].
pub const MANIFEST_MERGE: usize = 8;

/// Entries of a manifest that is never merged again: it would cost more to write than to read.
pub const MANIFEST_ENTRIES_MAX: u64 = 8 * 8 * 8 * 8;

/// Snapshots that a table keeps, unless the broker is told otherwise ([`crate::Config::snapshots_kept`]).
pub const SNAPSHOTS_KEPT: usize = 100;

/// Earlier metadata documents that the current one names.
pub const METADATA_KEPT: usize = 20;

/// How long a file is kept that no snapshot names any more, unless the broker is told otherwise
/// ([`crate::Config::garbage_grace`]).
pub const GARBAGE_GRACE: Duration = Duration::from_secs(600);

/// How often the cleaner looks for files whose grace is over, unless the broker is told otherwise
/// ([`crate::Config::clean_interval`]).
pub const CLEAN_INTERVAL: Duration = Duration::from_secs(30);

/// Files that one record of garbage names, and that one step of the cleaner deletes.
pub const GARBAGE_FILES_MAX: usize = 512;

/// Records of garbage that one round of the cleaner takes up.
pub const GARBAGE_RECORDS_MAX: usize = 1_024;

/// File numbers that a view takes at once; see [`crate::layout`].
pub const NUMBERS_LEASED: u64 = 256;

/// Files of one commit that are put side by side.
pub const PUTS_AT_ONCE: usize = 8;

/// How often a file is put before the whole attempt is given up.
pub const PUT_ATTEMPTS: u32 = 3;

/// Bytes of the log, as stored, that gather for one commit whatever the freshness, unless the broker is told otherwise
/// ([`crate::Config::gather_bytes`]): every query reads them, so it is a quarter of what SQL reads of a tail by
/// default.
pub const GATHER_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the log's tail that a query takes into memory.
pub const TAIL_BYTES_MAX: usize = 1 << 30;

/// Bytes of the names of data files that are kept for queries: some million files.
pub const FILE_CACHE_BYTES: usize = 256 << 20;

/// Partitions whose offsets a snapshot's summary spells out; the table's properties always have all.
pub const SUMMARY_PARTITIONS_MAX: usize = 64;

const _: () = assert!(BATCH_BYTES < floe_view::limits::COMMIT_BYTES_MAX);
const _: () = assert!(CLEAN_INTERVAL.as_secs() < GARBAGE_GRACE.as_secs());
