//! Looks at all of a ring that no process uses, and changes nothing. A start reads the newest image and the frames
//! behind it; here every commit of the history is read too, both images are compared with what the commits make, and
//! every attachment with its checksum.

use floe_env::Disk;

use super::error::RingOpenError;
use super::file::IMAGES;
use super::keeper::image_name;
use super::open::{image_names, open_history, set_one_aside};
use super::pages::{Kept, Page, PagesKind, entry_of_pair};
use super::past::read_image;
use super::recovery::{Files, Recovered, open_files, recover, sum_of};
use super::store::{PagesFile, PagesName, Unread};
use crate::error::DecodeError;
use crate::journal::inspected::{DamagedAttachment, Inspected};
use crate::journal::{Entry, Lsn};
use crate::snapshot::Snapshot;

/// An image that can be read.
struct Image {
    file: PagesFile,
    map: Snapshot,
    kept: Vec<Kept>,
    /// What the commits make at its place is something else.
    differs: bool,
}

/// A look at a ring.
struct Look<'a> {
    disk: &'a dyn Disk,
    found: Inspected,
    /// The images in order.
    images: Vec<Image>,
    /// The names of images that cannot be read.
    unread: Vec<String>,
}

/// Reads and compares everything in the ring of a disk.
///
/// # Errors
/// A newer floe wrote it, or the disk does not read.
pub(crate) fn inspect(disk: &dyn Disk) -> Result<Inspected, RingOpenError> {
    Ok(look(disk)?.found)
}

/// Moves the images away that are damaged, if another one is whole. Returns the name of the last one.
///
/// # Errors
/// No other image is whole, none is damaged, or the disk fails.
pub(crate) fn set_image_aside(read: &dyn Disk, write: &dyn Disk) -> Result<String, RingOpenError> {
    let Look { found, images, unread, .. } = look(read)?;
    let (differ, whole): (Vec<Image>, Vec<Image>) = images.into_iter().partition(|image| image.differs);
    if whole.is_empty() || !found.journal.is_empty() {
        let reasons: Vec<String> = found.image.into_iter().chain(found.journal).collect();
        return Err(RingOpenError::no_image(&reasons));
    }
    let mut last = None;
    for name in unread.into_iter().chain(differ.into_iter().map(|image| image.file.name)) {
        last = Some(set_one_aside(write, &name)?);
    }
    last.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "no image is damaged").into())
}

fn look(disk: &dyn Disk) -> Result<Look<'_>, RingOpenError> {
    let mut look = Look { disk, found: Inspected::default(), images: Vec::new(), unread: Vec::new() };
    look.read_images()?;
    if look.images.is_empty() {
        let error = RingOpenError::no_image(&std::mem::take(&mut look.found.image));
        look.found.journal.push(error.to_string());
        return Ok(look);
    }
    look.read_history()?;
    look.read_log()?;
    look.found.last = look.found.snapshot.lsn();
    Ok(look)
}

impl Look<'_> {
    fn read_images(&mut self) -> Result<(), RingOpenError> {
        for (lsn, serial) in image_names(self.disk)? {
            let name = format!("{IMAGES}/{}", image_name(Lsn(lsn), serial));
            let read = PagesFile::open(self.disk, &name).and_then(|image| Ok((read_image(&image)?, image)));
            let damage = match read {
                Ok((_, file))
                    if file.header.position.lsn != Lsn(lsn) || file.header.kind != PagesKind::Image =>
                {
                    format!("{name} is the image of another commit")
                }
                Ok(((pairs, kept), file)) => {
                    if self.images.iter().any(|other| other.file.header.journal != file.header.journal) {
                        return Err(RingOpenError::Foreign(name));
                    }
                    let map = Snapshot::of_image(pairs, Lsn(lsn));
                    self.images.push(Image { file, map, kept, differs: false });
                    continue;
                }
                Err(Unread::Damaged(DecodeError::NewerVersion { found, .. })) => {
                    return Err(RingOpenError::NewerFormat { file: name, found: found.into() });
                }
                Err(error) => format!("{name}: {error}"),
            };
            self.found.image.push(damage);
            self.unread.push(name);
        }
        Ok(())
    }

    /// Applies the commits of the history one after another, from the beginning or from the older image.
    fn read_history(&mut self) -> Result<(), RingOpenError> {
        let newest = self.images.last().expect("there is an image").file.header;
        let oldest = &self.images[0];
        let begin = if newest.first <= Lsn(1) { Snapshot::default() } else { oldest.map.clone() };
        self.found.snapshot = begin;
        self.compare();
        match open_history(self.disk, &newest) {
            Ok((parts, _)) => {
                for part in &parts {
                    if let Err(error) = self.read_part(part) {
                        self.found.history.push(format!("{}: {error}", part.name));
                    }
                }
            }
            Err(error @ RingOpenError::NewerFormat { .. }) => return Err(error),
            Err(error) => self.found.journal.push(error.to_string()),
        }
        // A start goes on from the newest image, whatever the history has.
        let newest = self.images.last().expect("there is an image");
        if self.found.snapshot.lsn() < newest.map.lsn() {
            self.found.snapshot = newest.map.clone();
        }
        Ok(())
    }

    fn read_part(&mut self, part: &PagesName) -> Result<(), Unread> {
        let part = part.open(self.disk)?;
        let (mut pages, mut due) = (part.pages(), part.header.first);
        while let Some(page) = pages.next()? {
            let Page::Pairs(pairs) = page else { continue };
            for (key, value) in pairs {
                let entry = entry_of_pair(&key, &value)?;
                if entry.lsn != due {
                    return Err(DecodeError::corrupt(format!("commit {due} is missing")).into());
                }
                due = due.next();
                self.apply(&entry);
            }
        }
        match due == part.header.position.lsn.next() {
            true => Ok(()),
            false => Err(DecodeError::corrupt(format!("commit {due} is missing")).into()),
        }
    }

    /// Follows the log behind the newest image.
    fn read_log(&mut self) -> Result<(), RingOpenError> {
        let newest = self.images.last().expect("there is an image").file.header;
        let files = match open_files(self.disk, newest.journal) {
            Ok(files) => files,
            Err(error @ RingOpenError::NewerFormat { .. }) => return Err(error),
            Err(error) => {
                self.found.journal.push(error.to_string());
                return Ok(());
            }
        };
        let log = match recover(&files, newest.position) {
            Ok(log) => log,
            Err(error @ RingOpenError::NewerFormat { .. }) => return Err(error),
            Err(error) => {
                self.found.journal.push(error.to_string());
                return Ok(());
            }
        };
        // The other image is there for the day on which this one is damaged.
        if let [older, _] = &self.images[..]
            && files.contains_key(&older.file.header.position.generation)
            && let Err(error) = recover(&files, older.file.header.position)
        {
            self.found
                .notes
                .push(format!("{} could not take the place of the newest image: {error}", older.file.name));
        }
        log.entries.iter().for_each(|entry| self.apply(entry));
        if log.remains {
            self.found.notes.push(format!(
                "the frame at byte {} of {} is not whole: it was cut off and never acknowledged, and the log ends \
                 there",
                log.end.next,
                files[&log.end.generation].name()
            ));
        }
        self.read_attachments(&files, &log)
    }

    fn read_attachments(&mut self, files: &Files, log: &Recovered) -> Result<(), RingOpenError> {
        let kept = &self.images.last().expect("there is an image").kept;
        let of_image = kept.iter().map(|kept| (kept.lsn, kept.generation, kept.offset, kept.bytes, kept.crc));
        let of_log = log.attachments.iter();
        let of_log = of_log.map(|found| (found.lsn, found.generation, found.offset, found.bytes, found.crc));
        for (lsn, generation, offset, bytes, crc) in of_image.chain(of_log) {
            // A file that is used again had nothing in it that was needed.
            let Some(file) = files.get(&generation) else { continue };
            let end = offset + u64::from(bytes);
            let place = format!("bytes {offset}..{end} of {}", file.name());
            if end > file.header.capacity || sum_of(&*file.file, offset, end)? != crc {
                self.found.damaged.push(DamagedAttachment { lsn, place });
            }
            self.found.attachments.insert(lsn, bytes.into());
        }
        Ok(())
    }

    /// Applies a commit if it is the next one.
    fn apply(&mut self, entry: &Entry) {
        if entry.lsn == self.found.snapshot.lsn().next() {
            self.found.snapshot.apply(entry.lsn, &entry.changes);
            self.compare();
        }
    }

    /// Compares the map with the images of the same commit.
    fn compare(&mut self) {
        let Inspected { snapshot, image: damage, .. } = &mut self.found;
        for image in self.images.iter_mut().filter(|image| image.map.lsn() == snapshot.lsn()) {
            if !image.map.pairs().eq(snapshot.pairs()) {
                image.differs = true;
                damage.push(format!(
                    "{} is not what the commits make up to {}",
                    image.file.name,
                    snapshot.lsn()
                ));
            }
        }
    }
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
