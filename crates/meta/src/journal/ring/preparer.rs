//! Makes files ready: new ones, filled with zeros, and used ones that nothing needs any more. A commit that finds none
//! ready does it itself, and does not wait for an image that is written at that time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use floe_env::lock;

use super::file::{FileHeader, RING, RingFile, prepare, write_header};
use super::planted::{Planted, planted};
use super::room::is_full;
use super::state::{Core, Preparer, Wanted};
use super::store::Unread;
use crate::journal::Lsn;
use crate::limits::{RING_FILL_PAUSE, RING_READY_FILES, RING_SPARE_FILES, RING_SPARE_TIME};

impl Preparer {
    /// Gives files back to the file system that nobody has needed for a while, or at once where the disk is short.
    pub(super) fn trim(&mut self, core: &Core) -> io::Result<()> {
        let mut idle = core.idle();
        if idle.len() <= RING_SPARE_FILES {
            self.spare_since = None;
            return Ok(());
        }
        // The large ones go.
        idle.sort_by_key(|file| file.header.capacity);
        let now = core.env.monotonic();
        let since = *self.spare_since.get_or_insert(now);
        if now.duration_since(since) < RING_SPARE_TIME && !core.is_short()? {
            return Ok(());
        }
        for file in &idle[RING_SPARE_FILES..] {
            remove(core, file)?;
        }
        core.disk.sync_dir(RING);
        Ok(())
    }

    /// Makes the files ready that a commit needs. Returns false if the ring is full.
    fn prepare_for(&mut self, core: &Core, wanted: Wanted, from_reserve: bool) -> io::Result<bool> {
        loop {
            let frame = {
                let ready = lock(&core.ready);
                if wanted.is_met(&ready) {
                    return Ok(true);
                }
                wanted.missing(&ready)
            };
            if !self.prepare(core, frame, from_reserve)? {
                return Ok(false);
            }
        }
    }

    /// Makes one more file ready, into which a frame of `frame` bytes fits: a used one that nothing needs, or a new
    /// one. That takes `from_reserve` what is kept for deletions if it must. Returns false if the ring is full.
    fn prepare(&mut self, core: &Core, frame: u64, from_reserve: bool) -> io::Result<bool> {
        let (journal, generation, nonce) = (core.journal, self.generation + 1, core.env.random_u64());
        let file = match self.take_reusable(core, frame) {
            Some(old) => {
                let header = FileHeader { journal, generation, nonce, capacity: old.header.capacity };
                // A crash leaves the old header or the new one, and the frames are those of the old use in any case.
                if let Err(error) = write_header(&*old.file, &header) {
                    give_up(core, &old, &error);
                    return Err(error);
                }
                old.file.sync();
                RingFile::new(old.number, header, Arc::clone(&old.file))
            }
            None => {
                self.make_place(core, frame)?;
                let all = core.file_bytes();
                let Some((should, least)) = core.options.next_file(all, core.bytes_max, frame) else {
                    return Ok(false);
                };
                let room = core.disk.room()?;
                let capacity = if room.holds(should) { should } else { least };
                let fits = room.holds(capacity) || (from_reserve && room.free >= capacity);
                if !fits {
                    return Err(room.full(capacity));
                }
                let early = planted(Planted::NamedTooEarly);
                let header = FileHeader { journal, generation, nonce, capacity };
                let file = prepare(&*core.disk, self.number + 1, header, early, &|| core.pause_filling())?;
                self.number += 1;
                file
            }
        };
        self.generation = generation;
        lock(&core.ready).push_back(Arc::new(file));
        Ok(true)
    }

    /// Removes files that are too small for a frame, if the ring is full and the next file then is large enough.
    fn make_place(&self, core: &Core, frame: u64) -> io::Result<()> {
        let may_grow = |all: u64| core.options.next_file(all, core.bytes_max, frame).is_some();
        let all = core.file_bytes();
        let idle = core.idle();
        let bytes: u64 = idle.iter().map(|file| file.header.capacity).sum();
        if may_grow(all) || !may_grow(all - bytes) {
            return Ok(());
        }
        for file in &idle {
            remove(core, file)?;
            if may_grow(core.file_bytes()) {
                break;
            }
        }
        core.disk.sync_dir(RING);
        Ok(())
    }

    /// Takes a file that may be used again, and into which a frame of `frame` bytes fits.
    fn take_reusable(&self, core: &Core, frame: u64) -> Option<Arc<RingFile>> {
        let file = core.idle().into_iter().find(|file| file.takes(frame))?;
        lock(&core.index).files.remove(&file.header.generation)
    }
}

impl Core {
    /// Makes files ready before commits need them.
    pub(super) fn prepare_ahead(&self) -> io::Result<()> {
        // A commit that waits for a file goes in between.
        while lock(&self.ready).len() < RING_READY_FILES && lock(&self.preparer).prepare(self, 0, false)? {}
        Ok(())
    }

    /// Makes the files ready for which a commit waits. Where the ring is full, or the disk, writes the images that hold
    /// back files without attachments. A commit without attachments takes what is kept for deletions if it must: images
    /// first, because they let files be used again, and then a new file. Returns false if the ring stays full.
    pub(super) fn make_ready(&self, wanted: Wanted) -> Result<bool, Unread> {
        self.hurry.store(true, Ordering::Relaxed);
        let made = self.try_ready(wanted);
        self.hurry.store(false, Ordering::Relaxed);
        made
    }

    fn try_ready(&self, wanted: Wanted) -> Result<bool, Unread> {
        let mut images = 0;
        loop {
            let prepared = lock(&self.preparer).prepare_for(self, wanted, false);
            if matches!(prepared, Ok(true)) {
                return Ok(true);
            }
            if images < 2 && self.has_news() {
                let written = lock(&self.keeper).write_image(self);
                if written.is_ok() || (is_full(&written) && !wanted.attached && self.give_up_reserve()) {
                    images += u32::from(written.is_ok());
                    continue;
                }
                if wanted.attached || !is_full(&written) {
                    written?;
                }
            }
            if wanted.attached {
                return Ok(prepared?);
            }
            let prepared = lock(&self.preparer).prepare_for(self, wanted, true);
            if !is_full(&prepared) || !self.give_up_reserve() {
                return Ok(prepared?);
            }
        }
    }

    /// Lets commits have the disk for a while, unless one of them waits for the file that is filled.
    fn pause_filling(&self) {
        let hurry = self.hurry.load(Ordering::Relaxed) || lock(&self.ready).is_empty();
        if !hurry && !self.env.is_simulated() {
            std::thread::park_timeout(RING_FILL_PAUSE);
        }
    }

    /// The files that nothing needs, in order of generation: both images and the history have their commits, a start
    /// from either image does not begin in them, their attachments are released, and nobody reads them.
    fn idle(&self) -> Vec<Arc<RingFile>> {
        let past = lock(&self.past);
        let mut images = past.images.iter().map(|image| image.header.position);
        let older = images.next().expect("a journal has an image from its first moment");
        let newer = images.next_back();
        let covered = if planted(Planted::ReusedTooEarly) { newer.unwrap_or(older) } else { older };
        let history = past.history.last().map_or(Lsn(0), |part| part.header.position.lsn);
        drop(past);
        let index = lock(&self.index);
        let idle = |file: &&Arc<RingFile>| {
            file.last() <= covered.lsn
                && (file.last() <= history || planted(Planted::NoHistory))
                && (file.live() == 0 || planted(Planted::ForgetsAttachments))
                && (Arc::strong_count(file) == 1 || planted(Planted::ForgetsAttachments))
        };
        index.files.range(..covered.generation).map(|(_, file)| file).filter(idle).cloned().collect()
    }

    /// Whether another image lets files be used again.
    fn has_news(&self) -> bool {
        let past = lock(&self.past);
        past.images.first().is_none_or(|older| older.header.position.lsn < past.end.lsn)
    }
}

/// Gives a file back to the file system.
fn remove(core: &Core, file: &RingFile) -> io::Result<()> {
    lock(&core.index).files.remove(&file.header.generation);
    core.disk.remove(&file.name())
}

/// Removes a file whose next header may be there or not, before another one gets its generation.
fn give_up(core: &Core, file: &RingFile, why: &io::Error) {
    if let Err(second) = core.disk.remove(&file.name()) {
        let reason = format!("{why}, and then {second}");
        core.disk.end_process("a file of the journal can neither be used nor removed", &reason);
    }
    core.disk.sync_dir(RING);
}
