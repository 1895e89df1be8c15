//! Every limit of this crate, with its unit in the name.

use std::time::Duration;

/// Commits after the last part at which the next part is written.
pub const COMMITS_DUE: u64 = 50_000;

/// Bytes of changes after the last part at which the next part is written, however few commits they are.
pub const CHANGE_BYTES_DUE: u64 = 48 << 20;

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
