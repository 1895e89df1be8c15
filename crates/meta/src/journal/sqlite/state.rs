//! What the handle and the two threads share, and how they speak to each other.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use tokio::sync::{oneshot, watch};

use crate::journal::{Entry, JournalError, Loaded, Lsn};

/// What the handle and the threads share.
pub(super) struct JournalState {
    /// The last durable commit.
    pub(super) last: watch::Sender<Lsn>,
    /// Bytes of changes that are committed and not folded into the image.
    pub(super) backlog_bytes: AtomicU64,
    /// The keeper knows that there is work.
    pub(super) nudged: AtomicBool,
    /// The keeper left the writer few enough pages of the log to copy in one short pause.
    pub(super) catch_up: AtomicBool,
    /// The file of the journal, to sync it ahead of SQLite. Closed after the connections: a process that closes a file
    /// loses its locks on it.
    pub(super) database: File,
}

impl JournalState {
    /// Takes folded bytes off the backlog. What was committed without an answer was never added to it.
    pub(super) fn folded_bytes(&self, bytes: u64) {
        let left = |backlog: u64| Some(backlog.saturating_sub(bytes));
        // The function never refuses.
        let _ = self.backlog_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
    }

    /// Wakes the keeper unless it is awake.
    pub(super) fn nudge(&self, keeper: &SyncSender<KeeperTask>) {
        if !self.nudged.swap(true, Ordering::SeqCst) {
            // A full queue wakes it as well.
            let _ = keeper.try_send(KeeperTask::Nudge);
        }
    }
}

/// Where a thread answers; whoever asked may be gone.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum KeeperTask {
    Load(Reply<Loaded>),
    History {
        from: Lsn,
        count: usize,
        answer: Reply<Vec<Entry>>,
    },
    /// There are commits to look after.
    Nudge,
    /// It is time for a slice of work.
    Work,
}
