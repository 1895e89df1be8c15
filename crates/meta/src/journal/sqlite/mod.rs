//! The journal of a single process in SQLite files: the embedded default.
//!
//! ```text
//! <directory>/journal.sqlite   journal(lsn, attempt, envelope, changes, crc), until they are kept elsewhere
//!                              meta(name, value): format, id, closed
//! <directory>/image.sqlite     map(key, value, crc): the map folded up to an LSN
//!                              meta(name, value): format, id, fold
//! <directory>/base.sqlite      a copy of the image, made when entries are to leave the journal (base.rs)
//! <directory>/journal.lock     locked while a process has the files open
//! <directory>/reserve          room on the disk that is given up for deletions when the disk is full
//! ```
//! Every entry and every value has a checksum (journal/seal.rs). A journal that was closed in order has everything in
//! its file and says so (`closed`); of one that was not, the last commits may be in its write-ahead log alone, and
//! without that it is not opened.
//!
//! Two threads own them:
//!
//! - The *journal thread* (thread.rs) only commits. A commit is one transaction of plain inserts at the end of one
//!   table, synced with one `fdatasync` of a write-ahead log. The log was grown beforehand, so neither the file's
//!   length nor its extents change.
//! - The *keeper* (keeper.rs) does everything that may take time. It folds entries into the image in bounded
//!   slices, copies the write-ahead log into the file, and reads history.
//!
//! The image is a file of its own because it can be rebuilt from the journal, from the base on. No commit waits for a
//! sync of it, and losing it costs only the time of one start.
//!
//! Entries leave in slices, when somebody said that they are kept elsewhere and when the base has them. Their pages are
//! used again, and what is left over goes back to the disk.
//!
//! The rest of the folder: image.rs reads and writes the rows of an image, files.rs opens the files, inspect.rs judges
//! them without a start, source.rs reads all for a ring that takes their place, and state.rs holds what handle and
//! threads share.

mod base;
mod files;
mod image;
pub(crate) mod inspect;
mod keeper;
pub(crate) mod source;
mod state;
mod thread;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use crate::journal::entry::{encode_changes, encode_envelope};
pub use crate::journal::sqlite::files::SqliteOpenError;
use crate::journal::sqlite::state::{JournalState, KeeperTask, Reply};
use crate::journal::{Commit, Entry, Journal, JournalError, Loaded, Lsn, Outcome};
use crate::limits::{ENTRIES_MAX, SQLITE_ORDERS_MAX};
use floe_env::{DISK_RESERVE_BYTES, DiskReserve, FileLock, create_dir_durable, sync_dir};
use floe_env::{Env, lock};

/// A journal in SQLite files. Dropping it waits for its threads and closes the files.
pub struct SqliteJournal {
    shared: Arc<JournalState>,
    thread: Option<SyncSender<thread::Order>>,
    keeper: Option<SyncSender<KeeperTask>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: FileLock,
}

impl SqliteJournal {
    /// Opens the journal of a directory with the default reserve on its disk, see [`SqliteJournal::open_with`].
    ///
    /// # Errors
    /// See [`SqliteOpenError`].
    pub fn open(env: &Env, directory: &Path) -> Result<SqliteJournal, SqliteOpenError> {
        SqliteJournal::open_with(env, directory, DISK_RESERVE_BYTES)
    }

    /// Opens the journal of a directory and starts its threads. Creates the directory and the files if they are
    /// missing. Keeps `reserve_bytes` of the disk for deletions.
    ///
    /// # Errors
    /// See [`SqliteOpenError`].
    pub fn open_with(
        env: &Env,
        directory: &Path,
        reserve_bytes: u64,
    ) -> Result<SqliteJournal, SqliteOpenError> {
        let failed = |source| SqliteOpenError::Io { path: directory.to_owned(), source };
        create_dir_durable(directory).map_err(failed)?;
        let file_lock = match FileLock::take(&directory.join("journal.lock")).map_err(failed)? {
            Ok(file_lock) => file_lock,
            Err(holder) => return Err(SqliteOpenError::InUse { path: directory.to_owned(), holder }),
        };
        let reserve = DiskReserve::new(directory, reserve_bytes);
        // Opening writes. On a full disk it takes the ballast, so that a broker can start and topics be deleted.
        let room = reserve.begin().map_err(failed)?;
        let opened = files::open(directory, env.random_u128(), room)?;
        sync_dir(directory).map_err(failed)?;
        let shared = Arc::new(JournalState {
            last: watch::Sender::new(opened.last),
            backlog_bytes: AtomicU64::new(opened.backlog_bytes),
            nudged: AtomicBool::new(false),
            catch_up: AtomicBool::new(false),
            forget: AtomicU64::new(0),
            database: opened.database,
            reserve,
        });
        let (orders_in, orders) = sync_channel(SQLITE_ORDERS_MAX);
        let (keeper, tasks) = sync_channel(SQLITE_ORDERS_MAX);
        let write = thread::JournalThread::new(opened.writer, opened.last, shared.clone(), keeper.clone());
        let keep = keeper::Keeper::new(opened.keeper, directory, env.clone(), shared.clone());
        let mut threads = vec![env.thread("floe-keeper", move || keep.run(&tasks)).map_err(failed)?];
        threads.push(env.thread("floe-journal", move || write.run(&orders)).map_err(failed)?);
        Ok(SqliteJournal {
            shared,
            thread: Some(orders_in),
            keeper: Some(keeper),
            threads: Mutex::new(threads),
            _lock: file_lock,
        })
    }

    /// The LSN of the last durable commit.
    pub fn lsn(&self) -> Lsn {
        *self.shared.last.borrow()
    }

    async fn ask<T>(&self, task: impl FnOnce(Reply<T>) -> KeeperTask) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        send(self.keeper.as_ref(), task(answer))?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.ask(KeeperTask::Load).await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let rows =
            commits.iter().map(|c| (encode_envelope(&c.envelope), encode_changes(&c.changes))).collect();
        let (answer, answered) = oneshot::channel();
        send(self.thread.as_ref(), thread::Order { expected, attempt, rows, answer })?;
        answered
            .await
            .unwrap_or_else(|_| Err(JournalError::Unknown("the journal's thread has ended".to_owned())))
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let mut last = self.shared.last.subscribe();
        // The sender lives in the state, which this call holds.
        let _ = last.wait_for(|last| *last > from).await;
        self.history(from, ENTRIES_MAX).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.ask(|answer| KeeperTask::History { from, count: count.min(ENTRIES_MAX), answer }).await
    }

    fn forget(&self, upto: Lsn) {
        if self.shared.forget.fetch_max(upto.0, Ordering::SeqCst) < upto.0
            && let Some(keeper) = &self.keeper
        {
            self.shared.nudge(keeper);
        }
    }

    fn only_deletions(&self) -> Option<String> {
        match self.shared.room() {
            Ok(room) => room.only_deletions().then(|| {
                format!(
                    "the disk of the metadata is nearly full, the last {} bytes are kept for deletions: delete topics \
                     or free some space",
                    room.free
                )
            }),
            Err(error) => {
                // The commit itself finds out whether the disk takes it.
                tracing::warn!(%error, "cannot tell how full the disk of the metadata is");
                None
            }
        }
    }
}

fn send<T>(thread: Option<&SyncSender<T>>, order: T) -> Result<(), JournalError> {
    let thread = thread.expect("the senders are taken only by drop");
    thread.try_send(order).map_err(|error| match error {
        TrySendError::Full(_) => JournalError::NotApplied(format!(
            "{SQLITE_ORDERS_MAX} orders are waiting for the journal already"
        )),
        TrySendError::Disconnected(_) => ended(),
    })
}

fn ended() -> JournalError {
    JournalError::NotApplied("the journal's thread has ended".to_owned())
}

impl Drop for SqliteJournal {
    /// Waits for the threads, so that the files are closed when somebody opens them next.
    fn drop(&mut self) {
        self.thread = None;
        self.keeper = None;
        for thread in lock(&self.threads).drain(..).rev() {
            thread.join().expect("a panic of a thread ends the process");
        }
    }
}

impl std::fmt::Debug for SqliteJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteJournal").field("lsn", &self.lsn()).finish()
    }
}
