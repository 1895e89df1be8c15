//! Opens the journal of a directory, whichever files it has.
//!
//! ```text
//! ring/, image/, history/      the ring                                             journal/ring/
//! journal.sqlite, ...          the journal of an earlier floe                       journal/sqlite/
//! journal.lock                 locked while a process has the files open
//! reserve                      room on the disk that is given up for deletions
//! ```

use std::io;
use std::path::{Path, PathBuf};

use floe_env::{DISK_RESERVE_BYTES, Env, FileLock, create_dir_durable};

use crate::journal::ring::{RingJournal, RingOpenError, RingOptions};
use crate::journal::sqlite::SqliteOpenError;

/// What a broker says of its journal.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// Bytes of the disk that are kept for deletions.
    pub reserve_bytes: u64,
    /// Whether commits bring bytes. Where they do not, as with a store in a bucket, those of earlier runs can still be
    /// read and released.
    pub carries: bool,
    /// Limits of the ring.
    pub ring: RingOptions,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions { reserve_bytes: DISK_RESERVE_BYTES, carries: true, ring: RingOptions::default() }
    }
}

/// Why the journal of a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// Another process has the files open.
    #[error("the metadata in {path} is in use by another process ({holder}): stop it first")]
    InUse {
        /// The journal's directory.
        path: PathBuf,
        /// What the other process wrote about itself.
        holder: String,
    },
    /// The ring cannot be opened.
    #[error(transparent)]
    Ring(#[from] RingOpenError),
    /// The journal of an earlier floe cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] SqliteOpenError),
    /// The file system refused.
    #[error("cannot open the journal in {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// Opens the journal of a directory. In an empty one it makes a ring.
///
/// # Errors
/// See [`JournalOpenError`].
pub fn open_journal(
    env: &Env,
    directory: &Path,
    options: JournalOptions,
) -> Result<RingJournal, JournalOpenError> {
    let failed = |source| JournalOpenError::Io { path: directory.to_owned(), source };
    create_dir_durable(directory).map_err(failed)?;
    let file_lock = take_lock(directory)?;
    if directory.join("journal.sqlite").exists() {
        let reason = "journal.sqlite is of an earlier floe, and this build cannot move it yet";
        return Err(failed(io::Error::new(io::ErrorKind::Unsupported, reason)));
    }
    let JournalOptions { reserve_bytes, carries, ring } = options;
    Ok(RingJournal::open_locked(env, directory, file_lock, reserve_bytes, carries, ring)?)
}

/// Takes the lock of a directory.
fn take_lock(directory: &Path) -> Result<FileLock, JournalOpenError> {
    let failed = |source| JournalOpenError::Io { path: directory.to_owned(), source };
    match FileLock::take(&directory.join("journal.lock")).map_err(failed)? {
        Ok(file_lock) => Ok(file_lock),
        Err(holder) => Err(JournalOpenError::InUse { path: directory.to_owned(), holder }),
    }
}
