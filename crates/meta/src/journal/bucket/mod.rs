//! The journal in a bucket: the object store alone keeps the order of all commits, and any number of brokers commit.
//!
//! ```text
//! journal/id                           the journal's id, made once                              names.rs
//! journal/entries/<number>             a group of commits, and the bytes that ride with it      group.rs
//!            1 <- 2 <- 3 <- … <- n     each has the checksum of the one before
//! journal/floors/<number>-<first LSN>  entries below this number may be gone; the highest counts  names.rs
//! journal/images/<number>-<random>     the manifest of the map up to an entry                   image.rs
//! journal/parts/<number>-<random>/<k>  the map, in parts of 8 MiB
//!
//!      floor        older image    newest image        n: the tail
//!        |               |              |              |
//!   - - -|-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#-#| n+1: the next PUT-if-absent decides
//!   gone, but for entries
//!   whose bytes are needed
//! ```
//! One commit is one PUT (commit.rs): entry n+1, if there is none yet. A broker that loses reads what others wrote,
//! and runs its commands again. Followers (read.rs) look for n+1, with one GET of 16 KiB, every 50 ms to 5 s. They
//! never read the bytes that ride with commits.
//!
//! # The trap, and the floor
//! Entries are deleted. A broker that slept for long may still think that n is the last one. It would create n+1
//! anew, and would be told that it did. So:
//!
//! - Entries go only when they have been below a durable floor for the grace (10 minutes). The grace is counted by
//!   the monotonic clock of the broker that deletes.
//! - A broker keeps the moment at which the end that it knows was certain. If that is older than the trust (1 minute,
//!   by the clock that says more), it lists the floors before it puts, and behind what it reads. If they have passed,
//!   the answer is [`JournalError::Reload`].
//! - If a PUT was answered later than that, the floors are listed again before the answer is believed. If they have
//!   passed, nobody can tell any more whether the object was the next entry when it was made, or a useless one. The
//!   outcome is unknown, and stays so. It is never called "without effect", because others may have built on it.
//! - A useless object is below the floor. No broker reads there, and the next sweep deletes it: the sweep keeps only
//!   what has attachments that the journal knows. An entry that others built on keeps its attachments for the same
//!   reason.
//!
//! What this needs: a list of keys shows every object whose PUT was answered (S3, GCS and Azure do so), and a
//! broker's two clocks do not both stand still for ten minutes while one of its requests is under way.
//!
//! # Why there is no record that is overwritten
//! A [`Store`] has no conditional overwrite. A floor or an image with a fixed name could be taken back by a broker
//! whose PUT hung in the network. So each floor is an object whose name has the number, and the highest counts. Each
//! image has a name that nobody uses again. A deleter keeps the two newest images that it has read back itself, so
//! nothing that others do or leave undone makes that fewer.
//!
//! # Who does the work
//! Every broker has a keeper (keeper.rs, fold.rs). When enough entries follow the newest image, each waits for a time
//! that chance chooses, looks whether another one was first, and writes the next image: the one before, merged with
//! what has changed, part by part. It also raises the floor, up to what [`Journal::forget`] was told, and deletes.
//!
//! # Bounds
//! In memory: 32 MiB of newest entries, where each attachment is and its checksums, 16 reads at once, one part of an
//! image. A conflict answers with what the caller missed, up to [`ENTRIES_BYTES_MAX`] and at least a group; the next
//! one has the rest. A broker that is alone for 10 seconds is not crowded ([`Journal::crowded`]): with others, bytes
//! go into objects of their own first, because a lost race would upload them again.
//!
//! # What is missing
//! One broker at a time serves with it (`log/start/taken.rs`). For several, their sessions must agree on the oldest
//! snapshot before one of them calls `forget` or `released` for all. `floe journal move` must copy a ring into a
//! bucket and back. Nothing is pushed between brokers yet: a follower hears of a commit when it looks, after up to 5
//! seconds of silence.

#[cfg(test)]
mod bed;
mod commit;
mod error;
mod fold;
mod group;
#[cfg(test)]
mod group_tests;
mod history;
mod image;
mod images;
mod inspect;
#[cfg(test)]
mod inspect_tests;
mod keeper;
#[cfg(test)]
mod model_tests;
mod names;
mod open;
mod planted;
mod read;
mod sealed;
mod state;
#[cfg(test)]
mod trap_tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, Task, lock};
use floe_store::{Store, StoreError};

use crate::journal::attachment::check_range;
use crate::journal::{
    AttachedError, Attachment, Carried, Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome,
};
use crate::limits::{BUCKET_ALONE_AFTER, BUCKET_BLOCK_BYTES, ENTRIES_MAX};

use self::keeper::Keeper;
use self::planted::{Planted, planted};
use self::state::Core;

pub use self::error::BucketOpenError;
pub use self::inspect::inspect_bucket;
pub use self::open::{BucketFound, has_bucket_journal};
pub use self::state::BucketOptions;

#[cfg(doc)]
use crate::limits::ENTRIES_BYTES_MAX;

/// The journal in a bucket. Dropping it ends its work beside commits.
pub struct BucketJournal {
    core: Arc<Core>,
    found: BucketFound,
    keeper: Task<()>,
}

impl BucketJournal {
    /// Opens the journal of a store, or makes it. Several brokers may do so at once.
    ///
    /// # Errors
    /// See [`BucketOpenError`].
    pub async fn open(
        env: &Env,
        store: Arc<dyn Store>,
        options: BucketOptions,
    ) -> Result<BucketJournal, BucketOpenError> {
        let (names, journal, found) = open::find(env, &store, &options).await?;
        let core = Arc::new(Core::new(env, store, names, options, journal));
        let keeper = env.spawn("bucket journal keeper", Keeper::new(Arc::clone(&core)).run());
        Ok(BucketJournal { core, found, keeper })
    }

    /// The id of the journal. A broker that belongs to it notes it, and opens no other one from then on.
    pub fn id(&self) -> u128 {
        self.core.journal
    }

    /// What opening found.
    pub fn found(&self) -> BucketFound {
        self.found
    }

    /// The last commit that this broker knows.
    pub fn lsn(&self) -> Lsn {
        *self.core.last.borrow()
    }
}

impl Core {
    /// Reads a part of an attachment, in whole blocks, and compares each with its checksum.
    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let failed = |reason: String| AttachedError::Failed { lsn, reason };
        self.ready().await.map_err(|error| failed(error.to_string()))?;
        let attached = lock(&self.state).attached.get(&lsn).cloned().ok_or(AttachedError::None(lsn))?;
        check_range(lsn, attached.bytes, &range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = range.start / BUCKET_BLOCK_BYTES;
        let start = first * BUCKET_BLOCK_BYTES;
        let end = (range.end.div_ceil(BUCKET_BLOCK_BYTES) * BUCKET_BLOCK_BYTES).min(attached.bytes);
        let key = self.names.entry(attached.number);
        let within = attached.offset + start..attached.offset + end;
        let place = || format!("{}, bytes {} to {}", self.store.url(&key), within.start, within.end);
        let damaged = || AttachedError::Damaged { lsn, place: place() };
        let blocks = match self.store.get(&key, Some(within.clone())).await {
            Ok(bytes) => bytes,
            // Released while it was read.
            Err(StoreError::NotFound(_)) if !lock(&self.state).attached.contains_key(&lsn) => {
                return Err(AttachedError::None(lsn));
            }
            Err(StoreError::Corrupt(_)) => return Err(damaged()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let mut sound = blocks.chunks(BUCKET_BLOCK_BYTES as usize).zip(first..);
        if !sound.all(|(block, index)| crc32c::crc32c(block) == attached.block(index))
            && !planted(Planted::Unsummed)
        {
            metrics::counter!("floe_meta_bucket_damaged_total").increment(1);
            return Err(damaged());
        }
        Ok(blocks.slice((range.start - start) as usize..(range.end - start) as usize))
    }
}

#[async_trait]
impl Journal for BucketJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.core.load(true).await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        Ok(self.commit_with(expected, attempt, commits, &[]).await?.outcome)
    }

    fn carries(&self) -> u64 {
        self.core.options.carries
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        self.core.commit(expected, attempt, commits, attachments).await
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        self.core.attached(lsn, range).await
    }

    fn released(&self, lsn: Lsn) {
        if lock(&self.core.state).release(lsn) {
            self.core.nudge.notify_one();
        }
    }

    fn attachments(&self) -> Vec<Lsn> {
        lock(&self.core.state).attached.keys().copied().collect()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.core.ready().await?;
        let mut last = self.core.last.subscribe();
        while *self.core.last.borrow() <= from {
            let due = self.core.next_poll();
            let heard = tokio::select! {
                biased;
                // The sender lives in the state, which this call holds.
                _ = last.wait_for(|last| *last > from) => true,
                () = tokio::time::sleep_until(due) => false,
            };
            if !heard {
                self.core.poll().await?;
            }
        }
        self.core.entries_after(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.core.ready().await?;
        self.core.entries_after(from, count.min(ENTRIES_MAX)).await
    }

    fn forget(&self, upto: Lsn) {
        if self.core.forget.fetch_max(upto.0, Ordering::SeqCst) < upto.0 {
            self.core.nudge.notify_one();
        }
    }

    /// Another broker commits as well: a lost race would upload the bytes again.
    fn crowded(&self) -> bool {
        let others = lock(&self.core.state).others;
        others.is_some_and(|seen| self.core.env.monotonic().duration_since(seen) < BUCKET_ALONE_AFTER)
    }

    /// There is always room in a bucket.
    fn pressed(&self) -> bool {
        false
    }

    fn stalled(&self) -> Option<Duration> {
        let since = *lock(&self.core.under_way);
        since.map(|since| self.core.env.monotonic().duration_since(since))
    }
}

impl Drop for BucketJournal {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl std::fmt::Debug for BucketJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketJournal").field("id", &self.core.journal).field("lsn", &self.lsn()).finish()
    }
}
