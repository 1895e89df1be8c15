//! Files of the operating system, past its page cache where the file system can do that.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::seam::{BlockBuffer, DISK_BLOCK, Disk, DiskFile, assert_blocks};
use crate::disk::{DiskReserve, DiskRoom, reserve_blocks};
use crate::durable::{create_dir_durable, sync_data, sync_dir};
use crate::fatal::end_process;

/// The file that tells whether the file system goes past the page cache.
const PROBE: &str = "probe";

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// What is synced, for the message that ends the process.
    what: &'static str,
    direct: bool,
    /// Nothing is changed.
    reads_only: bool,
    reserve: DiskReserve,
}

#[derive(Debug)]
struct RealFile {
    file: File,
    what: &'static str,
}

impl RealDisk {
    /// The directory, which is made if it is missing. `what` names its files for messages, for example "the journal".
    ///
    /// # Errors
    /// The file system refused.
    pub fn new(directory: &Path, what: &'static str, reserve: DiskReserve) -> io::Result<RealDisk> {
        create_dir_durable(directory)?;
        let mut disk =
            RealDisk { directory: directory.to_owned(), what, direct: true, reads_only: false, reserve };
        disk.direct = disk.probe()?;
        if !disk.direct {
            let directory = directory.display();
            tracing::warn!(%directory, "this file system has no direct writes: they are buffered");
        }
        Ok(disk)
    }

    /// A directory of which nothing is changed, not even by a probe: whatever would do that fails.
    pub fn read_only(directory: &Path) -> RealDisk {
        RealDisk {
            directory: directory.to_owned(),
            what: "files that are only read",
            direct: false,
            reads_only: true,
            reserve: DiskReserve::new(directory, 0),
        }
    }

    fn may_write(&self) -> io::Result<()> {
        match self.reads_only {
            true => Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
            false => Ok(()),
        }
    }

    /// Whether reads and writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn probe(&self) -> io::Result<bool> {
        let path = self.path(PROBE);
        let tried = || -> io::Result<()> {
            let file = self.options().create(true).truncate(true).open(&path)?;
            let mut block = BlockBuffer::zeroed(DISK_BLOCK);
            file.write_all_at(block.as_slice(), 0)?;
            file.read_exact_at(block.as_mut_slice(), 0)
        };
        let direct = match tried() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => false,
            // It was opened for direct writes, and no write found room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => true,
            Err(error) => return Err(error),
        };
        fs::remove_file(&path).map(|()| direct).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(direct),
            _ => Err(error),
        })
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(!self.reads_only);
        if self.direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        options
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.may_write()?;
        let file = self.options().create(true).truncate(true).open(self.path(name))?;
        let made =
            if bytes > 0 { reserve_blocks(&file, bytes).and_then(|_| file.set_len(bytes)) } else { Ok(()) };
        if let Err(error) = made {
            fs::remove_file(self.path(name))?;
            return Err(error);
        }
        Ok(Arc::new(RealFile { file, what: self.what }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.options().open(self.path(name))?;
        Ok(Arc::new(RealFile { file, what: self.what }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may_write()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_write()?;
        fs::remove_file(self.path(name))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(directory))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, directory: &str) -> io::Result<()> {
        self.may_write()?;
        // The directory around it is durable since it was opened.
        let path = self.path(directory);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
        sync_dir(&self.directory)
    }

    fn sync_dir(&self, directory: &str) {
        if let Err(error) = sync_dir(&self.path(directory)) {
            end_process("a directory cannot be synced", &error);
        }
    }

    fn room(&self) -> io::Result<DiskRoom> {
        self.reserve.room()
    }

    fn size(&self) -> io::Result<u64> {
        self.reserve.size()
    }

    fn tend_reserve(&self) -> io::Result<()> {
        self.reserve.tend()
    }

    fn give_up_reserve(&self) -> io::Result<bool> {
        self.reserve.give_up_ballast()
    }

    fn end_process(&self, what: &str, why: &dyn Display) -> ! {
        end_process(what, why)
    }
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert_blocks(bytes, offset);
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        assert_blocks(into, offset);
        self.file.read_exact_at(into, offset)
    }

    fn sync(&self) {
        sync_data(&self.file, self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_does_what_the_seam_says() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = DiskReserve::new(directory.path(), 0);
        let disk = RealDisk::new(&directory.path().join("files"), "a test", reserve).unwrap();
        disk.create_dir("ring").unwrap();
        assert_eq!(disk.list("ring").unwrap(), Vec::<String>::new());
        let file = disk.create("ring/b", 3 * DISK_BLOCK as u64).unwrap();
        let mut block = BlockBuffer::zeroed(DISK_BLOCK);
        block.as_mut_slice().fill(7);
        file.write_at(block.as_slice(), DISK_BLOCK as u64).unwrap();
        file.sync();
        disk.rename("ring/b", "ring/a").unwrap();
        disk.sync_dir("ring");
        assert_eq!((disk.list("ring").unwrap(), file.bytes().unwrap()), (vec!["a".to_owned()], 12_288));
        let mut two = BlockBuffer::zeroed(2 * DISK_BLOCK);
        disk.open("ring/a").unwrap().read_at(two.as_mut_slice(), 0).unwrap();
        assert!(two.as_slice()[..DISK_BLOCK].iter().all(|byte| *byte == 0));
        assert!(two.as_slice()[DISK_BLOCK..].iter().all(|byte| *byte == 7));
        assert!(file.read_at(two.as_mut_slice(), 2 * DISK_BLOCK as u64).is_err(), "the file ends before");
        let look = RealDisk::read_only(&directory.path().join("files"));
        look.open("ring/a").unwrap().read_at(two.as_mut_slice(), 0).unwrap();
        assert!(look.open("ring/a").unwrap().write_at(two.as_slice(), 0).is_err());
        assert!(look.create("ring/c", 0).is_err() && look.remove("ring/a").is_err());
        assert!(look.rename("ring/a", "ring/c").is_err() && look.create_dir("more").is_err());
        disk.remove("ring/a").unwrap();
        assert!(disk.open("ring/a").is_err());
        assert!(disk.room().unwrap().free > 0);
    }
}
