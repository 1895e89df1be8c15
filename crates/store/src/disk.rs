//! How much room a disk has.

use std::io;
use std::path::Path;

use crate::limits::{DISK_RESERVE_BYTES, DISK_RESERVE_SHARE};

/// Bytes that may still be written to the disk of `path`, beside the reserve that is kept for the metadata. `None` for a
/// file system that does not say how large it is.
///
/// # Errors
/// The file system does not answer.
pub fn room(path: &Path) -> io::Result<Option<u64>> {
    let disk = rustix::fs::statvfs(path)?;
    if disk.f_blocks == 0 {
        return Ok(None);
    }
    let kept = DISK_RESERVE_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / DISK_RESERVE_SHARE);
    Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_a_missing_directory_none() {
        let room_here = room(&std::env::temp_dir()).unwrap();
        assert!(room_here.is_none_or(|bytes| bytes < 1 << 60));
        assert!(room(Path::new("/no such directory")).is_err());
    }
}
