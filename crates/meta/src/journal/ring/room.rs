//! The room of the disk. The files of a ring are written over and need none; new files, images and parts of the history
//! do, and the last of it is kept for deletions.

use std::io;

use floe_env::{DiskRoom, lock};

use super::state::Core;
use crate::limits::RING_ROOM_LOOK;

impl Core {
    /// The room of the disk: that of now, or what was seen a moment ago if that was enough. The metrics get it, too.
    ///
    /// # Errors
    /// The file system does not answer.
    pub(super) fn room(&self) -> io::Result<DiskRoom> {
        let now = self.env.monotonic();
        let seen = *lock(&self.room);
        if let Some((at, room)) = seen
            && room.holds(0)
            && now.duration_since(at) < RING_ROOM_LOOK
        {
            return Ok(room);
        }
        let room = self.disk.room()?;
        metrics::gauge!("floe_meta_disk_free_bytes").set(room.free as f64);
        metrics::gauge!("floe_meta_only_deletions").set(f64::from(room.only_deletions()));
        *lock(&self.room) = Some((now, room));
        Ok(room)
    }

    /// Why only deletions may be committed now, if so.
    pub(super) fn only_deletions(&self) -> Option<String> {
        match self.room() {
            Ok(room) => room.only_deletions().then(|| {
                format!(
                    "the disk of the metadata is nearly full, the last {} bytes are kept for deletions: delete topics \
                     or free some space",
                    room.free
                )
            }),
            Err(error) => {
                // The commit itself finds out whether the disk takes it.
                tracing::warn!(%error, "cannot tell how full the disk of the metadata is");
                None
            }
        }
    }

    /// Makes room for a commit that found none, if there is a part of the disk that is kept for that. The committer lets
    /// only deletions come this far. Returns whether it did.
    pub(super) fn give_up_reserve(&self) -> bool {
        self.disk.give_up_reserve().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot give the reserve for deletions up");
            false
        })
    }
}

/// Whether the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
