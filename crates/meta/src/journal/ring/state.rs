//! The state of an open ring. Locks are taken in the order of its fields, and none but that of the tail is held while a
//! frame is written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use floe_env::{BlockBuffer, Disk, DiskRoom, Env, lock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::file::{Position, RingFile};
use super::frame::BLOCK;
use super::pages::Kept;
use super::recovery::Files;
use super::store::{PagesFile, PagesName};
use super::under_way::UnderWay;
use crate::journal::{Entry, Lsn};
use crate::limits::{FRAME_BYTES_MAX, RING_BYTES_MAX, RING_DISK_SHARE, RING_FILES_MIN};

/// Limits of a ring that tests and special deployments change. [`crate::limits`] holds the defaults.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Bytes of the first file. Each new one is as large as all before it together, up to `file_bytes`.
    pub first_bytes: u64,
    /// Bytes of the largest files. No frame is larger.
    pub file_bytes: u64,
    /// Bytes of all files, and at least those of [`crate::limits::RING_FILES_MIN`] of the largest. What is left at the
    /// end takes only commits without attachments. `None` is [`crate::limits::RING_BYTES_MAX`], or less on a small
    /// disk.
    pub bytes_max: Option<u64>,
    /// Bytes of entries after which the next image is written.
    pub image_bytes: u64,
    /// Bytes under which a part of the history is written again with the next one.
    pub history_bytes: u64,
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions {
            first_bytes: crate::limits::RING_FIRST_FILE_BYTES,
            file_bytes: crate::limits::RING_FILE_BYTES,
            bytes_max: None,
            image_bytes: crate::limits::RING_IMAGE_BYTES,
            history_bytes: crate::limits::RING_HISTORY_BYTES,
        }
    }
}

impl RingOptions {
    /// The largest frame.
    pub(super) fn frame_bytes_max(&self) -> u64 {
        (self.file_bytes - FRAMELESS_BYTES).min(FRAME_BYTES_MAX)
    }

    /// Bytes of attachments in one group.
    pub(super) fn carries(&self) -> u64 {
        (self.frame_bytes_max() / 2).min(crate::limits::ATTACHMENTS_BYTES_MAX)
    }

    /// Bytes of all files on a disk of `disk` bytes; 0 is a disk that does not say it.
    pub(super) fn limit(&self, disk: u64) -> u64 {
        let usual = match disk {
            0 => RING_BYTES_MAX,
            disk => RING_BYTES_MAX.min(disk / RING_DISK_SHARE),
        };
        self.bytes_max.unwrap_or(usual).max(RING_FILES_MIN * self.file_bytes)
    }

    /// Bytes of the next new file of a ring that has `all` bytes and may have `limit`. A frame of `frame` bytes fits
    /// into it. Two numbers: what it should have, and with what it does. None if the ring may not grow by that.
    pub(super) fn next_file(&self, all: u64, limit: u64, frame: u64) -> Option<(u64, u64)> {
        let first = self.first_bytes.min(self.file_bytes);
        let least = first.max(frame + FRAMELESS_BYTES);
        let left = limit.saturating_sub(all) / BLOCK * BLOCK;
        let should = all.clamp(first, self.file_bytes).max(least);
        (left >= least).then_some((should.min(left), least))
    }
}

/// Bytes of a file that no frame takes: its header, and room for a seal.
pub(super) const FRAMELESS_BYTES: u64 = 2 * BLOCK;

/// An attachment in a file of the ring.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) file: Arc<RingFile>,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
    /// Whether this process has written it, or has compared it with its checksum.
    pub(super) verified: AtomicBool,
}

/// Where the next frame goes.
pub(super) struct Tail {
    pub(super) file: Arc<RingFile>,
    pub(super) at: Position,
    /// The last frame is a seal.
    pub(super) sealed: bool,
    /// It is not synced.
    pub(super) seal_unsynced: bool,
    /// For the bytes of a frame.
    pub(super) buffer: BlockBuffer,
}

/// What is known of the past.
pub(super) struct Past {
    /// The entries that no part of the history has, or no image.
    pub(super) entries: VecDeque<Arc<Entry>>,
    /// Bytes of entries since the newest image.
    pub(super) meta_bytes: u64,
    /// Where the log ends.
    pub(super) end: Position,
    /// The images, the newest last: two, or one at the beginning.
    pub(super) images: Vec<PagesFile>,
    /// The parts of the history in order.
    pub(super) history: Vec<PagesName>,
}

/// What is where.
pub(super) struct Index {
    pub(super) files: Files,
    pub(super) attachments: BTreeMap<Lsn, Arc<Located>>,
    /// What the image lists of files that are not there. They may come back; a file that is used again had nothing in
    /// it that is needed, and what nobody needs is released at a start.
    pub(super) lost: BTreeMap<Lsn, Kept>,
}

/// An open ring.
pub(super) struct Core {
    pub(super) env: Env,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: RingOptions,
    pub(super) journal: u64,
    /// Bytes that all files together have at most.
    pub(super) bytes_max: u64,
    /// Bytes of attachments in one group; 0 if it takes none.
    pub(super) carries: u64,
    pub(super) tail: Mutex<Tail>,
    pub(super) keeper: Mutex<Keeper>,
    pub(super) preparer: Mutex<Preparer>,
    pub(super) past: Mutex<Past>,
    pub(super) index: Mutex<Index>,
    /// Files that are ready to be used, in order of generation.
    pub(super) ready: Mutex<VecDeque<Arc<RingFile>>>,
    pub(super) last: watch::Sender<Lsn>,
    /// The last commit that is kept elsewhere, as far as anybody said.
    pub(super) forget: AtomicU64,
    pub(super) under_way: UnderWay,
    /// A commit waits for a file or an image, or the journal is being closed: the work beside commits takes no pauses.
    pub(super) hurry: AtomicBool,
    /// The room of the disk, and when it was looked at.
    pub(super) room: Mutex<Option<(Instant, DiskRoom)>>,
    /// Whether the ring is crowded, and when that was looked at.
    pub(super) crowd: Mutex<Option<(Instant, bool)>>,
}

impl Core {
    /// Bytes of all files, those that are ready too.
    pub(super) fn file_bytes(&self) -> u64 {
        let used: u64 = lock(&self.index).files.values().map(|file| file.header.capacity).sum();
        used + lock(&self.ready).iter().map(|file| file.header.capacity).sum::<u64>()
    }
}

/// What a commit needs of the files that are ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Bytes of its frame, if the file in use has no room for them; otherwise 0.
    pub(super) frame: u64,
    /// It brings bytes. The last file is for commits that free others.
    pub(super) attached: bool,
}

impl Wanted {
    pub(super) fn is_met(&self, ready: &VecDeque<Arc<RingFile>>) -> bool {
        let held_back = usize::from(self.attached);
        match self.frame {
            0 => ready.len() >= held_back,
            frame => ready.iter().rev().skip(held_back).any(|file| file.takes(frame)),
        }
    }

    /// Bytes of the largest frame that the next file must take.
    pub(super) fn missing(&self, ready: &VecDeque<Arc<RingFile>>) -> u64 {
        if ready.iter().any(|file| file.takes(self.frame)) { 0 } else { self.frame }
    }
}

/// What the work beside commits needs to know.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Images that were written, ever: the second part of their names.
    pub(super) images: u64,
    /// When this process began to write the last one, or when it began.
    pub(super) wrote: Instant,
}

/// What makes files ready.
#[derive(Debug)]
pub(super) struct Preparer {
    /// The highest number and generation that a file has.
    pub(super) number: u64,
    pub(super) generation: u64,
    /// Since when there are more idle files than are kept.
    pub(super) spare_since: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_doubles_up_to_its_largest_file_and_its_limit() {
        const MIB: u64 = 1 << 20;
        let options = RingOptions::default();
        let grown = |limit: u64| {
            let (mut all, mut files) = (0, Vec::new());
            while let Some((bytes, _)) = options.next_file(all, limit, 0) {
                files.push(bytes / MIB);
                all += bytes;
            }
            files
        };
        assert_eq!(grown(200 * MIB), [4, 4, 8, 16, 32, 64, 64, 8]);
        assert_eq!(
            options.next_file(12 * MIB, 200 * MIB, 20 * MIB),
            Some((20 * MIB + 8192, 20 * MIB + 8192))
        );
        assert_eq!(options.next_file(190 * MIB, 200 * MIB, 20 * MIB), None);
        assert_eq!(
            options.next_file(0, 200 * MIB, options.frame_bytes_max()).map(|(_, least)| least <= 64 * MIB),
            Some(true)
        );
        // A small disk, a large one, one that says nothing, and a setting.
        assert_eq!(options.limit(1 << 30), 192 * MIB);
        assert_eq!(options.limit(8 << 30), 1 << 30);
        assert_eq!((options.limit(1 << 50), options.limit(0)), (4 << 30, 4 << 30));
        let set = |bytes| RingOptions { bytes_max: Some(bytes), ..options };
        assert_eq!((set(9 << 30).limit(1 << 30), set(0).limit(0)), (9 << 30, 192 * MIB));
    }
}
