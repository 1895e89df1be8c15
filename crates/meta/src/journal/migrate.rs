//! Moves the journal of an earlier floe, which is in SQLite, to a ring.
//!
//! 1. The ring is made aside, in `ring.new`: the map is its image, and every entry that is kept is in its history. All
//!    of it is compared with the checksums of the old journal, and read back.
//! 2. The old journal is closed, so that its own file has everything.
//! 3. A mark takes the place of that file. This is the one step that counts: before it the ring aside is nothing, and
//!    after it the old files are nothing.
//! 4. The ring is moved to its place, and the old files are removed.
//!
//! A start that finds a mark does the last step again; one that finds the old journal begins anew.

use std::fs;
use std::io;
use std::path::Path;

use floe_env::{DiskReserve, Env, RealDisk, sync_dir};

use crate::journal::Lsn;
use crate::journal::ring::build::{Builder, DIRECTORIES};
use crate::journal::ring::{RingOpenError, RingOptions};
use crate::journal::sqlite::SqliteOpenError;
use crate::journal::sqlite::source::{self, Source};

/// Where the ring is made.
pub(crate) const ASIDE: &str = "ring.new";

/// Why a journal was not moved. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The old journal cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] SqliteOpenError),
    /// The old journal cannot be read as a whole.
    #[error("the journal in SQLite was not moved to a ring, and is as it was: {0}")]
    Unread(String),
    /// The ring cannot be made.
    #[error("the journal in SQLite was not moved to a ring, and is as it was: {0}")]
    Ring(#[from] RingOpenError),
    /// The file system refused.
    #[error("the journal in SQLite was not moved to a ring: {0}")]
    Io(#[from] io::Error),
}

/// Moves the journal of a directory, which this process has locked. `reserve_bytes` of the disk are kept for deletions.
/// `done` is called after each step.
pub(crate) fn migrate(
    env: &Env,
    directory: &Path,
    reserve_bytes: u64,
    options: RingOptions,
    done: &mut dyn FnMut(&str),
) -> Result<(), MigrateError> {
    clear(directory)?;
    let reserve = DiskReserve::new(directory, reserve_bytes);
    let source = Source::open(directory, env.random_u128(), reserve.begin()?)?;
    done("opened");
    let (first, last) = (source.first(), source.last());
    tracing::info!(directory = %directory.display(), first = first.0, last = last.0, "moves the journal to a ring");
    if let Err(error) = build(env, &directory.join(ASIDE), &source, reserve, options, done) {
        clear(directory)?;
        return Err(error);
    }
    source.close().map_err(MigrateError::Unread)?;
    done("closed");
    source::mark(directory).map_err(MigrateError::Unread)?;
    done("marked");
    tracing::info!(last = last.0, "the journal is a ring now, with every commit");
    settle(directory, done)?;
    Ok(())
}

/// Makes the ring aside.
fn build(
    env: &Env,
    aside: &Path,
    source: &Source,
    reserve: DiskReserve,
    options: RingOptions,
    done: &mut dyn FnMut(&str),
) -> Result<(), MigrateError> {
    let map = source.map().map_err(MigrateError::Unread)?;
    done("read");
    let disk = RealDisk::new(aside, "the journal", reserve)?;
    let mut ring = Builder::begin(env, &disk, options, source.first())?;
    let mut at = Lsn(source.first().0 - 1);
    while at < source.last() {
        let entries = source.entries(at).map_err(MigrateError::Unread)?;
        ring.part(&entries)?;
        at = entries.last().map_or(source.last(), |last| last.lsn);
        tracing::info!(
            commit = at.0,
            of = source.last().0,
            "commits of the old journal are in the history of the ring"
        );
        done("part");
    }
    ring.image(&map)?;
    done("built");
    Ok(())
}

/// Moves a ring that counts to its place, and removes what it has replaced. Does nothing if that was done.
pub(crate) fn settle(directory: &Path, done: &mut dyn FnMut(&str)) -> io::Result<()> {
    let aside = directory.join(ASIDE);
    for name in DIRECTORIES {
        let (from, to) = (aside.join(name), directory.join(name));
        if from.exists() {
            fs::rename(from, to)?;
            done("moved");
        }
    }
    // The names must be in their place before the last trace of the move goes.
    sync_dir(directory)?;
    source::remove_replaced(directory)?;
    done("removed");
    clear(directory)
}

/// Removes what lies aside.
fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory.join(ASIDE)) {
        Ok(()) => sync_dir(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "migrate_tests.rs"]
mod tests;
