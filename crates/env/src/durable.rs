//! Files and directories whose names and bytes survive a power cut, and file locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::fatal::end_process;

/// Creates a directory and its missing parents. Each name is synced before the next directory is created in it, so
/// after a crash only the lowest name is in doubt. For that reason the name of an existing directory is synced too.
pub fn create_dir_durable(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        // The root or the working directory.
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    if path.is_dir() {
        return match sync_dir(parent) {
            // We did not create it in a parent that we may not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    create_dir_durable(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    sync_dir(parent)
}

/// Makes the names in the directory `path` durable (`fsync`), or ends the process.
///
/// # Errors
/// The directory cannot be opened, for example because the process has no file descriptors left.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    // Not `fdatasync`: POSIX does not say that it syncs names.
    or_end_process(File::open(path)?.sync_all(), "a directory");
    Ok(())
}

/// Makes the bytes of `file` durable (`fdatasync`), or ends the process. `what` is for the message, for example "the
/// journal".
///
/// After a failed sync the kernel may drop the dirty pages and report success the next time. This process would then
/// believe in bytes that are not on the disk. So it must not go on, and it must not try again.
pub fn sync_data(file: &File, what: &str) {
    or_end_process(file.sync_data(), what);
}

fn or_end_process(synced: io::Result<()>, what: &str) {
    if let Err(error) = synced {
        end_process(&format!("a sync of {what} failed"), &error);
    }
}

/// An exclusive lock on a file, held as long as this value lives. The system frees it when the process ends in any way.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or returns the text that its holder wrote into the file.
    pub fn take(path: &Path) -> io::Result<Result<FileLock, String>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.take(100).read_to_string(&mut holder)?;
                return Ok(Err(holder.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        match writeln!(file, "process {}", std::process::id()) {
            // The text is for people. A full disk must not keep a process out that could make room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written?,
        }
        Ok(Ok(FileLock { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_from_the_top() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b/c");
        for _ in 0..2 {
            create_dir_durable(&path).unwrap();
            assert!(path.is_dir());
        }
        // Paths without a parent to sync, and a path in the working directory.
        for path in ["", ".", "..", "/", "src", "src/.."] {
            create_dir_durable(Path::new(path)).unwrap();
        }
        fs::write(path.join("file"), "").unwrap();
        let blocked = create_dir_durable(&path.join("file")).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::AlreadyExists);
        assert!(create_dir_durable(&path.join("file/d")).is_err());
    }
}
