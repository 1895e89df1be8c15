//! Opens the journal of a directory, whichever files it has.
//!
//! ```text
//! ring/, image/, history/      the ring                                             journal/ring/
//! journal.sqlite               the mark of a ring, which an earlier floe refuses    journal/sqlite/source.rs
//!                              or the journal of an earlier floe, with others      journal/sqlite/
//! ring.new/                    a ring that is made from it                         journal/migrate.rs
//! journal.lock                 locked while a process has the files open
//! reserve                      room on the disk that is given up for deletions
//! ```

use std::io;
use std::path::{Path, PathBuf};

use floe_env::{DISK_RESERVE_BYTES, DiskReserve, Env, FileLock, RealDisk, create_dir_durable};

use crate::journal::inspected::Inspected;
use crate::journal::migrate::{ASIDE, MigrateError, migrate, settle};
use crate::journal::ring::{self, RingJournal, RingOpenError, RingOptions};
use crate::journal::sqlite::{self, SqliteOpenError, source};

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
    /// The journal of an earlier floe was not moved to a ring.
    #[error(transparent)]
    Migrate(MigrateError),
    /// There are two journals.
    #[error(
        "{path} has a journal in SQLite, and a ring as well: one of them is a copy from elsewhere. Move journal.sqlite \
         away if it is the older one, otherwise the directories ring, image and history"
    )]
    Both {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot open the journal in {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

impl From<MigrateError> for JournalOpenError {
    fn from(error: MigrateError) -> JournalOpenError {
        match error {
            MigrateError::Sqlite(error) => error.into(),
            error => JournalOpenError::Migrate(error),
        }
    }
}

/// Opens the journal of a directory. In an empty one it makes a ring, and the journal of an earlier floe, which is in
/// SQLite, it moves to one: this takes as long as reading all of it.
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
    let JournalOptions { reserve_bytes, carries, ring: limits } = options;
    let found = look(directory)?;
    match found {
        Found::Marked => {
            settle(directory, &mut |_| ()).map_err(failed)?;
            // Without one a ring would begin anew.
            has_ring(directory).map_err(failed)?.then_some(()).ok_or_else(|| RingOpenError::NoImage {
                directory: directory.join("image").display().to_string(),
                reason: "there is none, and journal.sqlite says that there was one".to_owned(),
            })?;
        }
        Found::Sqlite => migrate(env, directory, reserve_bytes, limits, &mut |_| ())?,
        Found::Ring | Found::Nothing => {}
    }
    let journal = RingJournal::open_locked(env, directory, file_lock, reserve_bytes, carries, limits)?;
    if matches!(found, Found::Ring | Found::Nothing)
        && let Err(reason) = source::mark(directory)
    {
        // A full disk must not keep a process out that could make room.
        tracing::warn!(reason, "cannot write the mark that keeps an earlier floe away from the journal");
    }
    Ok(journal)
}

/// Whether a directory has a journal of any kind, or files of one.
///
/// # Errors
/// The directory cannot be read, or has two journals.
pub fn has_journal(directory: &Path) -> Result<bool, JournalOpenError> {
    Ok(look(directory)? != Found::Nothing)
}

/// Reads and compares everything in the journal of a directory that no process uses, and changes nothing.
///
/// # Errors
/// A process uses the journal, or there is none, or it cannot be read at all.
pub fn inspect(directory: &Path) -> Result<Inspected, JournalOpenError> {
    let (_lock, is_ring) = lock_to_look(directory)?;
    Ok(match is_ring {
        true => ring::inspect::inspect(&RealDisk::read_only(directory))?,
        false => sqlite::inspect::inspect(directory)?,
    })
}

/// Moves a damaged image away, so that the next start takes another one, or makes a new one. Returns where it is.
///
/// # Errors
/// A process uses the journal, or nothing can take the place of the image, or the file system refuses.
pub fn set_image_aside(directory: &Path) -> Result<PathBuf, JournalOpenError> {
    let failed = |source| JournalOpenError::Io { path: directory.to_owned(), source };
    let (_lock, is_ring) = lock_to_look(directory)?;
    if !is_ring {
        return Ok(sqlite::inspect::set_image_aside(directory)?);
    }
    let read = RealDisk::read_only(directory);
    let write = RealDisk::new(directory, "the journal", DiskReserve::new(directory, 0)).map_err(failed)?;
    Ok(directory.join(ring::inspect::set_image_aside(&read, &write)?))
}

/// The lock of a directory that has a journal, and whether that is a ring. Taking the lock creates its file, and a
/// mistyped directory must not get one.
fn lock_to_look(directory: &Path) -> Result<(FileLock, bool), JournalOpenError> {
    let is_ring = matches!(look(directory)?, Found::Marked | Found::Ring);
    if !is_ring {
        sqlite::inspect::check_there(directory)?;
    }
    let file_lock = take_lock(directory)?;
    let aside = directory.join(ASIDE);
    if is_ring && aside.exists() {
        let reason = "its move from SQLite to a ring was cut off: a start goes on with it";
        return Err(JournalOpenError::Io { path: aside, source: io::Error::other(reason) });
    }
    Ok((file_lock, is_ring))
}

/// What a directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A ring, and the mark of one.
    Marked,
    /// A ring without its mark.
    Ring,
    /// A journal in SQLite, or some of its files.
    Sqlite,
    /// Nothing.
    Nothing,
}

/// Looks at the names in a directory.
fn look(directory: &Path) -> Result<Found, JournalOpenError> {
    let failed = |source| JournalOpenError::Io { path: directory.to_owned(), source };
    let ring = has_ring(directory).map_err(failed)?;
    if source::is_marked(directory).map_err(failed)? {
        return Ok(Found::Marked);
    }
    match (ring, source::is_there(directory)) {
        (true, true) => Err(JournalOpenError::Both { path: directory.to_owned() }),
        (true, false) => Ok(Found::Ring),
        (false, true) => Ok(Found::Sqlite),
        (false, false) => Ok(Found::Nothing),
    }
}

/// Whether there is an image of a ring.
fn has_ring(directory: &Path) -> io::Result<bool> {
    let names = match std::fs::read_dir(directory.join("image")) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for name in names {
        let name = name?.file_name();
        let name = name.to_string_lossy();
        if name != "writing" && !name.starts_with("damaged") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the lock of a directory.
fn take_lock(directory: &Path) -> Result<FileLock, JournalOpenError> {
    let failed = |source| JournalOpenError::Io { path: directory.to_owned(), source };
    match FileLock::take(&directory.join("journal.lock")).map_err(failed)? {
        Ok(file_lock) => Ok(file_lock),
        Err(holder) => Err(JournalOpenError::InUse { path: directory.to_owned(), holder }),
    }
}
