//! What a disk promises, and the memory for its blocks.

use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;

use crate::disk::DiskRoom;

/// Offsets, lengths and addresses of reads and writes are multiples of this, so that the page cache is not needed.
pub const DISK_BLOCK: usize = 4096;

/// A directory that one process owns, with directories of one level in it. Names are paths below it.
///
/// Nothing is durable before its sync. A write keeps any part of its sectors when the power goes, and names and lengths
/// survive apart from contents. A sync that fails does not return: the process ends, because nobody can know what the
/// disk has.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a file of zeros with this length, in place of one that has the name. It reads as zeros, and its blocks are
    /// taken from the disk where the file system can do that.
    ///
    /// # Errors
    /// The disk is full, or fails.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file.
    ///
    /// # Errors
    /// It is missing, or the disk fails.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of one that has it.
    ///
    /// # Errors
    /// It is missing, or the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It is missing, or the disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of the files in a directory, in order, without the directory.
    ///
    /// # Errors
    /// The disk fails.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Makes a directory if it is missing, durably.
    ///
    /// # Errors
    /// The disk fails.
    fn create_dir(&self, directory: &str) -> io::Result<()>;

    /// Makes the names in a directory durable. Does not return if that fails.
    fn sync_dir(&self, directory: &str);

    /// The room of the disk now.
    ///
    /// # Errors
    /// The file system does not answer.
    fn room(&self) -> io::Result<DiskRoom>;

    /// Bytes of the whole disk; 0 if the file system does not say it.
    ///
    /// # Errors
    /// The file system does not answer.
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Makes the part of the disk that is given up for deletions, if it is missing and there is room for it.
    ///
    /// # Errors
    /// The disk fails; the next call tries again.
    fn tend_reserve(&self) -> io::Result<()> {
        Ok(())
    }

    /// Gives up the part of the disk that is kept for deletions, because one of them found no room. Returns whether
    /// there was any.
    ///
    /// # Errors
    /// The disk fails.
    fn give_up_reserve(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Ends the process that uses the disk, because nobody can tell what the disk has.
    fn end_process(&self, what: &str, why: &dyn Display) -> !;
}

/// A file of a [`Disk`]. Reads and writes are of whole blocks, see [`DISK_BLOCK`].
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// The file's length.
    ///
    /// # Errors
    /// The disk fails.
    fn bytes(&self) -> io::Result<u64>;

    /// Writes all bytes. They may be there in part if it fails.
    ///
    /// # Errors
    /// The disk is full, or fails.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `into`.
    ///
    /// # Errors
    /// The file ends before, or the disk fails.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes every write before it durable. Does not return if that fails.
    fn sync(&self);
}

/// Memory for reads and writes of whole blocks.
#[derive(Debug, Default)]
pub struct BlockBuffer {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl BlockBuffer {
    /// A buffer of zeros. The length is a multiple of [`DISK_BLOCK`].
    pub fn zeroed(bytes: usize) -> BlockBuffer {
        let mut buffer = BlockBuffer::default();
        buffer.resize(bytes);
        buffer
    }

    /// Makes the buffer as long as this. What it holds after that is not told.
    pub fn resize(&mut self, bytes: usize) {
        assert!(bytes.is_multiple_of(DISK_BLOCK), "whole blocks are read and written");
        if self.start + bytes > self.memory.len() {
            self.memory = vec![0; bytes + DISK_BLOCK];
            self.start = self.memory.as_ptr().align_offset(DISK_BLOCK);
            assert!(self.start < DISK_BLOCK, "memory of bytes can be aligned");
        }
        self.bytes = bytes;
    }

    /// Bytes that the buffer has taken from the system.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// Asserts that a read or write is of whole blocks.
pub(super) fn assert_blocks(bytes: &[u8], offset: u64) {
    assert!(bytes.len().is_multiple_of(DISK_BLOCK), "whole blocks are read and written");
    assert!(offset.is_multiple_of(DISK_BLOCK as u64), "blocks begin at multiples of their size");
    assert!(bytes.as_ptr().addr().is_multiple_of(DISK_BLOCK), "memory of blocks is aligned");
}
