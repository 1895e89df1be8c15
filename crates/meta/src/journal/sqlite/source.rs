//! Reads all of a journal for the one that takes its place, and leaves the mark that it did.
//!
//! The mark is a database under the journal's name, with a newer format and nothing else. So an earlier floe refuses
//! the directory in its own words, and the exchange of the two files is one rename.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::journal::sqlite::base::BASE;
use crate::journal::sqlite::files::{
    IMAGE, JOURNAL, KeeperFiles, Opened, SqliteOpenError, entries, open, set_closed,
};
use crate::journal::sqlite::image::read_image;
use crate::journal::{Entry, Lsn};
use crate::limits::{ENTRIES_MAX, RING_HISTORY_BYTES};
use crate::snapshot::Snapshot;
use floe_env::{DiskRoom, sync_data, sync_dir};

/// The format of a mark.
const MARK_FORMAT: i64 = 3;
/// What tells a mark from a journal without opening it: `FLOR`, in the header of the database.
const APPLICATION: i64 = 0x464c_4f52;
/// Where the header has it.
const APPLICATION_AT: usize = 68;
/// What the mark is called until it is whole.
const WRITING: &str = "journal.sqlite.mark";

/// A journal whose commits go elsewhere. No process uses it.
pub(crate) struct Source {
    directory: PathBuf,
    opened: Opened,
}

impl Source {
    /// Opens the files of a directory with all checks of a start. `room` is that of the disk.
    pub(crate) fn open(directory: &Path, id: u128, room: DiskRoom) -> Result<Source, SqliteOpenError> {
        Ok(Source { directory: directory.to_owned(), opened: open(directory, id, room)? })
    }

    /// The last commit.
    pub(crate) fn last(&self) -> Lsn {
        self.opened.last
    }

    /// The first commit that is kept, or the one that would come first.
    pub(crate) fn first(&self) -> Lsn {
        self.opened.keeper.first
    }

    /// The map after the last commit. Everything that makes it is compared with its checksums.
    pub(crate) fn map(&self) -> Result<Snapshot, String> {
        let KeeperFiles { image, folded, .. } = &self.opened.keeper;
        let pairs = read_image(image, folded.sum).map_err(|reason| {
            format!(
                "the image of the metadata is damaged: {reason}. It is made from the journal beside it: `floe check` \
                 says whether the journal is whole, and with --repair sets the image aside, so that the next start \
                 makes a new one"
            )
        })?;
        let mut map = Snapshot::of_image(pairs, folded.lsn);
        while map.lsn() < self.last() {
            for entry in self.entries(map.lsn())? {
                map.apply(entry.lsn, &entry.changes);
            }
        }
        Ok(map)
    }

    /// Some entries after `from`, with no gap before or between them.
    pub(crate) fn entries(&self, from: Lsn) -> Result<Vec<Entry>, String> {
        let bytes_max = usize::try_from(RING_HISTORY_BYTES).unwrap_or(usize::MAX);
        let found = entries(&self.opened.keeper.reader, from, ENTRIES_MAX, bytes_max)?.entries;
        let mut due = from;
        for entry in &found {
            due = due.next();
            if entry.lsn != due {
                return Err(format!("entry {due} of the journal is missing, {} follows", entry.lsn));
            }
        }
        match found.is_empty() {
            true => Err(format!("the entries after {from} cannot be found")),
            false => Ok(found),
        }
    }

    /// Closes the files, so that all of the journal is in its own file and nothing is beside it.
    pub(crate) fn close(self) -> Result<(), String> {
        let Source { directory, opened } = self;
        let Opened { writer, keeper, database, .. } = opened;
        drop(keeper);
        set_closed(&writer, true).map_err(|error| error.to_string())?;
        drop(writer);
        drop(database);
        let log = directory.join(format!("{JOURNAL}-wal"));
        if log.metadata().is_ok_and(|log| log.len() > 0) {
            return Err(format!("{} could not be emptied", log.display()));
        }
        // A log beside another file of this name would count as part of that.
        remove(&directory, &[&format!("{JOURNAL}-wal"), &format!("{JOURNAL}-shm")])
            .map_err(|error| error.to_string())
    }
}

/// Whether the directory has a mark in place of a journal.
///
/// # Errors
/// The file system refused.
pub(crate) fn is_marked(directory: &Path) -> io::Result<bool> {
    let mut head = [0; APPLICATION_AT + 4];
    match File::open(directory.join(JOURNAL)).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => {
            Ok(head.starts_with(b"SQLite format 3\0")
                && i64::from(u32_at(&head, APPLICATION_AT)) == APPLICATION)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut"))
}

/// Whether the directory has files of a journal in SQLite, or a mark.
pub(crate) fn is_there(directory: &Path) -> bool {
    // A file without a byte is none: SQLite makes it before it writes. Its write-ahead log may have all the bytes.
    let has_bytes = |file: &str| fs::metadata(directory.join(file)).is_ok_and(|found| found.len() > 0);
    [JOURNAL, IMAGE, BASE].iter().any(|file| has_bytes(file) || has_bytes(&format!("{file}-wal")))
}

/// Puts the mark in the place of the journal, durably and in one step.
///
/// # Errors
/// The file system or SQLite refused; then the journal is still there.
pub(crate) fn mark(directory: &Path) -> Result<(), String> {
    remove(directory, &[WRITING]).map_err(|error| error.to_string())?;
    let aside = directory.join(WRITING);
    write_mark(&aside).map_err(|error| error.to_string())?;
    let named = || -> io::Result<()> {
        sync_data(&File::open(&aside)?, "the mark of the journal");
        fs::rename(&aside, directory.join(JOURNAL))?;
        sync_dir(directory)
    };
    named().map_err(|error| error.to_string())
}

fn write_mark(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    // It is synced as a whole when it is closed.
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE meta(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES('format', {MARK_FORMAT}), ('journal', 'in ring, image and history');
         COMMIT;"
    ))
}

/// Removes what the mark has replaced.
///
/// # Errors
/// The file system refused; the next call goes on.
pub(crate) fn remove_replaced(directory: &Path) -> io::Result<()> {
    let ends = ["", "-wal", "-shm", ".writing"];
    let beside = ends.iter().flat_map(|end| [format!("{IMAGE}{end}"), format!("{BASE}{end}")]);
    let names: Vec<String> = beside.chain(["-wal", "-shm"].map(|end| format!("{JOURNAL}{end}"))).collect();
    remove(directory, &names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Removes files that may be missing.
fn remove(directory: &Path, names: &[&str]) -> io::Result<()> {
    let mut removed = false;
    for name in names {
        match fs::remove_file(directory.join(name)) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if removed { sync_dir(directory) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::SqliteJournal;
    use floe_env::Env;

    #[test]
    fn a_file_without_a_byte_is_no_journal() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
        assert!(!is_there(directory.path()));
        write(JOURNAL, b"");
        assert!(!is_there(directory.path()));
        write("journal.sqlite-wal", b"a log");
        assert!(is_there(directory.path()), "its log has what the file has not");
        write("journal.sqlite-wal", b"");
        write(BASE, b"a base");
        assert!(is_there(directory.path()));
    }

    #[test]
    fn an_earlier_floe_refuses_a_mark_in_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_marked(directory.path()).unwrap() && !is_there(directory.path()));
        drop(SqliteJournal::open(&Env::real(), directory.path()).unwrap());
        assert!(!is_marked(directory.path()).unwrap() && is_there(directory.path()));
        mark(directory.path()).unwrap();
        assert!(is_marked(directory.path()).unwrap());
        let refused = SqliteJournal::open(&Env::real(), directory.path()).unwrap_err();
        assert!(matches!(refused, SqliteOpenError::NewerFormat { found: 3, known: 2, .. }), "{refused}");
        assert!(is_marked(directory.path()).unwrap(), "it has not changed");
        remove_replaced(directory.path()).unwrap();
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(
            left.iter().all(|name| name == JOURNAL || name == "journal.lock" || name == "reserve"),
            "{left:?}"
        );
    }
}
