//! The room of a disk, and the reserve on it that is kept for deletions.
//!
//! Deleting takes room before it gives room back: each deletion is a commit of the journal. So the last part of a disk
//! is kept in three steps, and whatever a store writes, and in whatever form, stays out of them:
//!
//! ```text
//! free room >= reserve        objects and all commits are taken
//!           <  reserve        objects are refused (DiskRoom::holds)
//!           <  1/2 of it      of the commits, only deletions are taken (DiskRoom::only_deletions)
//! none                        the ballast is given up: a file as large as 1/4 of the reserve
//! ```
//! The first two steps hold back this process. The ballast helps against other programs, which know no steps. It is
//! given up when a deletion needs it, or a start, and not before: the others would take it. It is made again when there
//! is room for it beside the whole reserve.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::durable::sync_dir;

/// Bytes on a disk that are kept for deletions.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// On a small disk the reserve is the disk's size divided by this, if that is less.
const DISK_RESERVE_SHARE: u64 = 10;
/// Of the reserve, the part that only deletions may take is 1 / this.
const DELETIONS_SHARE: u64 = 2;
/// Of the reserve, the ballast is 1 / this.
const BALLAST_SHARE: u64 = 4;
/// The name of the ballast.
const BALLAST: &str = "reserve";

/// The reserve on the disk of a directory.
#[derive(Clone, Debug)]
pub struct DiskReserve {
    directory: PathBuf,
    bytes: u64,
}

/// The room of a disk at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that this process may still write; without an end on a file system that does not say how large it is.
    pub free: u64,
    /// Bytes that are kept for deletions.
    pub reserve: u64,
}

impl DiskReserve {
    /// The reserve of `bytes` on the disk that holds `directory`, less on a small disk.
    pub fn new(directory: impl Into<PathBuf>, bytes: u64) -> DiskReserve {
        DiskReserve { directory: directory.into(), bytes }
    }

    /// The room now.
    ///
    /// # Errors
    /// The directory is gone, or the file system does not answer.
    pub fn room(&self) -> io::Result<DiskRoom> {
        let disk = statvfs(&self.directory)?;
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        Ok(DiskRoom::of(size, disk.f_bavail.saturating_mul(disk.f_frsize), self.bytes))
    }

    /// Bytes of the whole disk; 0 if the file system does not say it.
    ///
    /// # Errors
    /// The directory is gone, or the file system does not answer.
    pub fn size(&self) -> io::Result<u64> {
        let disk = statvfs(&self.directory)?;
        Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
    }

    /// Makes the ballast if there is none, and room for it.
    ///
    /// # Errors
    /// The file system refused; the next call tries again.
    pub fn tend(&self) -> io::Result<()> {
        let room = self.room()?;
        match room.holds(room.ballast()) && !self.ballast().exists() {
            true => self.make_ballast(room.ballast()),
            false => Ok(()),
        }
    }

    /// Makes sure that there is some room to start with: gives the ballast up if there is less than that. Returns the
    /// room after that.
    ///
    /// # Errors
    /// The file system refused.
    pub fn begin(&self) -> io::Result<DiskRoom> {
        let room = self.room()?;
        if room.free < room.ballast() {
            self.give_up_ballast()?;
        }
        self.room()
    }

    /// Gives the ballast up at once, because a write found the disk full. Returns whether there was any.
    ///
    /// # Errors
    /// The file system refused.
    pub fn give_up_ballast(&self) -> io::Result<bool> {
        match fs::remove_file(self.ballast()) {
            Ok(()) => {
                tracing::warn!(
                    directory = %self.directory.display(),
                    "the disk is full: the reserve for deletions is in use; delete topics or free some space"
                );
                // File systems give blocks back when the removal is durable.
                sync_dir(&self.directory)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn make_ballast(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let aside = self.directory.join("reserve.new");
        let made = File::create(&aside).and_then(|file| reserve_blocks(&file, bytes));
        match made {
            Ok(true) => fs::rename(&aside, self.ballast()),
            // A file without blocks of its own would be no ballast.
            Ok(false) => fs::remove_file(&aside),
            Err(error) => {
                fs::remove_file(&aside)?;
                Err(error)
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join(BALLAST)
    }
}

impl DiskRoom {
    /// The room of a disk of `size` bytes with `free` ones, of which `reserve` are kept, but not more than a share of
    /// the disk.
    pub fn of(size: u64, free: u64, reserve: u64) -> DiskRoom {
        // Some file systems do not say how large they are.
        if size == 0 {
            return DiskRoom { free: u64::MAX, reserve: 0 };
        }
        DiskRoom { free, reserve: reserve.min(size / DISK_RESERVE_SHARE) }
    }

    /// Whether `bytes` more leave the reserve whole.
    pub fn holds(&self, bytes: u64) -> bool {
        self.free >= bytes.saturating_add(self.reserve)
    }

    /// Bytes that may be written beside the reserve.
    pub fn beside(&self) -> u64 {
        self.free.saturating_sub(self.reserve)
    }

    /// Whether only deletions may be committed.
    pub fn only_deletions(&self) -> bool {
        self.free < self.reserve / DELETIONS_SHARE
    }

    fn ballast(&self) -> u64 {
        self.reserve / BALLAST_SHARE
    }

    /// The error of a write of `bytes` that would take from the reserve.
    pub fn full(&self, bytes: u64) -> io::Error {
        let DiskRoom { free, reserve } = self;
        let reason =
            format!("{free} bytes are free, {bytes} are needed and {reserve} are kept for deletions");
        io::Error::new(io::ErrorKind::StorageFull, reason)
    }
}

/// Gives the file `bytes` of the disk. Returns false on a file system that cannot.
///
/// # Errors
/// The disk is full, or fails.
pub fn reserve_blocks(file: &File, bytes: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the blocks of a range of the file back to the file system; the range then reads as zeros. Returns false on a
/// file system that cannot.
///
/// # Errors
/// The disk fails.
pub fn punch_hole(file: &File, from: u64, bytes: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, bytes) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_last_part_of_a_disk_is_kept_in_steps() {
        let room = |free| DiskRoom::of(10 << 30, free * MIB, 64 * MIB);
        assert!(room(100).holds(36 * MIB));
        assert!(!room(100).holds(36 * MIB + 1));
        assert!(!room(63).holds(0), "no object at all");
        assert_eq!((room(100).beside(), room(63).beside()), (36 * MIB, 0));
        assert!(!room(63).only_deletions());
        assert!(!room(32).only_deletions());
        assert!(room(31).only_deletions());
        assert!(room(0).only_deletions());
        let message = room(63).full(7).to_string();
        assert!(message.contains("66060288 bytes are free, 7 are needed and 67108864 are kept"), "{message}");
    }

    #[test]
    fn a_small_disk_keeps_less_and_one_without_a_size_nothing() {
        assert_eq!(DiskRoom::of(100 * MIB, 90 * MIB, 64 * MIB).reserve, 10 * MIB);
        let unknown = DiskRoom::of(0, 0, 64 * MIB);
        assert!(unknown.holds(1 << 40) && !unknown.only_deletions());
        let none = DiskRoom::of(100 * MIB, 0, 0);
        assert!(none.holds(0) && !none.only_deletions());
    }

    #[test]
    fn the_ballast_is_made_given_up_and_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = DiskReserve::new(directory.path(), 4 * MIB);
        let file = directory.path().join(BALLAST);
        assert!(!reserve.give_up_ballast().unwrap(), "there is none yet");
        for _ in 0..2 {
            reserve.tend().unwrap();
            assert!(reserve.begin().unwrap().holds(0), "this machine has some room");
            if cfg!(target_os = "linux") {
                assert_eq!(fs::metadata(&file).unwrap().len(), MIB);
            }
            assert!(reserve.give_up_ballast().unwrap());
            assert!(!file.exists());
        }
        let gone = DiskReserve::new(directory.path().join("gone"), MIB);
        assert!(gone.room().is_err());
    }
}
