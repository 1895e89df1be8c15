//! Every limit of this crate, with the reason for its size.

use std::time::Duration;

/// Bytes of records (as decoded) that one commit takes in while a view catches up, unless the broker sets another
/// value ([`crate::Config::commit_bytes`]). They stay in memory, as the view keeps them, until the commit.
pub const COMMIT_BYTES_MAX: usize = 128 << 20;

/// Views of one broker that compute at the same time, unless the broker sets another value
/// ([`crate::Config::views_at_work`]). The memory of all views is that of so many full commits.
pub const VIEWS_AT_WORK: usize = 2;

/// Pieces of jobs that are at work at the same time in one process. Each takes a core and the memory of a piece, beside
/// the views.
pub const JOBS_AT_WORK: usize = 1;

/// How often the owner of a view renews its lease while a piece of a job is at work.
pub const JOB_RENEWAL_INTERVAL: Duration = Duration::from_secs(3);

/// The first pause after a piece of a job failed. It doubles with each failure …
pub const JOB_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// … up to this.
pub const JOB_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A view begins with this part of the memory of a full commit. So many times as many views can wait for the store.
pub const PORTIONS_PER_COMMIT: usize = 8;

/// Bytes of batches that one read asks of the log.
pub const READ_BYTES: usize = 4 << 20;

/// Bytes that the records of one batch may take when they are decompressed.
pub const BATCH_DECODED_BYTES_MAX: usize = 128 << 20;

/// Log lines a minute of each kind that every topic's view may write: that it was taken over, that a step
/// failed, that records did not fit, that it ended.
pub const TOPIC_LINES_PER_MINUTE: u32 = 60;

/// Topics that have a label of their own in metrics. A view has some thirty lines in a scrape.
pub const METRIC_TOPICS_MAX: usize = 100;

/// Bytes of one dead-letter batch, before compression.
pub const DEAD_LETTER_BATCH_BYTES: usize = 1 << 20;

/// Names that are tried for a dead-letter topic while they collide with those of other topics.
pub const DEAD_LETTER_NAMES_MAX: u32 = 9;

/// How often the supervisor checks that every topic has its view.
pub const SUPERVISE_INTERVAL: Duration = Duration::from_secs(15);

/// How long a lease lasts after the last commit of its owner.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// How often a view that gathers looks how much there is, and whether the topic's settings have changed.
pub const GATHER_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The part of a view's freshness, as its divisor, that is set aside for the commit itself when commits are quick.
pub const GATHER_RESERVE: u32 = 10;

/// The first pause after a failed attempt. It doubles with each failure …
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// … up to this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(JOB_RENEWAL_INTERVAL.as_millis() * 2 < LEASE_TTL.as_millis());
const _: () = assert!(READ_BYTES < COMMIT_BYTES_MAX / PORTIONS_PER_COMMIT);
const _: () = assert!(BACKOFF_MIN.as_millis() < BACKOFF_MAX.as_millis());
