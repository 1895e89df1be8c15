//! The work beside commits: files are prepared ahead, images and the history are written, and files are used again.
//!
//! In a process it has a thread. In a simulation it is done behind each commit.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use floe_env::lock;

use super::file::{FileHeader, Position, RING, RingFile, prepare, write_header};
use super::pages::{Kept, Page, PagesHeader, PagesKind, pair_of_entry};
use super::planted::{Planted, planted};
use super::room::is_full;
use super::state::{Core, Index, Keeper, Wanted};
use super::store::{PagesFile, PagesName, PagesSink, Unread, WRITING};
use crate::journal::{Entry, Lsn};
use crate::limits::{
    RING_ENTRIES_BYTES_MAX, RING_READY_FILES, RING_SLICE_ATTACHMENTS, RING_SPARE_FILES, RING_SPARE_TIME,
    RING_STEP_BYTES, RING_STEP_PAUSE, RING_WAITING_FILES, RING_WAITING_RATIO,
};

/// The directory of the images.
pub(super) const IMAGES: &str = "image";
/// The directory of the history.
pub(super) const HISTORY: &str = "history";

impl Core {
    /// Does what is due. A failure leaves everything as it was, and the next call tries again.
    pub(super) fn keep(&self) -> bool {
        let kept = lock(&self.keeper).keep(self);
        if let Err(error) = &kept {
            metrics::counter!("floe_meta_ring_keeper_failures_total").increment(1);
            tracing::warn!(%error, "the work beside the journal failed, trying again later");
        }
        kept.is_ok()
    }
}

impl Keeper {
    fn keep(&mut self, core: &Core) -> Result<(), Unread> {
        if let Err(error) = core.disk.tend_reserve() {
            tracing::warn!(%error, "cannot make the reserve for deletions, trying again");
        }
        core.room()?;
        let prepared = self.prepare_ahead(core);
        if self.image_is_due(core) {
            let written = self.write_image(core);
            // Without images, commits would be refused in the end.
            let urgent = lock(&core.past).meta_bytes > RING_ENTRIES_BYTES_MAX / 2;
            match full(&written) && urgent && core.give_up_reserve() {
                true => self.write_image(core)?,
                false => written?,
            }
        }
        self.trim(core)?;
        self.report(core);
        // On a full disk there are no new files, and images go on.
        Ok(prepared?)
    }

    fn prepare_ahead(&mut self, core: &Core) -> io::Result<()> {
        while lock(&core.ready).len() < RING_READY_FILES && self.prepare(core, 0, false)? {}
        Ok(())
    }

    /// Gives files back to the file system that nobody has needed for a while.
    fn trim(&mut self, core: &Core) -> io::Result<()> {
        let mut idle = self.idle(core);
        if idle.len() <= RING_SPARE_FILES {
            self.spare_since = None;
            return Ok(());
        }
        // The large ones go.
        idle.sort_by_key(|file| file.header.capacity);
        let now = core.env.monotonic();
        if now.duration_since(*self.spare_since.get_or_insert(now)) < RING_SPARE_TIME {
            return Ok(());
        }
        for file in &idle[RING_SPARE_FILES..] {
            remove(core, file)?;
        }
        core.disk.sync_dir(RING);
        Ok(())
    }

    /// An image is due for the time of the next start, for safety, or because it lets files be used again: that is less
    /// work than new files are.
    fn image_is_due(&self, core: &Core) -> bool {
        let (meta_bytes, images, end, newest, image_bytes) = {
            let past = lock(&core.past);
            let newest = past.images.last().expect("a journal has an image from its first moment");
            (past.meta_bytes, past.images.len(), past.end, newest.header.position, newest.bytes())
        };
        // With one image only, the next damage would be the end.
        if meta_bytes >= core.options.image_bytes || (images < 2 && newest.lsn < end.lsn) {
            return true;
        }
        let index = lock(&core.index);
        let waits = |file: &&Arc<RingFile>| file.live() == 0 && file.last() > newest.lsn;
        let files = index.files.range(..end.generation).map(|(_, file)| file).filter(waits);
        let (files, bytes) =
            files.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.header.capacity));
        files >= RING_WAITING_FILES && bytes >= RING_WAITING_RATIO * image_bytes
    }

    fn has_news(&self, core: &Core) -> bool {
        let past = lock(&core.past);
        past.images.first().is_none_or(|older| older.header.position.lsn < past.end.lsn)
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
                if !room.holds(capacity) && !(from_reserve && room.free >= capacity) {
                    return Err(room.full(capacity));
                }
                let early = planted(Planted::NamedTooEarly);
                let header = FileHeader { journal, generation, nonce, capacity };
                let file = prepare(&*core.disk, self.number + 1, header, RING_STEP_BYTES, early)?;
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
        let idle = self.idle(core);
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

    /// Makes the files ready for which a commit waits. Where the ring is full, or the disk, writes the images that hold
    /// back files without attachments. A commit without attachments takes what is kept for deletions if it must.
    /// Returns false if the ring stays full.
    pub(super) fn make_ready(&mut self, core: &Core, wanted: Wanted) -> Result<bool, Unread> {
        loop {
            let made = self.try_ready(core, wanted);
            if wanted.attached || !full(&made) || !core.give_up_reserve() {
                return made;
            }
        }
    }

    fn try_ready(&mut self, core: &Core, wanted: Wanted) -> Result<bool, Unread> {
        let mut images = 0;
        loop {
            let frame = {
                let ready = lock(&core.ready);
                if wanted.is_met(&ready) {
                    return Ok(true);
                }
                wanted.missing(&ready)
            };
            let prepared = self.prepare(core, frame, !wanted.attached);
            if let Ok(true) = prepared {
                continue;
            }
            if images == 2 || !self.has_news(core) {
                return Ok(prepared?);
            }
            self.write_image(core)?;
            images += 1;
        }
    }

    /// The files that nothing needs, in order of generation: both images and the history have their commits, a start
    /// from either image does not begin in them, their attachments are released, and nobody reads them.
    fn idle(&self, core: &Core) -> Vec<Arc<RingFile>> {
        let past = lock(&core.past);
        let mut images = past.images.iter().map(|image| image.header.position);
        let older = images.next().expect("a journal has an image from its first moment");
        let newer = images.next_back();
        let covered = if planted(Planted::ReusedTooEarly) { newer.unwrap_or(older) } else { older };
        let history = past.history.last().map_or(Lsn(0), |part| part.header.position.lsn);
        drop(past);
        let index = lock(&core.index);
        let idle = |file: &&Arc<RingFile>| {
            file.last() <= covered.lsn
                && (file.last() <= history || planted(Planted::NoHistory))
                && (file.live() == 0 || planted(Planted::ForgetsAttachments))
                && (Arc::strong_count(file) == 1 || planted(Planted::ForgetsAttachments))
        };
        index.files.range(..covered.generation).map(|(_, file)| file).filter(idle).cloned().collect()
    }

    /// Takes a file that may be used again, and into which a frame of `frame` bytes fits.
    fn take_reusable(&self, core: &Core, frame: u64) -> Option<Arc<RingFile>> {
        let file = self.idle(core).into_iter().find(|file| file.takes(frame))?;
        lock(&core.index).files.remove(&file.header.generation)
    }

    /// Writes what is new into the history and into an image. What a failure leaves of them goes.
    fn write_image(&mut self, core: &Core) -> Result<(), Unread> {
        let written = self.write_both(core);
        if written.is_err() {
            for directory in [HISTORY, IMAGES] {
                if core.disk.list(directory)?.iter().any(|name| name == WRITING) {
                    core.disk.remove(&format!("{directory}/{WRITING}"))?;
                }
            }
        }
        written
    }

    /// Entries leave memory when history and image are durable and were read back.
    fn write_both(&mut self, core: &Core) -> Result<(), Unread> {
        let (newest, last, entries, end, meta_bytes) = {
            let past = lock(&core.past);
            let newest = past.images.last().cloned().expect("a journal has an image from its first moment");
            (newest, past.history.last().cloned(), past.entries.clone(), past.end, past.meta_bytes)
        };
        let entries: Vec<Arc<Entry>> = entries.into();
        let pause = || pause(core);
        if !planted(Planted::NoHistory) {
            self.write_history(core, last, &entries, end, &pause)?;
        }
        self.images += 1;
        let first = first_kept(core).max(newest.header.first);
        let image = write_merged(core, &newest, (&entries, end, first), (self.images, &pause))?;
        let old = {
            let mut past = lock(&core.past);
            past.entries.drain(..entries.len());
            past.meta_bytes -= meta_bytes;
            past.images.push(image);
            let keep = past.images.len().saturating_sub(2);
            past.images.drain(..keep).collect::<Vec<_>>()
        };
        for image in old {
            core.disk.remove(&image.name)?;
        }
        forget_parts(core)
    }

    /// Writes the entries that the history lacks. A small part is written again with them, so that there are few.
    fn write_history(
        &self,
        core: &Core,
        last: Option<PagesName>,
        entries: &[Arc<Entry>],
        end: Position,
        pause: &dyn Fn(),
    ) -> Result<(), Unread> {
        let upto = last.as_ref().map_or(Lsn(0), |last| last.header.position.lsn);
        let entries: Vec<&Arc<Entry>> = entries.iter().filter(|entry| entry.lsn > upto).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let joined = last.filter(|last| last.bytes < core.options.history_bytes);
        let first = joined.as_ref().map_or(upto.next(), |joined| joined.header.first);
        let header = PagesHeader { kind: PagesKind::History, journal: core.journal, first, position: end };
        let name = format!("{:016x}-{:016x}", first.0, end.lsn.0);
        let mut sink = PagesSink::begin(&*core.disk, HISTORY, &name, &header, pause)?;
        if let Some(joined) = &joined {
            let joined = joined.open(&*core.disk)?;
            let mut pages = joined.pages();
            while let Some(page) = pages.next()? {
                let Page::Pairs(pairs) = page else { continue };
                for (key, value) in pairs {
                    sink.writer()?.pair(&key, &value);
                }
            }
        }
        for entry in entries {
            let (key, value) = pair_of_entry(entry);
            sink.writer()?.pair(&key, &value);
        }
        let written = sink.finish(planted(Planted::NamedTooEarly))?;
        let mut past = lock(&core.past);
        if joined.is_some() {
            past.history.pop();
        }
        past.history.push(written.closed());
        drop(past);
        joined.map_or(Ok(()), |joined| Ok(core.disk.remove(&joined.name)?))
    }

    fn report(&self, core: &Core) {
        let files = lock(&core.index).files.len() + lock(&core.ready).len();
        metrics::gauge!("floe_meta_ring_files").set(files as f64);
        metrics::gauge!("floe_meta_ring_file_bytes").set(core.file_bytes() as f64);
        metrics::gauge!("floe_meta_ring_attachments").set(lock(&core.index).attachments.len() as f64);
    }
}

/// Whether the disk was full.
fn full<T>(done: &Result<T, Unread>) -> bool {
    matches!(done, Err(Unread::Io(error)) if is_full(error))
}

/// The first commit that the history needs to have: parts of which all are kept elsewhere may go, but not the last
/// part.
fn first_kept(core: &Core) -> Lsn {
    let told = Lsn(core.forget.load(Ordering::SeqCst));
    let past = lock(&core.past);
    let stays = |part: &&PagesName| part.header.position.lsn > told;
    let kept = past.history.iter().find(stays).or(past.history.last());
    kept.map_or(Lsn(1), |part| part.header.first)
}

/// Removes the parts of the history that neither image needs.
fn forget_parts(core: &Core) -> Result<(), Unread> {
    let gone: Vec<PagesName> = {
        let mut past = lock(&core.past);
        let first = past.images.iter().map(|image| image.header.first).min().unwrap_or(Lsn(1));
        let stays = past.history.iter().position(|part| part.header.first >= first).unwrap_or(0);
        past.history.drain(..stays).collect()
    };
    for part in gone {
        let commits = part.header.position.lsn.0 + 1 - part.header.first.0;
        metrics::counter!("floe_meta_forgotten_commits_total").increment(commits);
        core.disk.remove(&part.name)?;
    }
    Ok(())
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

/// Lets commits have the disk for a while.
fn pause(core: &Core) {
    if !core.env.is_simulated() {
        std::thread::park_timeout(RING_STEP_PAUSE);
    }
}

/// Writes the next image: the newest one with the entries since then.
fn write_merged(
    core: &Core,
    newest: &PagesFile,
    (entries, end, first): (&[Arc<Entry>], Position, Lsn),
    (serial, pause): (u64, &dyn Fn()),
) -> Result<PagesFile, Unread> {
    let from = newest.header.position.lsn;
    let mut changed: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for change in entries.iter().filter(|entry| entry.lsn > from).flat_map(|entry| &entry.changes) {
        changed.insert(change.key.clone(), change.value.clone());
    }
    let header = PagesHeader { kind: PagesKind::Image, journal: core.journal, first, position: end };
    let mut sink = PagesSink::begin(&*core.disk, IMAGES, &image_name(end.lsn, serial), &header, pause)?;
    let mut changed = changed.into_iter().peekable();
    let mut pages = newest.pages();
    while let Some(page) = pages.next()? {
        let Page::Pairs(pairs) = page else { continue };
        for (key, value) in pairs {
            while let Some((new, value)) = changed.next_if(|(new, _)| *new < key) {
                put(&mut sink, &new, value.as_ref())?;
            }
            match changed.next_if(|(new, _)| *new == key) {
                Some((_, value)) => put(&mut sink, &key, value.as_ref())?,
                None => put(&mut sink, &key, Some(&value))?,
            }
        }
    }
    for (new, value) in changed {
        put(&mut sink, &new, value.as_ref())?;
    }
    let mut after = Lsn(0);
    loop {
        // In slices, because commits wait for the lock.
        let some = kept(&lock(&core.index), after, end.lsn);
        let Some(last) = some.last() else { break };
        after = last.lsn;
        for kept in &some {
            sink.writer()?.attachment(kept);
        }
    }
    sink.finish(planted(Planted::NamedTooEarly))
}

fn put(sink: &mut PagesSink<'_>, key: &Bytes, value: Option<&Bytes>) -> io::Result<()> {
    if let Some(value) = value {
        sink.writer()?.pair(key, value);
    }
    Ok(())
}

/// Some attachments after a commit and up to another one, for an image.
fn kept(index: &Index, after: Lsn, upto: Lsn) -> Vec<Kept> {
    let range = (Bound::Excluded(after), Bound::Included(upto));
    let found = if after < upto { index.attachments.range(range) } else { return Vec::new() };
    found
        .take(RING_SLICE_ATTACHMENTS)
        .map(|(lsn, located)| Kept {
            lsn: *lsn,
            generation: located.file.header.generation,
            offset: located.offset,
            bytes: located.bytes,
            crc: located.crc,
        })
        .collect()
}

/// The name of an image. Two images of one commit are two files.
pub(super) fn image_name(lsn: Lsn, serial: u64) -> String {
    format!("{:016x}-{serial:016x}", lsn.0)
}

/// The two numbers in a name, if it is one of ours.
pub(super) fn numbers_of(name: &str) -> Option<(u64, u64)> {
    let (first, second) = name.split_once('-')?;
    let number =
        |text: &str| u64::from_str_radix(text, 16).ok().filter(|number| *text == format!("{number:016x}"));
    Some((number(first)?, number(second)?))
}
