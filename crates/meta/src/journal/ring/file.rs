//! The files of a ring: their headers, and where the log is in them.
//!
//! ```text
//! ring/<number>   +0     header, 4,096 bytes       +4096  frames, each aligned to 4,096 bytes
//!
//! header   0 magic "FLOERING"   8 version u16   10 zero u16   12 crc32c of the first 64 bytes without it u32
//!         16 journal id u64    24 generation u64   32 nonce u64   40 capacity u64 (bytes of the file)   48 zero
//! ```
//! All numbers are little endian. Generations count the uses of all files; files are used in their order. A file gets
//! its name when zeros and header are durable, so a named file without a sound header is damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use floe_env::{BlockBuffer, DISK_BLOCK, Disk, DiskFile};

use super::frame::{BLOCK, Link, Place};
use crate::journal::Lsn;
use crate::limits::RING_STEP_BYTES;

/// The directory of the files.
pub(super) const RING: &str = "ring";
/// The directory of the images.
pub(super) const IMAGES: &str = "image";
/// What a file is called while it is made.
pub(super) const PREPARING: &str = "preparing-";
/// The version that this code writes, and the only one that it reads.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"FLOERING";
const SUMMED: usize = 64;

const _: () = assert!(DISK_BLOCK as u64 == BLOCK);

/// The header of a ring file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) journal: u64,
    pub(super) generation: u64,
    pub(super) nonce: u64,
    pub(super) capacity: u64,
}

/// Why a block is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    Damaged,
    Newer(u16),
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; DISK_BLOCK] {
        let mut out = [0; DISK_BLOCK];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        for (at, number) in [(16, self.journal), (24, self.generation), (32, self.nonce), (40, self.capacity)]
        {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = checksum(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(block: &[u8]) -> Result<FileHeader, NoHeader> {
        let number =
            |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes were cut"));
        let crc = u32::from_le_bytes(block[12..16].try_into().expect("four bytes were cut"));
        if &block[..8] != MAGIC || crc != checksum(block) {
            return Err(NoHeader::Damaged);
        }
        match u16::from_le_bytes([block[8], block[9]]) {
            VERSION => Ok(FileHeader {
                journal: number(16),
                generation: number(24),
                nonce: number(32),
                capacity: number(40),
            }),
            newer => Err(NoHeader::Newer(newer)),
        }
    }

    /// The place of a frame in this use of the file.
    pub(super) fn place(&self, offset: u64) -> Place {
        Place { journal: self.journal, generation: self.generation, nonce: self.nonce, offset }
    }
}

fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..SUMMED])
}

/// A ring file in one of its uses.
#[derive(Debug)]
pub(super) struct RingFile {
    pub(super) number: u64,
    pub(super) header: FileHeader,
    pub(super) file: Arc<dyn DiskFile>,
    /// The last commit in it; at most this if it is not known.
    last: AtomicU64,
    /// Attachments in it that were not released.
    live: AtomicUsize,
}

impl RingFile {
    pub(super) fn new(number: u64, header: FileHeader, file: Arc<dyn DiskFile>) -> RingFile {
        RingFile { number, header, file, last: AtomicU64::new(0), live: AtomicUsize::new(0) }
    }

    pub(super) fn name(&self) -> String {
        name_of(self.number)
    }

    /// Frames end here. The last block is for a seal.
    pub(super) fn end(&self) -> u64 {
        self.header.capacity - BLOCK
    }

    /// Whether a frame of so many bytes fits into the empty file.
    pub(super) fn takes(&self, frame: u64) -> bool {
        BLOCK + frame <= self.end()
    }

    pub(super) fn last(&self) -> Lsn {
        Lsn(self.last.load(Ordering::Acquire))
    }

    pub(super) fn reaches(&self, last: Lsn) {
        self.last.fetch_max(last.0, Ordering::AcqRel);
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    pub(super) fn one_more(&self) {
        self.live.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn one_less(&self) {
        let before = self.live.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "the count of a file's attachments is right");
    }
}

/// Where the log ends, or ended when an image was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The last commit before it.
    pub(super) lsn: Lsn,
    pub(super) generation: u64,
    /// Where the last frame begins; 0 if there is none.
    pub(super) frame: u64,
    /// Where the next frame goes.
    pub(super) next: u64,
    pub(super) link: Link,
}

pub(super) fn name_of(number: u64) -> String {
    format!("{RING}/{number:08}")
}

/// The number in the name of a file, if the name is one of ours.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (name == format!("{number:08}")).then_some(number)
}

/// Makes a file of zeros in steps, with a header, and gives it its name when all of it is durable. `pause` is called
/// after each step.
pub(super) fn prepare(
    disk: &dyn Disk,
    number: u64,
    header: FileHeader,
    named_first: bool,
    pause: &dyn Fn(),
) -> std::io::Result<RingFile> {
    let aside = format!("{RING}/{PREPARING}{number:08}");
    let file = disk.create(&aside, header.capacity)?;
    let made = fill(&*file, &header, pause);
    if let Err(error) = made {
        disk.remove(&aside)?;
        return Err(error);
    }
    if !named_first {
        file.sync();
    }
    disk.rename(&aside, &name_of(number))?;
    disk.sync_dir(RING);
    Ok(RingFile::new(number, header, file))
}

fn fill(file: &dyn DiskFile, header: &FileHeader, pause: &dyn Fn()) -> std::io::Result<()> {
    let step = RING_STEP_BYTES.min(header.capacity.next_multiple_of(BLOCK));
    let zeros = BlockBuffer::zeroed(step as usize);
    let mut at = 0;
    while at < header.capacity {
        let bytes = step.min(header.capacity - at);
        file.write_at(&zeros.as_slice()[..bytes as usize], at)?;
        at += bytes;
        pause();
    }
    write_header(file, header)
}

/// Writes the header of the next use. It lies in one sector, so a crash leaves the old one or the new one.
pub(super) fn write_header(file: &dyn DiskFile, header: &FileHeader) -> std::io::Result<()> {
    let mut block = BlockBuffer::zeroed(DISK_BLOCK);
    block.as_mut_slice().copy_from_slice(&header.encode());
    file.write_at(block.as_slice(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in the field hold these bytes, so they never change.
    #[test]
    fn golden() {
        let header =
            FileHeader { journal: 7, generation: 3, nonce: 0x0123_4567_89ab_cdef, capacity: 1 << 26 };
        let block = header.encode();
        let hex: String = block[..48].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "464c4f4552494e4701000000372599ea07000000000000000300000000000000efcdab89674523010000000400000000"
        );
        assert_eq!(FileHeader::decode(&block), Ok(header));
        for at in 0..SUMMED {
            let mut damaged = block;
            damaged[at] ^= 1;
            assert_eq!(FileHeader::decode(&damaged), Err(NoHeader::Damaged), "byte {at}");
        }
        let mut newer = block;
        newer[8] = 2;
        let crc = checksum(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::decode(&newer), Err(NoHeader::Newer(2)));
        assert_eq!(
            (number_of("00000007"), number_of("7"), number_of("preparing-00000007")),
            (Some(7), None, None)
        );
    }
}
