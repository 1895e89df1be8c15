//! The packs of a store by their use: where the next region goes, and which packs go back to the file system.

use std::collections::VecDeque;
use std::sync::Arc;

use floe_env::DISK_RESERVE_BYTES;

use crate::limits::{PACK_BYTES_FIRST, PACK_BYTES_MAX, PACKS_AHEAD, PACKS_IN_USE_PER_SPARE};
use crate::local::pack::{Pack, Ready};

/// Sizes of a local store. Tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the first pack. Each new one is twice the last.
    pub pack_bytes_first: u64,
    /// Bytes of the largest pack.
    pub pack_bytes_max: u64,
    /// Packs that are zero-filled ahead of use.
    pub packs_ahead: usize,
    /// Bytes of the disk that are kept for deletions.
    pub disk_reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pack_bytes_first: PACK_BYTES_FIRST,
            pack_bytes_max: PACK_BYTES_MAX,
            packs_ahead: PACKS_AHEAD,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
        }
    }
}

/// The packs by their use, and where the next region goes.
pub(super) struct Space {
    pub(super) active: Option<Active>,
    pub(super) sealed: Vec<Arc<Pack>>,
    /// Packs with damage. They are read and never written, and their space is neither used again nor given back.
    pub(super) quarantined: Vec<Arc<Pack>>,
    pub(super) ready: Vec<Ready>,
    /// Packs that are not needed and go back to the file system.
    pub(super) surplus: VecDeque<Ready>,
    pub(super) number_next: u64,
    pub(super) generation_next: u64,
    pub(super) capacity_next: u64,
}

/// The pack that takes new regions.
pub(super) struct Active {
    pub(super) pack: Arc<Pack>,
    pub(super) next: u64,
}

impl Space {
    /// The space of a store without packs.
    pub(super) fn empty(options: &Options) -> Space {
        Space {
            active: None,
            sealed: Vec::new(),
            quarantined: Vec::new(),
            ready: Vec::new(),
            surplus: VecDeque::new(),
            number_next: 1,
            generation_next: 1,
            capacity_next: options.pack_bytes_first,
        }
    }

    /// Moves packs without living regions from `sealed` to `ready`, and those that are not worth keeping to `surplus`.
    pub(super) fn recycle(&mut self) {
        let (idle, sealed) = std::mem::take(&mut self.sealed).into_iter().partition(|pack| pack.idle());
        self.sealed = sealed;
        let idle: Vec<Arc<Pack>> = idle;
        for pack in idle {
            match pack.into_ready() {
                // One with holes is not written to again. If nobody can tell, a fresh one is better.
                Ok(ready) if ready.is_whole().unwrap_or(false) => self.ready.push(ready),
                Ok(ready) => self.surplus.push_back(ready),
                // Its last region is being dropped at this moment. The next call will find it idle.
                Err(pack) => self.sealed.push(pack),
            }
        }
    }

    /// Moves ready packs to `surplus`, and keeps some for their next use; none where the disk is `short` of room.
    pub(super) fn thin_out(&mut self, options: &Options, short: bool) {
        let kept = options.packs_ahead + self.sealed.len() / PACKS_IN_USE_PER_SPARE;
        let kept = if short { 0 } else { kept };
        self.surplus.extend(self.ready.drain(kept.min(self.ready.len())..));
    }

    /// The packs that hold regions, without those in quarantine.
    pub(super) fn in_use(&self) -> Vec<Arc<Pack>> {
        self.sealed.iter().chain(self.active.as_ref().map(|active| &active.pack)).cloned().collect()
    }

    /// Assigns number and size to a new pack.
    pub(super) fn new_pack(&mut self, options: &Options) -> (u64, u64) {
        let created = (self.number_next, self.capacity_next);
        self.number_next += 1;
        self.capacity_next =
            (self.capacity_next * 2).min(options.pack_bytes_max).max(options.pack_bytes_first);
        created
    }
}
