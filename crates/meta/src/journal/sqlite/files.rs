//! Opens the files: modes, formats, identity, and the meaning of SQLite's errors.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use floe_env::DiskRoom;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi};

use crate::journal::entry::{decode_changes, decode_envelope};
use crate::journal::{Entry, Lsn};
use crate::limits::{SQLITE_LOG_BYTES, SQLITE_LOG_BYTES_MAX};

/// Why the files cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SqliteOpenError {
    /// Another process has the files open.
    #[error("the metadata in {path} is in use by another process ({holder}): stop it first")]
    InUse {
        /// The journal's directory.
        path: PathBuf,
        /// What the other process wrote about itself.
        holder: String,
    },
    /// A newer version of Floe wrote the files.
    #[error("{path} has format {found}, this build knows up to {known}: use a newer floe")]
    NewerFormat {
        /// The file with the newer format.
        path: PathBuf,
        /// The format that was found.
        found: i64,
        /// The newest format that this build reads.
        known: i64,
    },
    /// The file is something else, or incomplete.
    #[error("{path} is not metadata of floe: {reason}")]
    Foreign {
        /// The foreign file.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open {path}: {source}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// The format that this build writes, and the newest that it reads.
pub(crate) const SQLITE_FORMAT: i64 = 1;

pub(super) const JOURNAL: &str = "journal.sqlite";
const IMAGE: &str = "image.sqlite";

/// How long one connection waits for another one of this process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Opened {
    /// The journal thread's connection to the journal.
    pub(super) writer: Connection,
    /// The keeper's connection to the journal.
    pub(super) reader: Connection,
    pub(super) image: Connection,
    /// The journal's file, for syncs beside SQLite.
    pub(super) database: File,
    pub(super) last: Lsn,
    pub(super) folded: Lsn,
    /// Bytes of changes after `folded`.
    pub(super) backlog_bytes: u64,
}

/// Opens or creates both files. New ones carry `id`, which binds them to each other. `room` is that of the disk.
pub(super) fn open(directory: &Path, id: u128, room: DiskRoom) -> Result<Opened, SqliteOpenError> {
    let journal_path = directory.join(JOURNAL);
    let image_path = directory.join(IMAGE);
    let writer = connect(
        &journal_path,
        "CREATE TABLE journal(lsn INTEGER PRIMARY KEY, attempt BLOB NOT NULL, envelope BLOB NOT NULL,
                              changes BLOB NOT NULL);",
        id,
    )?;
    let failed = |source| SqliteOpenError::Database { path: journal_path.clone(), source };
    let id: Vec<u8> = meta(&writer, "id").map_err(failed)?;
    let image = connect(
        &image_path,
        "CREATE TABLE map(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES('folded_lsn', 0);",
        u128::from_be_bytes(id.clone().try_into().map_err(|_| foreign(&journal_path, "its id is damaged"))?),
    )?;
    // The image can be rebuilt, so only the order of its writes matters, not when they are synced.
    image.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    image.pragma_update(None, "wal_autocheckpoint", 1000).map_err(failed)?;
    let reader = connect(&journal_path, "", 0)?;

    let last = last_lsn(&writer).map_err(failed)?;
    let image_failed = |source| SqliteOpenError::Database { path: image_path.clone(), source };
    let image_id: Vec<u8> = meta(&image, "id").map_err(image_failed)?;
    let folded = Lsn(meta::<i64>(&image, "folded_lsn").map_err(image_failed)?.cast_unsigned());
    if image_id != id || folded > last {
        return Err(foreign(&image_path, "it belongs to another journal; remove it, and it is made again"));
    }
    // On a full disk the log grows with each commit, which is slower. Commits matter more there than their speed.
    if room.holds(SQLITE_LOG_BYTES) {
        grow_log(&directory.join(format!("{JOURNAL}-wal")))?;
    }
    let backlog_bytes = backlog_bytes(&writer, folded).map_err(failed)?;
    let opened = OpenOptions::new().write(true).open(&journal_path);
    let database = opened.map_err(|source| SqliteOpenError::Io { path: journal_path.clone(), source })?;
    Ok(Opened { writer, reader, image, database, last, folded, backlog_bytes })
}

/// A connection in write-ahead mode that checkpoints only on request. An empty file gets the tables.
fn connect(path: &Path, tables: &str, id: u128) -> Result<Connection, SqliteOpenError> {
    let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign(path, "it is not a database"),
        _ => SqliteOpenError::Database { path: path.to_owned(), source },
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if objects > 0 {
        check_format(&connection, path).map_err(|error| match error {
            SqliteOpenError::Database { source, .. } => failed(source),
            other => other,
        })?;
    }
    prepare(&connection).map_err(failed)?;
    if objects == 0 {
        let create = format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE meta(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
             INSERT INTO meta VALUES('format', {SQLITE_FORMAT}), ('id', x'{id:032x}');
             {tables}
             COMMIT;"
        );
        connection.execute_batch(&create).map_err(failed)?;
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    assert_eq!(mode, "wal", "files of the operating system have a write-ahead log");
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", SQLITE_LOG_BYTES_MAX)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Refuses foreign files and newer formats before anything in them changes.
fn check_format(connection: &Connection, path: &Path) -> Result<(), SqliteOpenError> {
    let failed = |source| SqliteOpenError::Database { path: path.to_owned(), source };
    let has_meta: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if has_meta.is_none() {
        return Err(foreign(path, "it has no table meta"));
    }
    let found: i64 = meta(connection, "format").map_err(failed)?;
    if found > SQLITE_FORMAT {
        return Err(SqliteOpenError::NewerFormat { path: path.to_owned(), found, known: SQLITE_FORMAT });
    }
    if found < 1 { Err(foreign(path, "its format is damaged")) } else { Ok(()) }
}

fn foreign(path: &Path, reason: &str) -> SqliteOpenError {
    SqliteOpenError::Foreign { path: path.to_owned(), reason: reason.to_owned() }
}

/// Grows the write-ahead log to its working size, written and synced, so that a commit overwrites blocks that the
/// file already has. Zeros are no valid frames, so SQLite's recovery stops before them.
fn grow_log(path: &PathBuf) -> Result<(), SqliteOpenError> {
    let grow = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let zeros = vec![0; 1 << 20];
        let mut missing = SQLITE_LOG_BYTES.saturating_sub(length);
        while missing > 0 {
            let part = missing.min(zeros.len() as u64);
            file.write_all(&zeros[..usize::try_from(part).expect("at most one chunk")])?;
            missing -= part;
        }
        file.sync_all()
    };
    grow().map_err(|source| SqliteOpenError::Io { path: path.clone(), source })
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}

pub(super) fn last_lsn(connection: &Connection) -> rusqlite::Result<Lsn> {
    let last: Option<i64> = connection.query_row("SELECT max(lsn) FROM journal", [], |row| row.get(0))?;
    Ok(Lsn(last.unwrap_or(0).cast_unsigned()))
}

/// Bytes of changes that are committed and not folded.
fn backlog_bytes(connection: &Connection, folded: Lsn) -> rusqlite::Result<u64> {
    let query = "SELECT coalesce(sum(length(changes)), 0) FROM journal WHERE lsn > ?1";
    let bytes: i64 = connection.query_row(query, [folded.0.cast_signed()], |row| row.get(0))?;
    Ok(bytes.cast_unsigned())
}

/// A run of entries, and the size of their changes in the file.
pub(super) struct Slice {
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: usize,
}

/// The entries after `from`, in order, at most `count`. Ends once the changes reach `bytes_max`.
pub(super) fn entries(
    connection: &Connection,
    from: Lsn,
    count: usize,
    bytes_max: usize,
) -> Result<Slice, String> {
    let read = || -> rusqlite::Result<Result<Slice, String>> {
        let query =
            "SELECT lsn, attempt, envelope, changes FROM journal WHERE lsn > ?1 ORDER BY lsn LIMIT ?2";
        let mut statement = connection.prepare_cached(query)?;
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let mut rows = statement.query([from.0.cast_signed(), limit])?;
        let mut slice = Slice { entries: Vec::new(), bytes: 0 };
        while let Some(row) = rows.next()? {
            let changes = row.get_ref(3)?.as_blob()?;
            slice.bytes += changes.len();
            match entry(row.get(0)?, row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?, changes) {
                Ok(entry) => slice.entries.push(entry),
                Err(reason) => return Ok(Err(reason)),
            }
            if slice.bytes >= bytes_max {
                break;
            }
        }
        Ok(Ok(slice))
    };
    read().map_err(|error| error.to_string())?
}

fn entry(lsn: i64, attempt: &[u8], envelope: &[u8], changes: &[u8]) -> Result<Entry, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("entry {lsn} of the journal is damaged: {error}");
    let attempt = attempt.try_into().map_err(|_| damaged(&"its attempt is not 16 bytes"))?;
    Ok(Entry {
        lsn: Lsn(lsn.cast_unsigned()),
        attempt: u128::from_be_bytes(attempt),
        envelope: decode_envelope(envelope).map_err(|error| damaged(&error))?,
        changes: decode_changes(changes).map_err(|error| damaged(&error))?,
    })
}

/// Whether the disk is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether a failed COMMIT surely left nothing, because the log could not be written. Any other error leaves doubt.
pub(super) fn is_write_failure(error: &rusqlite::Error) -> bool {
    is_full(error) || matches!(extended(error), Some(ffi::SQLITE_IOERR_WRITE))
}

/// Ends the process if a sync failed. The system may have dropped the pages, so nothing known about the files is
/// certain any more, and a second sync would prove nothing. The next start reads what is there.
pub(super) fn abort_if_sync_failed(error: &rusqlite::Error) {
    if matches!(extended(error), Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)) {
        floe_env::end_process("a sync of the metadata journal failed", error);
    }
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
