//! Looks at the files of a journal that no process uses, all of them, and changes nothing. Starting a broker reads the
//! image and the entries after it; here every entry is read, and the image is compared with what the entries make.
//! Where the journal has let go of the first ones, that begins with the base.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::journal::Lsn;
use crate::journal::inspected::Inspected;
use crate::journal::sqlite::base::{self, BASE};
use crate::journal::sqlite::files::{
    IMAGE, JOURNAL, SqliteOpenError, check_both, check_format, entries, entry_crc, first_lsn, last_lsn,
};
use crate::journal::sqlite::image::{fold_of, meta, read_image};
use crate::limits::{ENTRIES_BYTES_MAX, ENTRIES_MAX};
use crate::snapshot::Snapshot;

/// Reads and compares everything in the journal of a directory.
///
/// # Errors
/// It is not a journal of this version of Floe, or not a database any more.
pub(crate) fn inspect(directory: &Path) -> Result<Inspected, SqliteOpenError> {
    let path = directory.join(JOURNAL);
    let failed = |source| SqliteOpenError::Database { path: path.clone(), source };
    let journal = look(&path)?;
    let mut found = Inspected::default();
    let log = directory.join(format!("{JOURNAL}-wal"));
    let log_exists = log.metadata().is_ok_and(|log| log.len() > 0);
    if !log_exists && meta::<i64>(&journal, "closed").map_err(failed)? == 0 {
        found.journal.push(SqliteOpenError::LostLog { path: log }.to_string());
    }
    found.journal.extend(integrity(&journal));
    let image = Image::read(directory, &journal, &mut found.image);
    let last = last_lsn(&journal).map_err(failed)?;
    if let Some(image) = image.as_ref().filter(|image| image.lsn > last) {
        found
            .journal
            .push(SqliteOpenError::Older { path: path.clone(), last, folded: image.lsn }.to_string());
    }
    let begun = begin(directory, &journal, &mut found);
    if let Err(reason) = begun.and_then(|()| fold(&journal, last, image.as_ref(), &mut found)) {
        match image.filter(|image| image.lsn > found.last && found.image.is_empty()) {
            // A start goes on from the image.
            Some(image) => {
                let lsn = image.lsn;
                found.history.push(format!(
                    "{reason}; the image has what came of it and of all commits up to {lsn}, so a broker starts, but who \
                     made them cannot all be told"
                ));
                found.snapshot = Snapshot::of_image(image.pairs.into_iter().collect(), lsn);
                found.last = lsn;
                let after = fold(&journal, last, None, &mut found);
                found.journal.extend(after.err());
            }
            None => found.journal.push(reason),
        }
    }
    Ok(found)
}

/// Moves the files of the image away, so that the next start makes a new one from the journal. Returns where they are.
///
/// # Errors
/// The file system refuses.
pub(crate) fn set_image_aside(directory: &Path) -> Result<PathBuf, SqliteOpenError> {
    let failed = |source| SqliteOpenError::Io { path: directory.to_owned(), source };
    let place = |number: u32| directory.join(format!("{IMAGE}.damaged-{number}"));
    let aside = (1..).map(place).find(|place| !place.exists()).expect("numbers do not run out");
    // The file goes last: while it is there, the next start refuses.
    for ending in ["-shm", "-wal", ""] {
        let to = aside.with_file_name(format!(
            "{}{ending}",
            aside.file_name().and_then(|name| name.to_str()).expect("the name was just made")
        ));
        match std::fs::rename(directory.join(format!("{IMAGE}{ending}")), to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    floe_env::sync_dir(directory).map_err(failed)?;
    Ok(aside)
}

/// Refuses a directory that has no journal.
pub(crate) fn check_there(directory: &Path) -> Result<(), SqliteOpenError> {
    check_both(directory)?;
    let path = directory.join(JOURNAL);
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(source) => Err(SqliteOpenError::Io { path, source }),
    }
}

fn look(path: &Path) -> Result<Connection, SqliteOpenError> {
    let failed = |source| SqliteOpenError::Database { path: path.to_owned(), source };
    // Reading a write-ahead log takes a shared file beside it, which is written.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    check_format(&connection, path)?;
    Ok(connection)
}

/// What SQLite itself finds wrong with the structure of a file.
fn integrity(connection: &Connection) -> Vec<String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("PRAGMA integrity_check(10)")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    };
    match read() {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// A readable image.
struct Image {
    lsn: Lsn,
    pairs: BTreeMap<Bytes, Bytes>,
}

impl Image {
    fn read(directory: &Path, journal: &Connection, damage: &mut Vec<String>) -> Option<Image> {
        let path = directory.join(IMAGE);
        if !path.exists() {
            return None;
        }
        let read = || -> Result<Image, String> {
            let connection = look(&path).map_err(|error| error.to_string())?;
            if let Some(damage) = integrity(&connection).into_iter().next() {
                return Err(damage);
            }
            let id: Vec<u8> = meta(journal, "id").map_err(|error| error.to_string())?;
            let fold = fold_of(&connection, &id)?;
            let there = entry_crc(journal, fold.lsn).map_err(|error| error.to_string())?;
            let last = last_lsn(journal).map_err(|error| error.to_string())?;
            if fold.lsn <= last && there != fold.entry {
                return Err(format!("its commit {} is not that of the journal", fold.lsn));
            }
            let pairs = read_image(&connection, fold.sum)?.into_iter().collect();
            Ok(Image { lsn: fold.lsn, pairs })
        };
        match read() {
            Ok(image) => Some(image),
            Err(reason) => {
                damage.push(format!("{}: {reason}", path.display()));
                None
            }
        }
    }

    fn compare(&self, snapshot: &Snapshot, damage: &mut Vec<String>) {
        let same = self.pairs.len() == snapshot.len() && self.pairs.iter().eq(snapshot.pairs());
        if !same {
            damage.push(format!("the image is not what the journal makes up to commit {}", self.lsn));
        }
    }
}

/// Begins with the base, where the journal has let go of the entries before it.
fn begin(directory: &Path, journal: &Connection, found: &mut Inspected) -> Result<(), String> {
    let first = first_lsn(journal).map_err(|error| error.to_string())?;
    if first <= Lsn(1) {
        return Ok(());
    }
    let path = directory.join(BASE);
    let read = || -> Result<_, String> {
        let id: Vec<u8> = meta(journal, "id").map_err(|error| error.to_string())?;
        let (fold, pairs) = base::read(&path, &id)?;
        let there = entry_crc(journal, fold.lsn).map_err(|error| error.to_string())?;
        match fold.lsn < first {
            true => Err(format!("it goes up to commit {}, and the journal begins with {first}", fold.lsn)),
            false if there != fold.entry => {
                Err(format!("its commit {} is not that of the journal", fold.lsn))
            }
            false => Ok((fold.lsn, pairs)),
        }
    };
    let (lsn, pairs) = read().map_err(|reason| format!("{}: {reason}", path.display()))?;
    found.history.extend(before_base(journal, first, lsn).err());
    found.snapshot = Snapshot::of_image(pairs, lsn);
    found.last = lsn;
    Ok(())
}

/// Looks at the entries that the base has, too.
fn before_base(journal: &Connection, first: Lsn, base: Lsn) -> Result<(), String> {
    let mut due = first;
    while due <= base {
        let slice = entries(journal, Lsn(due.0 - 1), ENTRIES_MAX, ENTRIES_BYTES_MAX)?.entries;
        let Some(last) = slice.last().map(|entry| entry.lsn) else { break };
        if slice[0].lsn != due || last.0 - due.0 != slice.len() as u64 - 1 {
            return Err(format!("entries of the journal after {} are missing", due.0 - 1));
        }
        due = last.next();
    }
    Ok(())
}

/// Applies the entries one after the other, up to the first that cannot be read. The error says why it cannot.
fn fold(journal: &Connection, last: Lsn, image: Option<&Image>, found: &mut Inspected) -> Result<(), String> {
    if let Some(image) = image.filter(|image| image.lsn == found.snapshot.lsn()) {
        image.compare(&found.snapshot, &mut found.image);
    }
    let mut count = ENTRIES_MAX;
    while found.snapshot.lsn() < last {
        let from = found.snapshot.lsn();
        let slice = match entries(journal, from, count, ENTRIES_BYTES_MAX) {
            Ok(slice) => slice.entries,
            // The damaged one is among them: one at a time finds it.
            Err(_) if count > 1 => {
                count = 1;
                continue;
            }
            Err(reason) => return Err(reason),
        };
        if slice.is_empty() {
            return Err(format!("the entries after {from} cannot be found"));
        }
        for entry in slice {
            let due = found.snapshot.lsn().next();
            if entry.lsn != due {
                return Err(format!("entry {due} of the journal is missing, {} follows", entry.lsn));
            }
            found.snapshot.apply(entry.lsn, &entry.changes);
            found.last = entry.lsn;
            if let Some(image) = image.filter(|image| image.lsn == entry.lsn) {
                image.compare(&found.snapshot, &mut found.image);
            }
        }
    }
    Ok(())
}
