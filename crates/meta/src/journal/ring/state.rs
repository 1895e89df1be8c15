//! The state of an open ring. Locks are taken in the order of its fields, and none but that of the tail is held while a
//! frame is written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use floe_env::{BlockBuffer, Disk, DiskRoom, Env};
use tokio::sync::watch;
use tokio::time::Instant;

use super::file::{Position, RingFile};
use super::frame::BLOCK;
use super::recovery::Files;
use super::store::{PagesFile, PagesName};
use crate::journal::{Entry, Lsn};
use crate::limits::FRAME_BYTES_MAX;

/// Limits of a ring that tests and special deployments change. [`crate::limits`] holds the defaults.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Bytes of each file.
    pub file_bytes: u64,
    /// Files that the ring has at most. The last one takes only commits without attachments.
    pub files_max: usize,
    /// Bytes of entries after which the next image is written.
    pub image_bytes: u64,
    /// Bytes under which a part of the history is written again with the next one.
    pub history_bytes: u64,
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions {
            file_bytes: crate::limits::RING_FILE_BYTES,
            files_max: crate::limits::RING_FILES_MAX,
            image_bytes: crate::limits::RING_IMAGE_BYTES,
            history_bytes: crate::limits::RING_HISTORY_BYTES,
        }
    }
}

impl RingOptions {
    /// The largest frame.
    pub(super) fn frame_bytes_max(&self) -> u64 {
        (self.file_bytes - 2 * BLOCK).min(FRAME_BYTES_MAX)
    }

    /// Bytes of attachments in one group.
    pub(super) fn carries(&self) -> u64 {
        (self.frame_bytes_max() / 2).min(crate::limits::ATTACHMENTS_BYTES_MAX)
    }
}

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
    pub(super) entries: VecDeque<Entry>,
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
}

/// An open ring.
pub(super) struct Core {
    pub(super) env: Env,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: RingOptions,
    pub(super) journal: u64,
    /// Bytes of attachments in one group; 0 if it takes none.
    pub(super) carries: u64,
    pub(super) tail: Mutex<Tail>,
    pub(super) keeper: Mutex<Keeper>,
    pub(super) past: Mutex<Past>,
    pub(super) index: Mutex<Index>,
    /// Files that are ready to be used, in order of generation.
    pub(super) ready: Mutex<VecDeque<Arc<RingFile>>>,
    pub(super) last: watch::Sender<Lsn>,
    /// The last commit that is kept elsewhere, as far as anybody said.
    pub(super) forget: AtomicU64,
    /// The room of the disk, and when it was looked at.
    pub(super) room: Mutex<Option<(Instant, DiskRoom)>>,
}

/// What the work beside commits needs to know.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The highest number and generation that a file has.
    pub(super) number: u64,
    pub(super) generation: u64,
    /// Images that were written, ever: the second part of their names.
    pub(super) images: u64,
    /// Since when there are more idle files than are kept.
    pub(super) spare_since: Option<Instant>,
}
