//! The keeper thread, which keeps the files in shape beside the journal thread. It folds entries into the image,
//! copies the write-ahead log into its file, reads history, and lets go of entries that are kept elsewhere. It works in
//! bounded slices. Only those that delete entries may delay a commit, by a millisecond or two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::journal::seal::Fold;
use crate::journal::sqlite::base;
use crate::journal::sqlite::files::{
    KeeperFiles, abort_if_sync_failed, entries, entry_crc, pages, set_closed,
};
use crate::journal::sqlite::image::{read_image, write_image};
use crate::journal::sqlite::state::{JournalState, KeeperTask};
use crate::journal::{Entry, JournalError, Loaded, Lsn};
use crate::limits::{
    ENTRIES_BYTES_MAX, SQLITE_BACKLOG_BYTES_MAX, SQLITE_BACKLOG_ENTRIES_MAX, SQLITE_FREE_PAGES_KEPT,
    SQLITE_IDLE, SQLITE_LOG_PAGES_MAX, SQLITE_PAUSE_AFTER_BASE, SQLITE_PAUSE_AFTER_FAILURE, SQLITE_ROOM_LOOK,
    SQLITE_SLICE_BYTES, SQLITE_SLICE_ENTRIES, SQLITE_SLICE_PAGES,
};
use floe_env::Env;

pub(super) struct Keeper {
    reader: Connection,
    image: Connection,
    /// The journal's id.
    id: Vec<u8>,
    /// How far the image goes.
    folded: Fold,
    /// The last commit at the previous look. If it is still the last one, the journal is idle.
    seen: Lsn,
    /// The last commit that the keeper has seen copied out of the write-ahead log.
    copied: Option<Lsn>,
    /// The first entry that is kept.
    first: Lsn,
    /// The last commit in the base; 0 without one.
    based: Lsn,
    /// When a base may be made again after one could not be made.
    base_after: Option<Instant>,
    /// Whether the file may have pages to give back to the disk.
    has_free: bool,
    directory: PathBuf,
    /// When the next slice of work is due.
    due: Instant,
    env: Env,
    shared: Arc<JournalState>,
}

impl Keeper {
    pub(super) fn new(opened: KeeperFiles, directory: &Path, env: Env, shared: Arc<JournalState>) -> Keeper {
        let KeeperFiles { reader, image, id, folded, first, based } = opened;
        let due = env.monotonic();
        Keeper {
            reader,
            image,
            id,
            folded,
            seen: Lsn(0),
            copied: None,
            first,
            based,
            base_after: None,
            has_free: true,
            directory: directory.to_owned(),
            due,
            env,
            shared,
        }
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, tasks: &Receiver<KeeperTask>) {
        loop {
            let task = if self.is_asleep() {
                let task = or_else(tasks.recv_timeout(SQLITE_ROOM_LOOK), KeeperTask::LookAtRoom);
                self.due = self.env.monotonic() + SQLITE_IDLE;
                task
            } else {
                let left = self.due.saturating_duration_since(self.env.monotonic());
                or_else(tasks.recv_timeout(left), KeeperTask::Work)
            };
            match task {
                None => return self.close(),
                Some(KeeperTask::Work) => self.work(),
                Some(task) => self.serve(task),
            }
            // Frequent requests must not starve the work.
            if !self.is_done() && self.env.monotonic() >= self.due {
                self.work();
            }
        }
    }

    /// Leaves everything in the files: nothing in a write-ahead log, and an image that is up to date. A crash before
    /// the end of this costs nothing but that.
    fn close(&mut self) {
        let mut close = || -> Result<(), String> {
            while self.backlog() > 0 {
                let before = self.folded.lsn;
                self.fold()?;
                if self.folded.lsn == before {
                    return Err(format!("the entries after {before} cannot be found"));
                }
            }
            let end = || -> rusqlite::Result<()> {
                self.image.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                set_closed(&self.reader, true)
            };
            end().map_err(|error| {
                abort_if_sync_failed(&error);
                error.to_string()
            })
        };
        if let Err(reason) = close() {
            tracing::warn!(
                reason,
                "the metadata was not closed in order; the next start reads its write-ahead log"
            );
        }
    }

    /// Whether no work is left. From then on a commit must wake the keeper.
    fn is_asleep(&self) -> bool {
        if !self.is_done() {
            return false;
        }
        self.shared.nudged.store(false, Ordering::SeqCst);
        // A commit between the check and the store believed the keeper awake, so check again.
        self.is_done()
    }

    fn last(&self) -> Lsn {
        *self.shared.last.borrow()
    }

    fn is_done(&self) -> bool {
        self.folded.lsn == self.last() && self.copied == Some(self.last()) && !self.must_forget()
    }

    /// The last entry that may go: the last commit stays, and so does what the image lacks.
    fn forgettable(&self) -> Lsn {
        let told = self.shared.forget.load(Ordering::SeqCst);
        Lsn(told.min(self.last().0.saturating_sub(1)))
    }

    /// Whether there are entries to let go of now, or pages to give back.
    fn must_forget(&self) -> bool {
        let waits = self.base_after.is_some_and(|after| self.env.monotonic() < after);
        (self.forgettable() >= self.first && !waits) || self.has_free
    }

    fn serve(&mut self, task: KeeperTask) {
        // The caller may be gone.
        match task {
            KeeperTask::Nudge | KeeperTask::Work => {}
            // A commit says why the disk does not answer.
            KeeperTask::LookAtRoom => drop(self.shared.room()),
            KeeperTask::Load(answer) => drop(answer.send(self.load().map_err(JournalError::NotApplied))),
            KeeperTask::History { from, count, answer } => drop(answer.send(self.history(from, count))),
        }
    }

    fn load(&self) -> Result<Loaded, String> {
        let image = read_image(&self.image, self.folded.sum).map_err(|reason| {
            format!(
                "the image of the metadata is damaged: {reason}. It is made from the journal beside it: `floe check` \
                 says whether the journal is whole, and with --repair sets the image aside, so that the next start \
                 makes a new one"
            )
        })?;
        let entries = entries(&self.reader, self.folded.lsn, usize::MAX, usize::MAX)?.entries;
        Ok(Loaded { image, image_lsn: self.folded.lsn, entries })
    }

    fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let found =
            entries(&self.reader, from, count, ENTRIES_BYTES_MAX).map_err(JournalError::NotApplied)?;
        found.following(from)
    }

    /// Does one slice of the due work. While commits come, only what cannot wait; otherwise everything.
    fn work(&mut self) {
        let idle = self.seen == self.last();
        self.seen = self.last();
        let pause = self.work_slice(idle).unwrap_or_else(|reason| {
            tracing::warn!(reason, "cannot keep the journal's files in shape, trying again");
            SQLITE_PAUSE_AFTER_FAILURE
        });
        self.due = self.env.monotonic() + pause;
    }

    /// Returns how long to wait for the next slice.
    fn work_slice(&mut self, idle: bool) -> Result<Duration, String> {
        let began = self.env.monotonic();
        if let Err(error) = self.shared.reserve.tend() {
            tracing::warn!(%error, "cannot make the reserve for deletions, trying again");
        }
        if self.must_fold(idle) {
            self.fold()?;
        }
        self.forget()?;
        self.copy_log(idle)?;
        // Beside commits, the keeper works at most half of the time.
        let took = began.elapsed();
        Ok(if self.must_fold(idle) || self.must_forget() { took.min(SQLITE_IDLE) } else { SQLITE_IDLE })
    }

    fn must_fold(&self, idle: bool) -> bool {
        let bytes = self.shared.backlog_bytes.load(Ordering::SeqCst);
        let long = self.backlog() > SQLITE_BACKLOG_ENTRIES_MAX || bytes > SQLITE_BACKLOG_BYTES_MAX;
        long || (idle && self.backlog() > 0) || self.forgettable() >= self.first.max(self.folded.lsn)
    }

    fn backlog(&self) -> u64 {
        self.last().0.saturating_sub(self.folded.lsn.0)
    }

    /// Moves the image on by one slice of entries. This connection sees a commit a moment before the journal thread
    /// announces it. The slice ends at the last announced commit, so that the image is never ahead.
    fn fold(&mut self) -> Result<(), String> {
        let announced = usize::try_from(self.backlog()).unwrap_or(usize::MAX);
        let count = announced.min(SQLITE_SLICE_ENTRIES);
        let slice = entries(&self.reader, self.folded.lsn, count, SQLITE_SLICE_BYTES)?;
        let Some(last) = slice.entries.last().map(|entry| entry.lsn) else { return Ok(()) };
        let crc = entry_crc(&self.reader, last).map_err(|error| error.to_string())?;
        let mut changes = BTreeMap::new();
        for change in slice.entries.iter().flat_map(|entry| &entry.changes) {
            changes.insert(&change.key[..], change.value.as_deref());
        }
        let sum = self.folded.sum;
        let folded = write_image(&mut self.image, &self.id, &changes, Fold { lsn: last, entry: crc, sum });
        self.folded = folded.map_err(|error| {
            abort_if_sync_failed(&error);
            error.to_string()
        })?;
        self.shared.folded_bytes(slice.bytes as u64);
        metrics::counter!("floe_meta_folded_changes_total").increment(changes.len() as u64);
        metrics::gauge!("floe_meta_unfolded_entries").set(self.backlog() as f64);
        Ok(())
    }

    /// Lets go of one slice of entries that are kept elsewhere, or gives some of their pages back.
    fn forget(&mut self) -> Result<(), String> {
        let upto = self.forgettable();
        if upto < self.first {
            return self.give_back();
        }
        // The base is as new as it can be, because the next one is another copy of the whole image.
        if self.based <= upto && self.folded.lsn > upto && self.base_may_be_made() {
            self.write_base();
        }
        // The entry of the last commit in the base stays, which shows that the base is of this journal.
        let last =
            upto.0.min(self.based.0.saturating_sub(1)).min(self.first.0 + SQLITE_SLICE_ENTRIES as u64 - 1);
        if last < self.first.0 {
            return Ok(());
        }
        let deleted = self
            .reader
            .prepare_cached("DELETE FROM journal WHERE lsn <= ?1")
            .and_then(|mut delete| delete.execute([last.cast_signed()]));
        let deleted = deleted.map_err(|error| {
            abort_if_sync_failed(&error);
            error.to_string()
        })?;
        self.first = Lsn(last).next();
        self.has_free = true;
        metrics::counter!("floe_meta_forgotten_commits_total").increment(deleted as u64);
        Ok(())
    }

    fn base_may_be_made(&self) -> bool {
        self.base_after.is_none_or(|after| self.env.monotonic() >= after)
    }

    /// Makes the base anew. If that fails, entries stay, and it is tried again later.
    fn write_base(&mut self) {
        match base::write(&self.directory, &self.image, &self.id, self.folded) {
            Ok(()) => (self.based, self.base_after) = (self.folded.lsn, None),
            Err(reason) => {
                tracing::warn!(
                    reason,
                    "cannot copy the image of the metadata, the journal keeps its entries"
                );
                self.base_after = Some(self.env.monotonic() + SQLITE_PAUSE_AFTER_BASE);
            }
        }
    }

    /// Gives some pages of the file back to the disk, if it has more than the next commits will take.
    fn give_back(&mut self) -> Result<(), String> {
        if !self.has_free {
            return Ok(());
        }
        let give = || -> rusqlite::Result<bool> {
            let free = pages(&self.reader, "freelist_count")?;
            // A file of an earlier floe cannot be shortened while it is open.
            let whole = pages(&self.reader, "auto_vacuum")? == 0;
            if whole || free <= SQLITE_FREE_PAGES_KEPT {
                return Ok(false);
            }
            let some = (free - SQLITE_FREE_PAGES_KEPT).min(SQLITE_SLICE_PAGES);
            let mut statement = self.reader.prepare(&format!("PRAGMA incremental_vacuum({some})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(true)
        };
        self.has_free = give().map_err(|error| {
            abort_if_sync_failed(&error);
            error.to_string()
        })?;
        metrics::gauge!("floe_meta_journal_bytes")
            .set(pages(&self.reader, "page_count").map_err(|error| error.to_string())? as f64 * 4096.0);
        Ok(())
    }

    /// Copies the write-ahead log into the file when the log is long, or when the journal is idle.
    fn copy_log(&mut self, idle: bool) -> Result<(), String> {
        let last = self.last();
        let copy = || -> rusqlite::Result<(bool, bool)> {
            let pages = log_pages(&self.reader, "NOOP")?;
            metrics::gauge!("floe_meta_log_pages").set(pages.in_log as f64);
            if pages.in_log < SQLITE_LOG_PAGES_MAX && !idle {
                return Ok((false, false));
            }
            let pages = checkpoint(&self.reader)?;
            // The checkpoint reports the log as of its beginning. Commits may have lengthened it since.
            let now = log_pages(&self.reader, "NOOP")?;
            let behind = now.copied < now.in_log && now.in_log >= SQLITE_LOG_PAGES_MAX;
            Ok((pages.copied == pages.in_log, behind))
        };
        let (whole, behind) = copy().map_err(|error| {
            abort_if_sync_failed(&error);
            error.to_string()
        })?;
        if whole {
            self.copied = Some(last);
        }
        if behind {
            // SQLite syncs the file only with the last page, which the journal thread copies between two commits.
            // Syncing now leaves little for that sync, so the next commit does not wait long.
            floe_env::sync_data(&self.shared.database, "the metadata journal");
            self.shared.catch_up.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// The task that came, or this one if none came in time; none once every sender is gone.
fn or_else(received: Result<KeeperTask, RecvTimeoutError>, late: KeeperTask) -> Option<KeeperTask> {
    match received {
        Err(RecvTimeoutError::Timeout) => Some(late),
        received => received.ok(),
    }
}

/// Pages in the write-ahead log, and how many of them are copied into the file.
pub(super) struct LogPages {
    in_log: i64,
    copied: i64,
}

/// Copies as many pages as possible without making anybody wait.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<LogPages> {
    metrics::counter!("floe_meta_checkpoints_total").increment(1);
    log_pages(connection, "PASSIVE")
}

fn log_pages(connection: &Connection, mode: &str) -> rusqlite::Result<LogPages> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(LogPages { in_log: row.get(1)?, copied: row.get(2)? })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::mpsc::sync_channel;

    use floe_env::DiskReserve;
    use rusqlite::params;
    use tokio::sync::{oneshot, watch};

    use super::*;
    use crate::journal::entry::{encode_changes, encode_envelope};
    use crate::journal::seal;
    use crate::journal::sqlite::files;
    use crate::journal::sqlite::thread::{JournalThread, Order};
    use crate::journal::{Change, Envelope, Outcome};

    fn row(value: &str) -> (Vec<u8>, Vec<u8>) {
        let change = Change { key: "key".into(), value: Some(value.to_owned().into()) };
        (encode_envelope(&Envelope::broker("test")), encode_changes(&[change]))
    }

    fn keeper(directory: &Path) -> (Connection, Keeper) {
        let reserve = DiskReserve::new(directory, 0);
        let opened = files::open(directory, 1, reserve.room().unwrap()).unwrap();
        let shared = Arc::new(JournalState {
            last: watch::Sender::new(opened.last),
            backlog_bytes: AtomicU64::new(opened.backlog_bytes),
            nudged: AtomicBool::new(false),
            catch_up: AtomicBool::new(false),
            forget: AtomicU64::new(0),
            database: opened.database,
            reserve,
        });
        let keeper = Keeper::new(opened.keeper, directory, Env::real(), shared);
        (opened.writer, keeper)
    }

    /// Between COMMIT and its announcement, the keeper sees more than it may fold.
    #[test]
    fn the_image_ends_at_what_is_announced() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, mut keeper) = keeper(directory.path());
        for lsn in 1..=7 {
            let (envelope, changes) = row(&lsn.to_string());
            let crc = seal::of_entry(Lsn(lsn), 0, &envelope, &changes);
            let insert = "INSERT INTO journal VALUES(?1, zeroblob(16), ?2, ?3, ?4)";
            writer.execute(insert, params![lsn.cast_signed(), envelope, changes, crc]).unwrap();
        }
        for (announced, value) in [(0, None), (3, Some("3")), (3, Some("3")), (7, Some("7"))] {
            keeper.shared.last.send_replace(Lsn(announced));
            keeper.fold().unwrap();
            assert_eq!((keeper.folded.lsn, keeper.backlog()), (Lsn(announced), 0));
            let image = read_image(&keeper.image, keeper.folded.sum).unwrap();
            assert_eq!(image.first().map(|(_, found)| &found[..]), value.map(str::as_bytes));
        }
    }

    /// Commits come during every copy of the log, so each copy misses the end of the log.
    #[test]
    fn the_log_begins_anew_although_it_grows_while_it_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, mut keeper) = keeper(directory.path());
        let (nudges, _tasks) = sync_channel(1);
        let mut writer = JournalThread::new(connection, Lsn(0), Arc::clone(&keeper.shared), nudges);
        let mut expected = Lsn(0);
        let mut commit = || {
            let (answer, mut answered) = oneshot::channel();
            let (rows, attempt) = (vec![row(&"v".repeat(200 << 10))], expected.0.into());
            writer.serve(Order { expected, attempt, rows, answer });
            expected = expected.plus(1);
            assert_eq!(answered.try_recv().unwrap(), Ok(Outcome::Committed(expected)));
        };
        // A reader of the old log stops the copy at the same place as a commit in between would.
        let beside = Connection::open(directory.path().join(files::JOURNAL)).unwrap();
        for round in 0..5 {
            while log_pages(&keeper.reader, "NOOP").unwrap().in_log < SQLITE_LOG_PAGES_MAX {
                commit();
            }
            beside.execute_batch("BEGIN").unwrap();
            beside.query_row("SELECT count(*) FROM journal", [], |_| Ok(())).unwrap();
            commit();
            keeper.work_slice(false).unwrap();
            beside.execute_batch("COMMIT").unwrap();
            // The journal thread copies the rest after this commit, and begins the log anew with the next.
            commit();
            commit();
            let pages = log_pages(&keeper.reader, "NOOP").unwrap().in_log;
            assert!(pages < SQLITE_LOG_PAGES_MAX / 2, "{pages} pages in round {round}");
        }
    }
}
