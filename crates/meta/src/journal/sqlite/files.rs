//! Opens the files: modes, formats, identity, and the meaning of SQLite's errors.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use floe_env::DiskRoom;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi};

use crate::journal::entry::{decode_changes, decode_envelope};
use crate::journal::seal::{self, Fold};
use crate::journal::sqlite::base::{self, BASE};
use crate::journal::sqlite::image::{fold_of, meta};
use crate::journal::{Entry, JournalError, Lsn};
use crate::limits::{
    SQLITE_FREE_PAGES_KEPT, SQLITE_LOG_BYTES, SQLITE_LOG_BYTES_MAX, SQLITE_SHORTENED_PAGES_MAX,
};

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
    /// An earlier version of Floe wrote the files, without checksums.
    #[error(
        "{path} has format {found} of an earlier floe, this build reads {known}: start with a new data directory, or \
         serve this one with the floe that wrote it and copy its topics with a Kafka client"
    )]
    OlderFormat {
        /// The file with the older format.
        path: PathBuf,
        /// The format that was found.
        found: i64,
        /// The format that this build reads.
        known: i64,
    },
    /// The image does not match its checksums, or is of another journal. The journal has everything that is in it.
    #[error(
        "{path} is damaged: {reason}. The image is made from the journal beside it: `floe check` says whether the \
         journal is whole, and with --repair sets the image aside, so that the next start makes a new one"
    )]
    DamagedImage {
        /// The image's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal lacks commits that its image has.
    #[error(
        "{path} ends at commit {last}, but its image has commit {folded}: the journal is older than its image, or has \
         lost its end. Restore the newest {path} with the file of the same name and `-wal`; keep the image, it is the \
         proof"
    )]
    Older {
        /// The journal's file.
        path: PathBuf,
        /// The last commit of the journal.
        last: Lsn,
        /// The last commit in the image.
        folded: Lsn,
    },
    /// The journal was not closed, and its write-ahead log is gone. Its last commits were there.
    #[error(
        "{path} is missing, and it held the last commits of a journal that was not closed: restore it. Without it, the \
         broker would give offsets and object ids a second time"
    )]
    LostLog {
        /// The write-ahead log.
        path: PathBuf,
    },
    /// There is an image of a journal, and no journal.
    #[error(
        "{path} is missing, and {image} is there, which was made from it: restore the newest {path} with the file of the \
         same name and `-wal`; keep the image, it is the proof. Without it, the broker would begin anew"
    )]
    LostJournal {
        /// The journal's file.
        path: PathBuf,
        /// The image's file.
        image: PathBuf,
    },
    /// Neither the image nor its copy can be read, and the journal has let go of the commits that are in them.
    #[error(
        "{image} is missing, and {base} cannot take its place: {reason}. The journal begins with commit {first}; what came          of those before it is in these two files alone: restore one of them"
    )]
    LostImage {
        /// The image's file.
        image: PathBuf,
        /// The file of its copy.
        base: PathBuf,
        /// Why the copy does not do.
        reason: String,
        /// The first commit of the journal.
        first: Lsn,
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

/// The format that this build writes, and the only one that it reads. Format 1 had no checksums.
pub(crate) const SQLITE_FORMAT: i64 = 2;

pub(super) const JOURNAL: &str = "journal.sqlite";
pub(super) const IMAGE: &str = "image.sqlite";

/// How long one connection waits for another one of this process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Opened {
    /// The journal thread's connection to the journal.
    pub(super) writer: Connection,
    pub(super) keeper: KeeperFiles,
    /// The journal's file, for syncs beside SQLite.
    pub(super) database: File,
    pub(super) last: Lsn,
    /// Bytes of changes that are not in the image.
    pub(super) backlog_bytes: u64,
}

/// What the keeper gets of it.
pub(super) struct KeeperFiles {
    /// The keeper's connection to the journal.
    pub(super) reader: Connection,
    pub(super) image: Connection,
    /// The journal's id, which the image carries too.
    pub(super) id: Vec<u8>,
    pub(super) folded: Fold,
    /// The first entry of the journal; 1 if it has none.
    pub(super) first: Lsn,
    /// The last commit in the base; 0 without one.
    pub(super) based: Lsn,
}

/// Refuses an image without its journal. A new journal is made before its image.
pub(super) fn check_both(directory: &Path) -> Result<(), SqliteOpenError> {
    let (path, image) = (directory.join(JOURNAL), directory.join(IMAGE));
    let found = [image, directory.join(BASE)].into_iter().find(|file| file.exists());
    match found {
        Some(image) if !path.exists() => Err(SqliteOpenError::LostJournal { path, image }),
        _ => Ok(()),
    }
}

/// Opens or creates both files. New ones carry `id`, which binds them to each other. `room` is that of the disk.
pub(super) fn open(directory: &Path, id: u128, room: DiskRoom) -> Result<Opened, SqliteOpenError> {
    let journal_path = directory.join(JOURNAL);
    let image_path = directory.join(IMAGE);
    let log_path = directory.join(format!("{JOURNAL}-wal"));
    let log_exists = log_path.metadata().is_ok_and(|log| log.len() > 0);
    check_both(directory)?;
    let writer = connect(
        &journal_path,
        "CREATE TABLE journal(lsn INTEGER PRIMARY KEY, attempt BLOB NOT NULL, envelope BLOB NOT NULL,
                              changes BLOB NOT NULL, crc INTEGER NOT NULL);
         INSERT INTO meta VALUES('closed', 1);",
        id,
    )?;
    let failed = |source| SqliteOpenError::Database { path: journal_path.clone(), source };
    if !log_exists && meta::<i64>(&writer, "closed").map_err(failed)? == 0 {
        return Err(SqliteOpenError::LostLog { path: log_path });
    }
    shorten(&writer).map_err(failed)?;
    let id: Vec<u8> = meta(&writer, "id").map_err(failed)?;
    let number =
        u128::from_be_bytes(id.clone().try_into().map_err(|_| foreign(&journal_path, "its id is damaged"))?);
    let fold = Fold::default().encode(&id).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tables = format!(
        "CREATE TABLE map(key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES('fold', x'{fold}');"
    );
    let first = first_lsn(&writer).map_err(failed)?;
    if !image_path.exists() {
        restore_image(directory, &image_path, &id, first)?;
    }
    let image = connect(&image_path, &tables, number).map_err(|error| damaged_image(error, &image_path))?;
    // The image can be rebuilt, so only the order of its writes matters, not when they are synced.
    image.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    image.pragma_update(None, "wal_autocheckpoint", 1000).map_err(failed)?;
    let reader = connect(&journal_path, "", 0)?;

    let last = last_lsn(&writer).map_err(failed)?;
    let folded = fold_of(&image, &id)
        .map_err(|reason| SqliteOpenError::DamagedImage { path: image_path.clone(), reason })?;
    if folded.lsn > last {
        return Err(SqliteOpenError::Older { path: journal_path, last, folded: folded.lsn });
    }
    if folded.lsn.next() < first {
        let reason =
            format!("it goes up to commit {}, and the journal begins with commit {first}", folded.lsn);
        return Err(SqliteOpenError::DamagedImage { path: image_path, reason });
    }
    let crc_there = entry_crc(&writer, folded.lsn).map_err(failed)?;
    if crc_there != folded.entry {
        let reason =
            format!("it belongs to another journal: its commit {} is not that of the journal", folded.lsn);
        return Err(SqliteOpenError::DamagedImage { path: image_path, reason });
    }
    // On a full disk the log grows with each commit, which is slower. Commits matter more there than their speed.
    if room.holds(SQLITE_LOG_BYTES) {
        grow_log(&log_path)?;
    }
    set_closed(&writer, false).map_err(failed)?;
    let backlog_bytes = backlog_bytes(&writer, folded.lsn).map_err(failed)?;
    let opened = OpenOptions::new().write(true).open(&journal_path);
    let database = opened.map_err(|source| SqliteOpenError::Io { path: journal_path.clone(), source })?;
    let based = base::reach(directory, &id).map_or(Lsn(0), |fold| fold.lsn);
    let keeper = KeeperFiles { reader, image, id, folded, first, based };
    Ok(Opened { writer, keeper, database, last, backlog_bytes })
}

/// Makes a missing image from its copy, if the journal needs one: one that has every commit does not.
fn restore_image(directory: &Path, image: &Path, id: &[u8], first: Lsn) -> Result<(), SqliteOpenError> {
    if first <= Lsn(1) {
        return Ok(());
    }
    let path = directory.join(BASE);
    let lost = |reason: String| SqliteOpenError::LostImage {
        image: image.to_owned(),
        base: path.clone(),
        reason,
        first,
    };
    let (fold, _) = base::read(&path, id).map_err(lost)?;
    if fold.lsn.next() < first {
        return Err(lost(format!("it goes up to commit {} only", fold.lsn)));
    }
    base::restore(directory, image).map_err(|source| SqliteOpenError::Io { path: image.to_owned(), source })
}

/// Shortens the file of an earlier floe, most of which is free. Others give pages back while they are open.
fn shorten(connection: &Connection) -> rusqlite::Result<()> {
    let (all, free) = (pages(connection, "page_count")?, pages(connection, "freelist_count")?);
    let is_due = free > SQLITE_FREE_PAGES_KEPT && all - free < free.min(SQLITE_SHORTENED_PAGES_MAX);
    if pages(connection, "auto_vacuum")? != 0 || !is_due {
        return Ok(());
    }
    tracing::info!(free_pages = free, "shortens the file of the metadata journal");
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// A count of pages, or another number that the file has.
pub(super) fn pages(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Notes whether the file has everything, so that a lost write-ahead log is noticed. The note itself is in the file,
/// not only in the log, when this returns.
pub(super) fn set_closed(connection: &Connection, closed: bool) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET value = ?1 WHERE name = 'closed'", [i64::from(closed)])?;
    let mode = if closed { "TRUNCATE" } else { "PASSIVE" };
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

/// The checksum of an entry; 0 if there is none.
pub(super) fn entry_crc(connection: &Connection, lsn: Lsn) -> rusqlite::Result<u32> {
    let query = "SELECT crc FROM journal WHERE lsn = ?1";
    let crc: Option<u32> = connection.query_row(query, [lsn.0.cast_signed()], |row| row.get(0)).optional()?;
    Ok(crc.unwrap_or(0))
}

/// The image can be made again, so its damage is told apart from that of the journal.
fn damaged_image(error: SqliteOpenError, path: &Path) -> SqliteOpenError {
    let reason = match error {
        SqliteOpenError::Foreign { reason, .. } => reason,
        SqliteOpenError::Database { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) =>
        {
            source.to_string()
        }
        other => return other,
    };
    SqliteOpenError::DamagedImage { path: path.to_owned(), reason }
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
    if objects == 0 && path.ends_with(JOURNAL) {
        // Pages of entries that are gone can go back to the disk. It must be said before the file has anything.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
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
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), SqliteOpenError> {
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
    if found < 1 {
        return Err(foreign(path, "its format is damaged"));
    }
    match found < SQLITE_FORMAT {
        true => Err(SqliteOpenError::OlderFormat { path: path.to_owned(), found, known: SQLITE_FORMAT }),
        false => Ok(()),
    }
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

pub(super) fn last_lsn(connection: &Connection) -> rusqlite::Result<Lsn> {
    let last: Option<i64> = connection.query_row("SELECT max(lsn) FROM journal", [], |row| row.get(0))?;
    Ok(Lsn(last.unwrap_or(0).cast_unsigned()))
}

/// The first entry; 1 if there is none.
pub(super) fn first_lsn(connection: &Connection) -> rusqlite::Result<Lsn> {
    let first: Option<i64> = connection.query_row("SELECT min(lsn) FROM journal", [], |row| row.get(0))?;
    Ok(Lsn(first.unwrap_or(1).cast_unsigned()))
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

impl Slice {
    /// The entries, if they follow `from`. Otherwise the journal has let go of some.
    pub(super) fn following(self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        match self.entries.first() {
            Some(first) if first.lsn != from.next() => Err(JournalError::Reload(first.lsn)),
            _ => Ok(self.entries),
        }
    }
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
            "SELECT lsn, attempt, envelope, changes, crc FROM journal WHERE lsn > ?1 ORDER BY lsn LIMIT ?2";
        let mut statement = connection.prepare_cached(query)?;
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let mut rows = statement.query([from.0.cast_signed(), limit])?;
        let mut slice = Slice { entries: Vec::new(), bytes: 0 };
        while let Some(row) = rows.next()? {
            let changes = row.get_ref(3)?.as_blob()?;
            slice.bytes += changes.len();
            let (lsn, crc) = (row.get(0)?, row.get(4)?);
            match entry(lsn, row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?, changes, crc) {
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

fn entry(lsn: i64, attempt: &[u8], envelope: &[u8], changes: &[u8], crc: i64) -> Result<Entry, String> {
    let damaged = |error: &dyn std::fmt::Display| {
        format!(
            "entry {lsn} of the journal is damaged: {error}. Restore the journal from a copy; `floe check` judges it"
        )
    };
    let attempt = attempt.try_into().map_err(|_| damaged(&"its attempt is not 16 bytes"))?;
    let (lsn, attempt) = (Lsn(lsn.cast_unsigned()), u128::from_be_bytes(attempt));
    if crc != i64::from(seal::of_entry(lsn, attempt, envelope, changes)) {
        return Err(damaged(&"its checksum does not match its bytes"));
    }
    Ok(Entry {
        lsn,
        attempt,
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
