//! The journal in ring files: a group of commits and its bytes are one frame, which is synced once.
//!
//! ```text
//! ring/<number>                files of frames, written in place and used again          file.rs, frame.rs
//! image/<lsn>-<serial>         the map up to a commit; two of them                       pages.rs, store.rs
//! history/<first>-<last>       the commits that are kept, with their envelopes             pages.rs, store.rs
//! ```
//! One commit (commit.rs): the group is laid out behind the end of the log, written past the page cache, and synced.
//! Then its entries are kept in memory, its attachments are in the index, and its caller is answered.
//!
//! Beside commits (preparer.rs, keeper.rs), files are filled with zeros ahead of need. The first ones are small, and a
//! ring doubles as it fills; what it does not need for a while goes back to the file system. Now and then the entries
//! since the last image go into the history, and into the next image, which is the one before with what has changed. A
//! file is used again when the older of two images and the history have its commits, and no attachment in it is needed.
//!
//! Whole parts of the history go when their commits are kept elsewhere. An image says where the history begins, so that
//! a part that is lost is told from one that has gone.
//!
//! A start (open.rs, recovery.rs) reads the newest image and follows the frames behind it. It tells a torn end from
//! damage, and refuses damage.

pub(crate) mod build;
mod commit;
#[doc(hidden)]
pub mod crash;
#[cfg(test)]
mod crash_tests;
mod crowd;
mod error;
mod file;
mod frame;
pub(crate) mod inspect;
mod keeper;
mod open;
mod pages;
mod past;
mod planted;
mod preparer;
mod recovery;
mod room;
#[cfg(test)]
mod start_tests;
mod state;
mod store;
mod under_way;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{DISK_RESERVE_BYTES, Disk, DiskReserve, Env, FileLock, RealDisk, create_dir_durable, lock};

use crate::journal::{
    AttachedError, Attachment, Carried, Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome,
};
use crate::limits::{ENTRIES_BYTES_MAX, ENTRIES_MAX, RING_IDLE};

use self::state::Core;

pub use self::error::RingOpenError;
pub use self::state::RingOptions;

/// The journal in ring files. Dropping it writes the end mark and closes the files.
pub struct RingJournal {
    core: Arc<Core>,
    keeper: Option<SyncSender<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    file_lock: Option<FileLock>,
}

impl RingJournal {
    /// Opens the ring of a directory, and makes it if it is missing. It looks at nothing else in the directory:
    /// [`crate::open_journal`] does.
    ///
    /// # Errors
    /// See [`RingOpenError`].
    pub fn open(env: &Env, directory: &Path, options: RingOptions) -> Result<RingJournal, RingOpenError> {
        create_dir_durable(directory)?;
        let file_lock = match FileLock::take(&directory.join("journal.lock"))? {
            Ok(file_lock) => file_lock,
            Err(holder) => {
                return Err(RingOpenError::InUse { path: directory.display().to_string(), holder });
            }
        };
        RingJournal::open_locked(env, directory, file_lock, DISK_RESERVE_BYTES, true, options)
    }

    /// The same as [`RingJournal::open`], for who has taken the lock of the directory. `reserve_bytes` of the disk are
    /// kept for deletions. Without `carries` new commits bring no bytes.
    pub(crate) fn open_locked(
        env: &Env,
        directory: &Path,
        file_lock: FileLock,
        reserve_bytes: u64,
        carries: bool,
        options: RingOptions,
    ) -> Result<RingJournal, RingOpenError> {
        let reserve = DiskReserve::new(directory, reserve_bytes);
        // Opening writes. On a full disk it takes the ballast, so that a broker can start and topics be deleted.
        reserve.begin()?;
        let disk = RealDisk::new(directory, "the journal", reserve)?;
        let mut journal = RingJournal::open_carrying(env, Arc::new(disk), carries, options)?;
        journal.file_lock = Some(file_lock);
        journal.start()?;
        Ok(journal)
    }

    /// Opens the journal of a disk that nobody else uses. The work beside commits is done behind each of them, by its
    /// thread.
    ///
    /// # Errors
    /// See [`RingOpenError`].
    pub fn open_on(
        env: &Env,
        disk: Arc<dyn Disk>,
        options: RingOptions,
    ) -> Result<RingJournal, RingOpenError> {
        RingJournal::open_carrying(env, disk, true, options)
    }

    fn open_carrying(
        env: &Env,
        disk: Arc<dyn Disk>,
        carries: bool,
        options: RingOptions,
    ) -> Result<RingJournal, RingOpenError> {
        let core = Arc::new(open::open(env, disk, carries, options)?);
        Ok(RingJournal { core, keeper: None, thread: Mutex::default(), file_lock: None })
    }

    /// Gives the work beside commits a thread of its own.
    fn start(&mut self) -> Result<(), RingOpenError> {
        let (nudge, nudged) = sync_channel(1);
        let core = Arc::clone(&self.core);
        let thread = self.core.env.thread("floe-keeper", move || keep(&core, &nudged))?;
        self.keeper = Some(nudge);
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// The LSN of the last durable commit.
    pub fn lsn(&self) -> Lsn {
        *self.core.last.borrow()
    }

    /// Writes the mark that all commits before it are durable, as a journal without commits does after a while.
    pub fn rest(&self) {
        self.core.seal(false);
    }

    /// Does the work beside commits, or wakes the thread for it.
    fn keep(&self) {
        match &self.keeper {
            // A full queue wakes the keeper as well.
            Some(keeper) => drop(keeper.try_send(())),
            None => drop(self.core.keep()),
        }
    }
}

/// The thread for the work beside commits.
fn keep(core: &Core, nudged: &Receiver<()>) {
    let mut seen = *core.last.borrow();
    core.keep();
    loop {
        match nudged.recv_timeout(RING_IDLE) {
            Ok(()) => drop(core.keep()),
            Err(RecvTimeoutError::Timeout) => {
                let last = *core.last.borrow();
                if last == seen {
                    core.seal(false);
                }
                seen = last;
                core.keep();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[async_trait]
impl Journal for RingJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        let core = Arc::clone(&self.core);
        self.core.env.blocking(move || core.load()).await.map_err(JournalError::NotApplied)
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
        self.core.carries
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        // The write and its sync are the latency of the commit, so no other thread is asked to do them.
        let outcome = self.core.env.heavy(|| self.core.commit(expected, attempt, commits, attachments));
        if self.keeper.is_none() || self.core.has_work() {
            self.keep();
        }
        outcome
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let core = Arc::clone(&self.core);
        self.core.env.blocking(move || core.attached(lsn, &range)).await
    }

    fn released(&self, lsn: Lsn) {
        self.core.released(lsn);
    }

    fn attachments(&self) -> Vec<Lsn> {
        lock(&self.core.index).attachments.keys().copied().collect()
    }

    fn lost(&self) -> Vec<Lsn> {
        lock(&self.core.index).lost.keys().copied().collect()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let mut last = self.core.last.subscribe();
        // The sender lives in the state, which this call holds.
        let _ = last.wait_for(|last| *last > from).await;
        self.history(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let core = Arc::clone(&self.core);
        let read = move || core.entries_after(from, count.min(ENTRIES_MAX), ENTRIES_BYTES_MAX);
        self.core.env.blocking(read).await
    }

    fn forget(&self, upto: Lsn) {
        self.core.forget.fetch_max(upto.0, Ordering::SeqCst);
    }

    fn crowded(&self) -> bool {
        self.core.crowded()
    }

    fn pressed(&self) -> bool {
        self.core.pressed()
    }

    fn stalled(&self) -> Option<Duration> {
        self.core.under_way.time(&self.core.env)
    }

    fn only_deletions(&self) -> Option<String> {
        self.core.only_deletions()
    }
}

impl Drop for RingJournal {
    /// Waits for the thread, and marks the end of the log.
    fn drop(&mut self) {
        self.keeper = None;
        self.core.hurry.store(true, Ordering::Relaxed);
        if let Some(thread) = lock(&self.thread).take() {
            thread.join().expect("a panic of a thread ends the process");
        }
        // After a panic this process knows nothing for sure.
        if !std::thread::panicking() {
            self.core.seal(true);
        }
    }
}

impl std::fmt::Debug for RingJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingJournal").field("lsn", &self.lsn()).finish()
    }
}
