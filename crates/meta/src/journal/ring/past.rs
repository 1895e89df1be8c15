//! Reads of what was committed: the map of the newest image, and the entries of memory and history.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use floe_env::lock;

use super::pages::{Kept, Page, entry_of_pair};
use super::state::{Core, Past};
use super::store::{PagesFile, PagesName, Unread};
use crate::journal::{Entry, JournalError, Loaded, Lsn};

impl Core {
    /// The newest image and the entries after it.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let (image, entries) = {
            let past = lock(&self.past);
            let image = past.images.last().cloned().expect("a journal has an image from its first moment");
            let after = image.header.position.lsn;
            let entries: Vec<Arc<Entry>> = past.entries_after(after).cloned().collect();
            (image, entries)
        };
        let entries = entries.iter().map(|entry| Entry::clone(entry)).collect();
        let image_lsn = image.header.position.lsn;
        let (pairs, _) = read_image(&image).map_err(|error| format!("{}: {error}", image.name))?;
        Ok(Loaded { image: pairs, image_lsn, entries })
    }

    /// At most `count` entries after `from`, and no more once they have `bytes`.
    ///
    /// # Errors
    /// The history cannot be read, or begins later.
    pub(super) fn entries_after(
        &self,
        from: Lsn,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, JournalError> {
        let mut found = Found { from, count, bytes, entries: Vec::new() };
        while !found.is_full()
            && let Some(part) = self.part_after(found.last())?
        {
            let before = found.last();
            let damaged = |reason: String| JournalError::NotApplied(format!("{}: {reason}", part.name));
            found.read(&part).map_err(|error| damaged(error.to_string()))?;
            if found.last() == before {
                return Err(damaged(format!("commit {} is missing", before.next())));
            }
        }
        let recent: Vec<Arc<Entry>> =
            lock(&self.past).entries_after(found.last()).take(count).cloned().collect();
        for entry in recent {
            found.take(Entry::clone(&entry));
        }
        Ok(found.entries)
    }

    /// The part of the history with the commit after `lsn`, unless memory has it.
    fn part_after(&self, lsn: Lsn) -> Result<Option<PagesFile>, JournalError> {
        loop {
            let Some(part) = lock(&self.past).part_after(lsn)? else { return Ok(None) };
            // Not under the lock, for which commits would wait. So another part may have taken its place meanwhile.
            match part.open(&*self.disk) {
                Ok(part) => return Ok(Some(part)),
                Err(Unread::Io(error))
                    if error.kind() == io::ErrorKind::NotFound
                        && lock(&self.past).part_after(lsn)?.is_none_or(|now| now.name != part.name) => {}
                Err(error) => return Err(JournalError::NotApplied(format!("{}: {error}", part.name))),
            }
        }
    }
}

impl Past {
    /// The part of the history with the commit after `lsn`, unless memory has it.
    fn part_after(&self, lsn: Lsn) -> Result<Option<PagesName>, JournalError> {
        if let Some(oldest) = self.history.first().filter(|oldest| lsn.next() < oldest.header.first) {
            return Err(JournalError::Reload(oldest.header.first));
        }
        let first = self.entries.front().map_or(self.end.lsn.next(), |entry| entry.lsn);
        if lsn.next() >= first {
            return Ok(None);
        }
        Ok(self.history.iter().find(|part| part.header.position.lsn > lsn).cloned())
    }

    /// The entries in memory after a commit. They have no gaps.
    pub(super) fn entries_after(&self, lsn: Lsn) -> impl Iterator<Item = &Arc<Entry>> {
        let first = self.entries.front().map_or(Lsn(0), |first| first.lsn);
        let before = usize::try_from(lsn.next().0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        self.entries.range(before.min(self.entries.len())..)
    }
}

/// The entries that are asked for, as they are found in order.
struct Found {
    from: Lsn,
    count: usize,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Found {
    /// The last entry that was found, or the one before all.
    fn last(&self) -> Lsn {
        self.entries.last().map_or(self.from, |last| last.lsn)
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.count || (self.bytes == 0 && !self.entries.is_empty())
    }

    /// Takes an entry unless there is no room for it, or it was taken before.
    fn take(&mut self, entry: Entry) {
        if self.is_full() || entry.lsn != self.last().next() {
            return;
        }
        let changes = entry.changes.iter();
        let bytes: usize =
            changes.map(|c| c.key.len() + c.value.as_ref().map_or(0, |value| value.len())).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.entries.push(entry);
    }

    fn read(&mut self, part: &PagesFile) -> Result<(), Unread> {
        let mut pages = part.pages();
        while !self.is_full()
            && let Some(page) = pages.next()?
        {
            let Page::Pairs(pairs) = page else { continue };
            for (key, value) in pairs {
                // A key is the LSN, so those before are not even decoded.
                if key[..] > self.from.0.to_be_bytes()[..] && !self.is_full() {
                    self.take(entry_of_pair(&key, &value)?);
                }
            }
        }
        Ok(())
    }
}

/// What an image holds: the pairs of the map, and the attachments that were needed.
pub(super) type Contents = (Vec<(Bytes, Bytes)>, Vec<Kept>);

pub(super) fn read_image(image: &PagesFile) -> Result<Contents, Unread> {
    let (mut pairs, mut kept) = (Vec::new(), Vec::new());
    let mut pages = image.pages();
    while let Some(page) = pages.next()? {
        match page {
            Page::Pairs(found) => pairs.extend(found),
            Page::Attachments(found) => kept.extend(found),
            Page::End(_) => unreachable!("the end is no page"),
        }
    }
    Ok((pairs, kept))
}
