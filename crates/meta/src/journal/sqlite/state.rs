//! The state that the handle and the two threads share, and the messages between them.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use floe_env::{DiskReserve, DiskRoom};
use tokio::sync::{oneshot, watch};

use crate::journal::{Entry, JournalError, Loaded, Lsn};

/// The state that the handle and the threads share.
pub(super) struct JournalState {
    /// The LSN of the last durable commit.
    pub(super) last: watch::Sender<Lsn>,
    /// Bytes of changes that are committed and not folded into the image.
    pub(super) backlog_bytes: AtomicU64,
    /// Whether the keeper knows that there is work.
    pub(super) nudged: AtomicBool,
    /// Whether the keeper left few enough pages of the log for the journal thread to copy in one short pause.
    pub(super) catch_up: AtomicBool,
    /// The last commit that is kept elsewhere, as far as anybody said.
    pub(super) forget: AtomicU64,
    /// The journal's file, to sync it ahead of SQLite. It must be closed after the connections: a process that
    /// closes a file loses its locks on it.
    pub(super) database: File,
    /// The part of the disk that only deletions may take.
    pub(super) reserve: DiskReserve,
}

impl JournalState {
    /// Subtracts folded bytes from the backlog. Bytes of a commit without an answer were never added to it.
    pub(super) fn folded_bytes(&self, bytes: u64) {
        let left = |backlog: u64| Some(backlog.saturating_sub(bytes));
        // The closure always returns a value, so the update cannot fail.
        let _ = self.backlog_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
    }

    /// The room of the disk now. The metrics get it, too.
    ///
    /// # Errors
    /// The file system does not answer.
    pub(super) fn room(&self) -> io::Result<DiskRoom> {
        let room = self.reserve.room()?;
        metrics::gauge!("floe_meta_disk_free_bytes").set(room.free as f64);
        metrics::gauge!("floe_meta_only_deletions").set(f64::from(room.only_deletions()));
        Ok(room)
    }

    /// Wakes the keeper unless it is awake.
    pub(super) fn nudge(&self, keeper: &SyncSender<KeeperTask>) {
        if !self.nudged.swap(true, Ordering::SeqCst) {
            // A full queue wakes the keeper as well.
            let _ = keeper.try_send(KeeperTask::Nudge);
        }
    }
}

/// Where a thread sends its answer. The caller may be gone.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum KeeperTask {
    Load(Reply<Loaded>),
    History {
        from: Lsn,
        count: usize,
        answer: Reply<Vec<Entry>>,
    },
    /// There are commits to fold and copy.
    Nudge,
    /// Others may have taken or freed room on the disk.
    LookAtRoom,
    /// A slice of work is due.
    Work,
}
