//! The work beside commits: images and the history are written. Before and between, files are prepared (preparer.rs).
//!
//! In a process it has a thread. In a simulation it is done behind each commit.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use floe_env::lock;

use super::file::{IMAGES, Position, RingFile};
use super::pages::{Kept, Page, PagesHeader, PagesKind, pair_of_entry};
use super::planted::{Planted, planted};
use super::room::is_full;
use super::state::{Core, Index, Keeper};
use super::store::{PagesFile, PagesName, PagesSink, Unread, WRITING};
use crate::journal::{Entry, Lsn};
use crate::limits::{
    RING_ENTRIES_BYTES_MAX, RING_IMAGE_PAUSE, RING_SLICE_ATTACHMENTS, RING_STEP_PAUSE, RING_WAITING_FILES,
    RING_WAITING_RATIO,
};

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
        let prepared = core.prepare_ahead();
        if self.image_is_due(core)? {
            let written = self.write_image(core);
            // Without images, commits would be refused in the end.
            let urgent = lock(&core.past).meta_bytes > RING_ENTRIES_BYTES_MAX / 2;
            match is_full(&written) && urgent && core.give_up_reserve() {
                true => self.write_image(core)?,
                false => written?,
            }
        }
        lock(&core.preparer).trim(core)?;
        self.report(core);
        // On a full disk there are no new files, and images go on.
        Ok(prepared?)
    }

    /// An image is due for the time of the next start, for safety, or because it lets files be used again: that is less
    /// work than new files are.
    fn image_is_due(&self, core: &Core) -> io::Result<bool> {
        let (meta_bytes, images, end, older, newest, image_bytes) = {
            let past = lock(&core.past);
            let (older, newest) =
                past.images.first().zip(past.images.last()).expect("there is always an image");
            let (older, place) = (older.header.position.lsn, newest.header.position);
            (past.meta_bytes, past.images.len(), past.end, older, place, newest.bytes())
        };
        // With one image only, the next damage would be the end.
        if meta_bytes >= core.options.image_bytes || (images < 2 && newest.lsn < end.lsn) {
            return Ok(true);
        }
        let short = core.is_short()?;
        // A file is free when both images have its commits. Where commits are few, the second would not come for long.
        let rests = core.env.monotonic().duration_since(self.wrote) >= RING_IMAGE_PAUSE;
        let covered = if short || rests { older } else { newest.lsn };
        let index = lock(&core.index);
        let waits = |file: &&Arc<RingFile>| file.live() == 0 && file.last() > covered;
        let files = index.files.range(..end.generation).map(|(_, file)| file).filter(waits);
        let (files, bytes) =
            files.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.header.capacity));
        Ok(match short {
            // Whatever can go back to the file system goes.
            true => files > 0,
            false => files >= RING_WAITING_FILES && bytes >= RING_WAITING_RATIO * image_bytes,
        })
    }

    /// Writes what is new into the history and into an image. What a failure leaves of them goes.
    pub(super) fn write_image(&mut self, core: &Core) -> Result<(), Unread> {
        self.wrote = core.env.monotonic();
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

/// Lets commits have the disk for a while, and the files that they need next.
fn pause(core: &Core) {
    if core.env.is_simulated() {
        return;
    }
    if !core.hurry.load(Ordering::Relaxed) {
        std::thread::park_timeout(RING_STEP_PAUSE);
    }
    if let Err(error) = core.prepare_ahead() {
        tracing::debug!(%error, "no file is ready for the next commits");
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
    // The next start may find their files again.
    let lost: Vec<Kept> = lock(&core.index).lost.values().copied().collect();
    for kept in &lost {
        sink.writer()?.attachment(kept);
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
