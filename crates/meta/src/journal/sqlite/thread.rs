//! The journal thread, which only commits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use rusqlite::{Connection, params};

use crate::journal::seal;
use crate::journal::sqlite::files::{abort_if_sync_failed, entries, is_full, is_write_failure, last_lsn};
use crate::journal::sqlite::keeper::checkpoint;
use crate::journal::sqlite::state::{JournalState, KeeperTask, Reply};
use crate::journal::{JournalError, Lsn, Outcome};

/// A group to commit. Each row is an encoded envelope and its encoded changes.
pub(super) struct Order {
    pub(super) expected: Lsn,
    pub(super) attempt: u128,
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) answer: Reply<Outcome>,
}

pub(super) struct JournalThread {
    connection: Connection,
    /// The last durable commit; `None` while the file must be asked.
    last: Option<Lsn>,
    /// Whether the last commit found the disk full.
    is_full: bool,
    shared: Arc<JournalState>,
    keeper: SyncSender<KeeperTask>,
}

impl JournalThread {
    pub(super) fn new(
        connection: Connection,
        last: Lsn,
        shared: Arc<JournalState>,
        keeper: SyncSender<KeeperTask>,
    ) -> JournalThread {
        JournalThread { connection, last: Some(last), is_full: false, shared, keeper }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        // The first commit after a start also makes the keeper tidy up the leftovers.
        self.shared.nudge(&self.keeper);
        while let Ok(order) = orders.recv() {
            self.serve(order);
        }
    }

    pub(super) fn serve(&mut self, order: Order) {
        let Order { expected, attempt, rows, answer } = order;
        let mut outcome = self.commit(expected, attempt, &rows);
        if matches!(outcome, Err(JournalError::NotApplied(_))) && self.is_full && self.give_up_ballast() {
            outcome = self.commit(expected, attempt, &rows);
        }
        if let Ok(Outcome::Committed(last)) = &outcome {
            let bytes: usize = rows.iter().map(|(_, changes)| changes.len()).sum();
            self.shared.backlog_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
            self.shared.last.send_replace(*last);
        }
        // The caller may be gone; the commit stands.
        let _ = answer.send(outcome);
        self.shared.nudge(&self.keeper);
        self.catch_up();
    }

    /// Makes room for a commit that found none. The committer lets only deletions come this far.
    fn give_up_ballast(&self) -> bool {
        self.shared.reserve.give_up_ballast().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot give the reserve for deletions up");
            false
        })
    }

    fn commit(
        &mut self,
        expected: Lsn,
        attempt: u128,
        rows: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Outcome, JournalError> {
        self.is_full = false;
        let last = self.find_last()?;
        if expected > last {
            return Err(JournalError::NotApplied(format!("the journal ends at {last}, before {expected}")));
        }
        if expected < last {
            let missed = entries(&self.connection, expected, usize::MAX, usize::MAX);
            return missed.map_err(JournalError::NotApplied)?.following(expected).map(Outcome::Conflict);
        }
        if let Err(error) = insert(&self.connection, last, attempt, rows) {
            return Err(self.roll_back(&error, JournalError::NotApplied));
        }
        if let Err(error) = self.connection.execute_batch("COMMIT") {
            let sure = is_write_failure(&error);
            return Err(
                self.roll_back(&error, if sure { JournalError::NotApplied } else { JournalError::Unknown })
            );
        }
        let last = last.plus(rows.len());
        self.last = Some(last);
        Ok(Outcome::Committed(last))
    }

    fn find_last(&mut self) -> Result<Lsn, JournalError> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        let last = last_lsn(&self.connection).map_err(|error| JournalError::NotApplied(error.to_string()))?;
        self.last = Some(last);
        self.shared.last.send_replace(last);
        Ok(last)
    }

    /// Ends a failed transaction. The next commit reads the last LSN from the file again.
    fn roll_back(&mut self, error: &rusqlite::Error, outcome: fn(String) -> JournalError) -> JournalError {
        abort_if_sync_failed(error);
        self.last = None;
        self.is_full = is_full(error);
        if !self.connection.is_autocommit()
            && let Err(second) = self.connection.execute_batch("ROLLBACK")
        {
            abort_if_sync_failed(&second);
            return JournalError::Unknown(format!("{error}, and the rollback failed: {second}"));
        }
        outcome(error.to_string())
    }

    /// Copies the last pages of the log, which the keeper could not reach while commits came. The next commit then
    /// begins the log anew instead of growing it.
    fn catch_up(&self) {
        if !self.shared.catch_up.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = checkpoint(&self.connection) {
            abort_if_sync_failed(&error);
            tracing::warn!(%error, "cannot copy the journal's log into its file yet");
        }
    }
}

fn insert(
    connection: &Connection,
    last: Lsn,
    attempt: u128,
    rows: &[(Vec<u8>, Vec<u8>)],
) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut statement = connection.prepare_cached("INSERT INTO journal VALUES(?1, ?2, ?3, ?4, ?5)")?;
    for (i, (envelope, changes)) in rows.iter().enumerate() {
        let lsn = last.plus(i + 1);
        let crc = seal::of_entry(lsn, attempt, envelope, changes);
        statement.execute(params![lsn.0.cast_signed(), attempt.to_be_bytes(), envelope, changes, crc])?;
    }
    Ok(())
}
