//! Files of pages on a disk: written aside in steps, named when they are durable, and checked page by page when read.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use floe_env::{BlockBuffer, DISK_BLOCK, Disk, DiskFile};

use super::pages::{HEADER, PAGE_HEAD, Page, PagesHeader, PagesReader, PagesWriter};
use crate::error::DecodeError;
use crate::limits::RING_STEP_BYTES;

/// What a file is called while it is written.
pub(super) const WRITING: &str = "writing";

/// Why a file of pages cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Damaged(#[from] DecodeError),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A file of pages that is open.
#[derive(Debug, Clone)]
pub(super) struct PagesFile {
    pub(super) name: String,
    pub(super) header: PagesHeader,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// A file of pages that is not open. A history has many.
#[derive(Debug, Clone)]
pub(super) struct PagesName {
    pub(super) name: String,
    pub(super) header: PagesHeader,
    pub(super) bytes: u64,
}

impl PagesName {
    pub(super) fn open(&self, disk: &dyn Disk) -> Result<PagesFile, Unread> {
        PagesFile::open(disk, &self.name)
    }
}

impl PagesFile {
    /// Closes it.
    pub(super) fn closed(self) -> PagesName {
        PagesName { name: self.name, header: self.header, bytes: self.bytes }
    }

    pub(super) fn open(disk: &dyn Disk, name: &str) -> Result<PagesFile, Unread> {
        let file = disk.open(name)?;
        let bytes = file.bytes()?;
        if bytes < HEADER as u64 || !bytes.is_multiple_of(DISK_BLOCK as u64) {
            return Err(DecodeError::Truncated.into());
        }
        let mut block = BlockBuffer::zeroed(HEADER);
        file.read_at(block.as_mut_slice(), 0)?;
        let header = PagesHeader::decode(block.as_slice())?;
        Ok(PagesFile { name: name.to_owned(), header, file, bytes })
    }

    /// The file's length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its pages from the first one.
    pub(super) fn pages(&self) -> Pages<'_> {
        Pages {
            of: self,
            reader: PagesReader::new(&self.header),
            window: BlockBuffer::default(),
            window_at: 0,
            at: HEADER as u64,
            ended: false,
        }
    }

    /// Reads every page.
    pub(super) fn verify(&self) -> Result<(), Unread> {
        let mut pages = self.pages();
        while pages.next()?.is_some() {}
        Ok(())
    }
}

/// Reads pages one after another.
pub(super) struct Pages<'a> {
    of: &'a PagesFile,
    reader: PagesReader,
    window: BlockBuffer,
    window_at: u64,
    at: u64,
    ended: bool,
}

impl Pages<'_> {
    /// The next page; `None` after the end, which proves that no page is missing.
    pub(super) fn next(&mut self) -> Result<Option<Page>, Unread> {
        if self.ended {
            return Ok(None);
        }
        let place = self.at;
        let head = *self.read(PAGE_HEAD)?.first_chunk().expect("exactly as much is read");
        let head = PagesReader::head(&head, self.of.bytes - self.at)?;
        let body = Bytes::copy_from_slice(self.read(head.bytes)?);
        let page = self.reader.page(&head, place, &body)?;
        self.ended = matches!(page, Page::End(_));
        Ok(Some(page).filter(|_| !self.ended))
    }

    fn read(&mut self, bytes: usize) -> Result<&[u8], Unread> {
        if bytes as u64 > self.of.bytes - self.at {
            return Err(DecodeError::Truncated.into());
        }
        let end = self.at + bytes as u64;
        let there = self.window.as_slice().len() as u64;
        if self.at < self.window_at || end > self.window_at + there {
            let start = self.at / DISK_BLOCK as u64 * DISK_BLOCK as u64;
            let wanted = (end - start).next_multiple_of(DISK_BLOCK as u64).max(RING_STEP_BYTES);
            self.window.resize(wanted.min(self.of.bytes - start) as usize);
            self.of.file.read_at(self.window.as_mut_slice(), start)?;
            self.window_at = start;
        }
        let from = (self.at - self.window_at) as usize;
        self.at = end;
        Ok(&self.window.as_slice()[from..from + bytes])
    }
}

/// Writes a file of pages.
pub(super) struct PagesSink<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    aside: String,
    directory: &'static str,
    name: String,
    writer: PagesWriter,
    step: BlockBuffer,
    at: u64,
    /// Called after each step, so that commits find the disk idle now and then.
    pause: &'a dyn Fn(),
}

impl<'a> PagesSink<'a> {
    pub(super) fn begin(
        disk: &'a dyn Disk,
        directory: &'static str,
        name: &str,
        header: &PagesHeader,
        pause: &'a dyn Fn(),
    ) -> io::Result<PagesSink<'a>> {
        let aside = format!("{directory}/{WRITING}");
        let file = disk.create(&aside, 0)?;
        let name = format!("{directory}/{name}");
        let (writer, step) = (PagesWriter::new(header), BlockBuffer::default());
        Ok(PagesSink { disk, file, aside, directory, name, writer, step, at: 0, pause })
    }

    pub(super) fn writer(&mut self) -> io::Result<&mut PagesWriter> {
        while self.writer.ready().len() as u64 >= RING_STEP_BYTES {
            self.write(RING_STEP_BYTES as usize)?;
            (self.pause)();
        }
        Ok(&mut self.writer)
    }

    /// Ends the file, gives it its name when it is durable, and reads it back.
    pub(super) fn finish(mut self, named_first: bool) -> Result<PagesFile, Unread> {
        self.writer()?.end();
        while !self.writer.ready().is_empty() {
            self.write(self.writer.ready().len().min(RING_STEP_BYTES as usize))?;
        }
        if !named_first {
            self.file.sync();
        }
        self.disk.rename(&self.aside, &self.name)?;
        self.disk.sync_dir(self.directory);
        let written = PagesFile::open(self.disk, &self.name)?;
        written.verify()?;
        Ok(written)
    }

    fn write(&mut self, bytes: usize) -> io::Result<()> {
        self.step.resize(bytes);
        self.step.as_mut_slice().copy_from_slice(&self.writer.ready()[..bytes]);
        self.file.write_at(self.step.as_slice(), self.at)?;
        self.writer.take(bytes);
        self.at += bytes as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use floe_env::SimulatedDisk;

    use super::*;
    use crate::journal::Lsn;
    use crate::journal::ring::file::Position;
    use crate::journal::ring::frame::Link;
    use crate::journal::ring::pages::{Kept, PagesKind};

    fn header() -> PagesHeader {
        let link = Link { attempt: 5, crc: 6 };
        let position = Position { lsn: Lsn(9), generation: 2, frame: 4096, next: 8192, link };
        PagesHeader { kind: PagesKind::Image, journal: 7, first: Lsn(1), position }
    }

    fn kept(lsn: u64) -> Kept {
        Kept { lsn: Lsn(lsn), generation: 2, offset: 4_300, bytes: 77, crc: 8 }
    }

    fn written(disk: &SimulatedDisk, pairs: usize, large: usize) -> PagesFile {
        let mut sink = PagesSink::begin(disk, "image", "9", &header(), &|| ()).unwrap();
        for at in 0..pairs {
            sink.writer().unwrap().pair(format!("key {at:06}").as_bytes(), format!("value {at}").as_bytes());
        }
        sink.writer().unwrap().pair(b"large", &vec![3; large]);
        sink.writer().unwrap().attachment(&kept(4));
        sink.writer().unwrap().attachment(&kept(5));
        sink.finish(false).unwrap()
    }

    #[test]
    fn what_was_written_is_read_page_by_page() {
        let disk = SimulatedDisk::new(1);
        let file = written(&disk, 100_000, 3 << 20);
        let again = PagesFile::open(&disk, "image/9").unwrap();
        assert_eq!(again.header, header());
        let (mut pages, mut pairs, mut attachments, mut count) = (file.pages(), Vec::new(), Vec::new(), 0);
        while let Some(page) = pages.next().unwrap() {
            count += 1;
            match page {
                Page::Pairs(found) => pairs.extend(found),
                Page::Attachments(found) => attachments.extend(found),
                Page::End(_) => unreachable!("the end is no page"),
            }
        }
        assert!(count > 40, "{count} pages");
        assert_eq!((pairs.len(), attachments), (100_001, vec![kept(4), kept(5)]));
        assert_eq!(pairs[99_999], (Bytes::from("key 099999"), Bytes::from("value 99999")));
        assert_eq!(pairs[100_000].1.len(), 3 << 20);
    }

    /// Files in the field hold these bytes, so they never change.
    #[test]
    fn golden() {
        let disk = SimulatedDisk::new(1);
        written(&disk, 3, 10);
        assert!(disk.contents("image/9") == include_bytes!("golden/image.pages"));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let disk = SimulatedDisk::new(1);
        written(&disk, 20, 100);
        let sound = disk.contents("image/9");
        let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
        for at in (0..128).chain(HEADER..=used) {
            disk.spoil("image/9", at, &[sound[at] ^ 0x10]);
            // Bytes 1 to 3 of a page's head mean nothing.
            let read = PagesFile::open(&disk, "image/9").and_then(|file| file.verify());
            let harmless = read.is_ok() && sound[at] == 0;
            assert!(read.is_err() || harmless, "byte {at}");
            disk.spoil("image/9", at, &[sound[at]]);
        }
        // A page at another place, and a file that ends early.
        let block = sound[HEADER..HEADER + 512].to_vec();
        disk.spoil("image/9", HEADER, &[0; 512]);
        assert!(PagesFile::open(&disk, "image/9").unwrap().verify().is_err());
        disk.spoil("image/9", HEADER, &block);
        PagesFile::open(&disk, "image/9").unwrap().verify().unwrap();
    }
}
