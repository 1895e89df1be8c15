//! The one write of a ring: a group of commits with its bytes, synced once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use floe_env::{BlockBuffer, DISK_BLOCK, lock};

use super::file::{Position, RingFile};
use super::frame::{BLOCK, Draft, Header, Kind, block_of};
use super::planted::{Planted, planted};
use super::recovery::sum_of;
use super::room::is_full;
use super::state::{Core, Located, Tail, Wanted};
use crate::journal::{
    AttachedError, Attachment, Carried, Commit, Entry, JournalError, Lsn, Outcome, attachment,
};
use crate::limits::{RING_BUFFER_KEPT_BYTES, RING_ENTRIES_BYTES_MAX};

impl Core {
    /// Appends a group. The caller's thread does all of it.
    pub(super) fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        attachment::check(commits.len(), attachments, self.carries)?;
        let mut tail = lock(&self.tail);
        let last = tail.at.lsn;
        if expected > last {
            return Err(JournalError::NotApplied(format!("the journal ends at {last}, before {expected}")));
        }
        if expected < last {
            drop(tail);
            let missed = self.entries_after(expected, usize::MAX, usize::MAX)?;
            return Ok(Carried::of(Outcome::Conflict(missed)));
        }
        if commits.is_empty() {
            return Ok(Carried::of(Outcome::Committed(last)));
        }
        let _under_way = self.under_way.begin(&self.env);
        let not_applied = |error: &dyn std::fmt::Display| JournalError::NotApplied(error.to_string());
        let draft =
            Draft::of(commits, attachments, self.options.frame_bytes_max()).map_err(|e| not_applied(&e))?;
        self.make_room(&mut tail, draft.frame_bytes(), !attachments.is_empty())?;
        self.write(&mut tail, &draft, attempt, commits)
    }

    fn write(
        &self,
        tail: &mut Tail,
        draft: &Draft<'_>,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Carried, JournalError> {
        let Tail { file, at, buffer, .. } = &mut *tail;
        buffer.resize(draft.frame_bytes() as usize);
        let place = file.header.place(at.next);
        let header = draft
            .write(buffer.as_mut_slice(), place, attempt, at.link, at.lsn)
            .map_err(|error| JournalError::NotApplied(error.to_string()))?;
        let entries = entries(at.lsn, attempt, commits);
        if planted(Planted::ImageAhead) {
            self.publish(file, at, &header, draft, entries.clone());
            self.keep();
        }
        let mut written = file.file.write_at(buffer.as_slice(), place.offset);
        // A file system that copies what is written over takes room for it.
        if is_full(&written) && self.give_up_reserve() {
            written = file.file.write_at(buffer.as_slice(), place.offset);
        }
        if let Err(error) = written {
            self.make_void(tail, &error);
            return Err(JournalError::NotApplied(format!("the disk did not write: {error}")));
        }
        if !planted(Planted::AnswersBeforeSync) {
            file.file.sync();
        }
        let bytes = buffer.as_slice().len() as u64;
        if bytes as usize > RING_BUFFER_KEPT_BYTES {
            *buffer = BlockBuffer::default();
        }
        metrics::counter!("floe_meta_ring_bytes_total").increment(bytes);
        metrics::counter!("floe_meta_ring_syncs_total").increment(1);
        if !planted(Planted::ImageAhead) {
            self.publish(file, at, &header, draft, entries);
        }
        (tail.sealed, tail.seal_unsynced) = (false, false);
        Ok(Carried::of(Outcome::Committed(tail.at.lsn)))
    }

    /// The group is durable: moves the end of the log, and tells who follows.
    fn publish(
        &self,
        file: &Arc<RingFile>,
        at: &mut Position,
        header: &Header,
        draft: &Draft<'_>,
        entries: Vec<Arc<Entry>>,
    ) {
        *at = after(at, header);
        file.reaches(at.lsn);
        {
            // First, so that no image has the commits without their attachments.
            let mut index = lock(&self.index);
            for listed in draft.listed() {
                file.one_more();
                let located = Located {
                    file: Arc::clone(file),
                    offset: listed.range(header).start,
                    bytes: listed.bytes,
                    crc: listed.crc,
                    verified: AtomicBool::new(true),
                };
                index.attachments.insert(header.first.plus(listed.commit as usize), Arc::new(located));
            }
        }
        {
            let mut past = lock(&self.past);
            past.entries.extend(entries);
            past.meta_bytes += draft.meta_bytes();
            past.end = *at;
        }
        self.last.send_replace(at.lsn);
    }

    /// The log ends where a frame may be in part. Its commits will never be there.
    fn make_void(&self, tail: &mut Tail, why: &std::io::Error) {
        if planted(Planted::NoVoid) {
            return;
        }
        let place = tail.file.header.place(tail.at.next);
        let header = Header::empty(Kind::Void, place, self.env.random_u128(), tail.at.link, tail.at.lsn);
        if let Err(second) = write_block(&tail.file, &header, &mut tail.buffer) {
            let reason = format!("{why}, and then {second}");
            self.disk.end_process("a frame of the journal was not written and cannot be taken back", &reason);
        }
        tail.file.file.sync();
        tracing::warn!(%why, file = tail.file.name(), "the disk did not write a frame of the journal");
    }

    /// Makes sure that the frame fits where the log ends, in the next file if it must.
    fn make_room(&self, tail: &mut Tail, bytes: u64, attached: bool) -> Result<(), JournalError> {
        if lock(&self.past).meta_bytes > RING_ENTRIES_BYTES_MAX {
            return Err(JournalError::NotApplied(
                "the image of the metadata is behind: wait until the disk has written it".to_owned(),
            ));
        }
        if attached {
            self.hold_back(Wanted { frame: 0, attached })?;
        }
        while tail.at.next + bytes > tail.file.end() {
            self.hold_back(Wanted { frame: bytes, attached })?;
            if tail.at.next == BLOCK && !planted(Planted::PassedUnmarked) {
                self.pass(tail)?;
            }
            self.rotate(tail);
        }
        Ok(())
    }

    /// Marks a file without frames that is too small for the next one: a start looks no further than the next file.
    fn pass(&self, tail: &mut Tail) -> Result<(), JournalError> {
        let marked = self.put_seal(tail);
        marked.map_err(|error| JournalError::NotApplied(format!("the disk did not write: {error}")))
    }

    /// Goes on in the next file, which is ready.
    fn rotate(&self, tail: &mut Tail) {
        let next = lock(&self.ready).pop_front().expect("a file is ready");
        if tail.seal_unsynced && !planted(Planted::SealUnsynced) {
            // The next frame follows the seal, and would not be found without it.
            tail.file.file.sync();
        }
        tail.seal_unsynced = false;
        lock(&self.index).files.insert(next.header.generation, Arc::clone(&next));
        tail.at = Position { generation: next.header.generation, next: BLOCK, ..tail.at };
        tail.file = next;
    }

    /// Makes sure that the files are ready which a commit needs. The last one is for commits that free others.
    fn hold_back(&self, wanted: Wanted) -> Result<(), JournalError> {
        if wanted.is_met(&lock(&self.ready)) {
            return Ok(());
        }
        let ready = self.make_ready(wanted);
        match ready.map_err(|error| JournalError::NotApplied(format!("no room for the journal: {error}")))? {
            true => Ok(()),
            false => Err(JournalError::NotApplied(format!(
                "the journal is full: its files have {} of {} bytes, and hold data that is still needed there. Wait \
                 until it is merged, delete topics, or raise journal_bytes",
                self.file_bytes(),
                self.bytes_max
            ))),
        }
    }

    /// Whether there is work beside commits.
    pub(super) fn has_work(&self) -> bool {
        lock(&self.ready).len() < crate::limits::RING_READY_FILES
            || lock(&self.past).meta_bytes >= self.options.image_bytes
    }

    /// Writes the end mark, and syncs it if it is the end of this process.
    pub(super) fn seal(&self, synced: bool) {
        let mut tail = lock(&self.tail);
        let _under_way = self.under_way.begin(&self.env);
        let tail = &mut *tail;
        if !tail.sealed && tail.at.next + BLOCK <= tail.file.header.capacity && self.put_seal(tail).is_err() {
            return;
        }
        if synced && tail.seal_unsynced {
            tail.file.file.sync();
            tail.seal_unsynced = false;
        }
    }

    /// Writes a mark where the log ends. It is not synced.
    fn put_seal(&self, tail: &mut Tail) -> std::io::Result<()> {
        let place = tail.file.header.place(tail.at.next);
        let header = Header::empty(Kind::Seal, place, self.env.random_u128(), tail.at.link, tail.at.lsn);
        if let Err(error) = write_block(&tail.file, &header, &mut tail.buffer) {
            // It may be there all the same, and the next frame may go into another file.
            self.make_void(tail, &error);
            return Err(error);
        }
        // An image may not refer to it, because a power cut may take it away.
        tail.at = after(&tail.at, &header);
        (tail.sealed, tail.seal_unsynced) = (true, true);
        Ok(())
    }

    /// Reads a part of an attachment. The first read compares the whole with its checksum.
    pub(super) fn attached(&self, lsn: Lsn, range: &Range<u64>) -> Result<Bytes, AttachedError> {
        let located = {
            let index = lock(&self.index);
            match (index.attachments.get(&lsn), index.lost.get(&lsn)) {
                (Some(located), _) => Arc::clone(located),
                (None, Some(lost)) => {
                    let place =
                        format!("the file of the ring with generation {} is missing", lost.generation);
                    return Err(AttachedError::Damaged { lsn, place });
                }
                (None, None) => return Err(AttachedError::None(lsn)),
            }
        };
        attachment::check_range(lsn, u64::from(located.bytes), range)?;
        let failed = |error: std::io::Error| AttachedError::Failed { lsn, reason: error.to_string() };
        let file = &located.file;
        if !located.verified.load(Ordering::Acquire) {
            let end = located.offset + u64::from(located.bytes);
            if sum_of(&*file.file, located.offset, end).map_err(failed)? != located.crc {
                metrics::counter!("floe_meta_ring_damaged_total").increment(1);
                let place = format!("bytes {}..{end} of {}", located.offset, file.name());
                return Err(AttachedError::Damaged { lsn, place });
            }
            located.verified.store(true, Ordering::Release);
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (start, end) = (located.offset + range.start, located.offset + range.end);
        let from = start / DISK_BLOCK as u64 * DISK_BLOCK as u64;
        let mut blocks = BlockBuffer::zeroed((end.next_multiple_of(DISK_BLOCK as u64) - from) as usize);
        file.file.read_at(blocks.as_mut_slice(), from).map_err(failed)?;
        Ok(Bytes::copy_from_slice(&blocks.as_slice()[(start - from) as usize..(end - from) as usize]))
    }

    pub(super) fn released(&self, lsn: Lsn) {
        let mut index = lock(&self.index);
        index.lost.remove(&lsn);
        if let Some(located) = index.attachments.remove(&lsn) {
            located.file.one_less();
        }
    }
}

/// The position behind a frame that was written at `at`.
fn after(at: &Position, header: &Header) -> Position {
    Position {
        lsn: header.last(),
        generation: at.generation,
        frame: at.next,
        next: at.next + header.frame_bytes(),
        link: header.link(),
    }
}

fn entries(last: Lsn, attempt: u128, commits: &[Commit]) -> Vec<Arc<Entry>> {
    let numbered = commits.iter().enumerate();
    numbered
        .map(|(at, Commit { envelope, changes })| {
            let (envelope, changes) = (envelope.clone(), changes.clone());
            Arc::new(Entry { lsn: last.plus(at + 1), attempt, envelope, changes })
        })
        .collect()
}

/// Writes a frame without commits.
pub(super) fn write_block(file: &RingFile, header: &Header, buffer: &mut BlockBuffer) -> std::io::Result<()> {
    buffer.resize(DISK_BLOCK);
    buffer.as_mut_slice().copy_from_slice(&block_of(header));
    file.file.write_at(buffer.as_slice(), header.place.offset)
}
