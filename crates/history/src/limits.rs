//! Every limit of this crate, with its unit in the name.

use std::time::Duration;

/// Commits after the last part at which the next part is written.
pub const COMMITS_DUE: u64 = 50_000;

/// Bytes of changes after the last part at which the next part is written, however few commits they are.
pub const CHANGE_BYTES_DUE: u64 = 48 << 20;

/// Time after which the next part is written, however few commits wait. So other readers of the table miss at most this
/// much, unless the broker sets another value.
pub const FRESHNESS: Duration = Duration::from_secs(3600);

/// Commits that wait at least, so that an idle broker writes no parts of its own commits.
pub const FRESH_COMMITS_MIN: u64 = 100;

/// Commits in one part that the job writes from the journal. What is left makes the next one.
pub const PART_COMMITS_MAX: u64 = 250_000;

/// Rows at which such a part ends.
pub const PART_ROWS_MAX: u64 = 2_000_000;

/// Bytes of parts that are merged into one. Larger parts stay as they are.
pub const MERGED_BYTES_MAX: u64 = 32 << 20;

/// Neighbours of one size that are merged into one. So a row is written again once for each power of this.
pub const FANOUT: usize = 8;

/// Parts that are merged at once: the largest power of the fan-out that small ones reach.
pub const MERGED_PARTS_MAX: usize = 64;

/// Bytes of an object that are read: those of the largest part, with room for its names.
pub const OBJECT_BYTES_MAX: u64 = 256 << 20;

/// Bytes of the names in an object, after decompression.
pub const NAMES_BYTES_MAX: usize = 256 << 20;

/// Rows of one group of an object. A reader passes over groups by their LSNs and times.
pub const GROUP_ROWS: usize = 64 << 10;

/// Rows that are held as such before they become columns.
pub const BATCH_ROWS: usize = 8 << 10;

/// Entries that are asked of the journal at once.
pub const ENTRIES_AT_ONCE: usize = 1_000;

/// Commits, and bytes of changes, of one step in which the job counts those that wait.
pub const WAITING_STEP_COMMITS: u64 = 1_000;

/// See [`WAITING_STEP_COMMITS`].
pub const WAITING_STEP_BYTES: u64 = 1 << 20;

/// Steps that the job remembers of them. Beyond that they become coarser.
pub const WAITING_STEPS_MAX: usize = 1_024;

/// Snapshots of the Iceberg table that are kept.
pub const SNAPSHOTS_KEPT: usize = 10;

/// How long a snapshot of it is kept that is not the current one. Parts that were replaced stay as long.
pub const SNAPSHOT_AGE: Duration = Duration::from_secs(24 * 3600);

/// Earlier metadata documents that the current one names.
pub const METADATA_KEPT: usize = 10;

/// Bytes of a document of the table that are read: a manifest of all entries that it may have takes less.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// The pause between two looks of the job.
pub const ROUND_PAUSE: Duration = Duration::from_secs(5);

/// The pause after a round that has left more to do.
pub const STEP_PAUSE: Duration = Duration::from_millis(100);

/// The time to live of the job's lease.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// How long waste is kept at least, on the monotonic clock of the process that deletes it: longer than any PUT that may
/// still be under way.
pub const WASTE_GRACE: Duration = Duration::from_secs(15 * 60);

/// How long an object is left alone that is damaged or gone.
pub const DAMAGED_PAUSE: Duration = Duration::from_secs(600);

/// Objects that one round deletes.
pub const WASTE_PER_ROUND: usize = 100;

/// Bytes of `detail` in a row; longer texts are cut.
pub const DETAIL_BYTES_MAX: usize = 4_096;

const _: () = assert!(COMMITS_DUE <= PART_COMMITS_MAX);
const _: () = assert!(MERGED_BYTES_MAX < OBJECT_BYTES_MAX);
const _: () = assert!(FANOUT <= MERGED_PARTS_MAX);
const _: () = assert!(FRESH_COMMITS_MIN < COMMITS_DUE);
