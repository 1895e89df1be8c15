//! A directory that belongs to one process at a time and names its format.
//!
//! ```text
//! <directory>/LOCK     locked while a process uses the directory; its text names the process
//! <directory>/FORMAT   "floe <version>\n", written once
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::durable::{FileLock, create_dir_durable, sync_dir};

/// The format that this build writes, and the newest format that it reads.
pub const DATA_DIR_FORMAT: u32 = 1;

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
/// Bytes of the format file that are read.
const FORMAT_BYTES_MAX: u64 = 64;
const FORMAT_TEMPORARY: &str = "FORMAT.tmp";
/// The directory at the top of every new ext file system.
const LOST_AND_FOUND: &str = "lost+found";

/// An open data directory. It stays locked until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: FileLock,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error(
        "data directory {path} is in use by another process ({holder}): stop it or choose another directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The text that the other process wrote into the lock file.
        holder: String,
    },
    /// A newer version of Floe wrote it.
    #[error("data directory {path} has format {found}, this build knows up to {known}: use a newer floe")]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest format that this build reads.
        known: u32,
    },
    /// It holds files of somebody else.
    #[error("{path} is not a data directory of floe: choose an empty or a new directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// It holds nothing. Only [`DataDir::check`] refuses that.
    #[error("{path} is empty: `floe serve --data {path}` makes it a data directory")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Its file `FORMAT` does not say what Floe writes there.
    #[error(
        "{path} is damaged: a data directory has one line \"floe {DATA_DIR_FORMAT}\" in it, and this one has {text:?}; if \
         the directory is Floe's, write that line"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has, as far as it is text, and no more than a line.
        text: String,
    },
    /// The file system refused an operation.
    #[error("cannot use data directory {path}: {source}")]
    Io {
        /// The data directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
}

impl DataDir {
    /// Locks the directory and checks its format; creates both in a new or empty directory.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        create_dir_durable(path).map_err(failed)?;
        // A directory without a format must be empty. Otherwise it is not ours, and must not get a lock file.
        if !path.join(FORMAT).exists() && !is_empty(path).map_err(failed)? {
            return Err(DataDirError::Foreign { path: path.to_owned() });
        }
        let lock = match FileLock::take(&path.join(LOCK)).map_err(failed)? {
            Ok(lock) => lock,
            Err(holder) => return Err(DataDirError::InUse { path: path.to_owned(), holder }),
        };
        match read_format(path) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(path).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Checks the format without the lock, so that another process may use the directory.
    ///
    /// # Errors
    /// [`DataDir::open`] would refuse the directory, or make one.
    pub fn check(path: &Path) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        match read_format(path) {
            Ok(text) => check_format(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_dir() => {
                Err(match is_empty(path).map_err(failed)? {
                    true => DataDirError::Empty { path: path.to_owned() },
                    false => DataDirError::Foreign { path: path.to_owned() },
                })
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// The path given to [`DataDir::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the directory holds nothing, or only what an interrupted first start or a new file system leaves.
fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != FORMAT_TEMPORARY && name != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first bytes of the format file. Damage may have made it anything.
fn read_format(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path.join(FORMAT))?.take(FORMAT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check_format(path: &Path, text: &str) -> Result<(), DataDirError> {
    let number = text.strip_prefix("floe ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(1..=DATA_DIR_FORMAT) => Ok(()),
        Some(found) if found > DATA_DIR_FORMAT => {
            Err(DataDirError::NewerFormat { path: path.to_owned(), found, known: DATA_DIR_FORMAT })
        }
        _ => Err(DataDirError::Format { path: path.join(FORMAT), text: text.to_owned() }),
    }
}

/// Writes the file aside and renames it: a crash leaves a whole format file or none.
fn write_format(path: &Path) -> io::Result<()> {
    let temporary = path.join(FORMAT_TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(format!("floe {DATA_DIR_FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(FORMAT))?;
    sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_and_a_known_format() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(first.path(), path);
        assert_eq!(fs::read_to_string(path.join(FORMAT)).unwrap(), "floe 1\n");
        let busy = DataDir::open(&path).unwrap_err().to_string();
        assert!(
            busy.contains(&format!("in use by another process (process {})", std::process::id())),
            "{busy}"
        );
        drop(first);
        DataDir::open(&path).unwrap();

        fs::write(path.join(FORMAT), "floe 2\n").unwrap();
        let newer = DataDir::open(&path).unwrap_err();
        assert!(matches!(newer, DataDirError::NewerFormat { found: 2, known: 1, .. }), "{newer}");
        for text in [&b"floe 0\n"[..], b"floe x\n", b"", b"gloe 1\n", b"fl\xefe 1\n", &[b'f'; 10_000]] {
            fs::write(path.join(FORMAT), text).unwrap();
            for error in [DataDir::open(&path).unwrap_err(), DataDir::check(&path).unwrap_err()] {
                assert!(matches!(error, DataDirError::Format { .. }), "{error}");
                let message = error.to_string();
                assert!(message.contains("one line \"floe 1\"") && message.len() < 1_000, "{message}");
            }
        }
        fs::remove_file(path.join(FORMAT)).unwrap();
        fs::write(path.join(FORMAT_TEMPORARY), "flo").unwrap();
        assert!(matches!(DataDir::check(&path).unwrap_err(), DataDirError::Empty { .. }));
        let used = DataDir::open(&path).unwrap();
        DataDir::check(&path).unwrap();
        drop(used);
        let missing = DataDir::check(&path.join("missing")).unwrap_err();
        assert!(matches!(missing, DataDirError::Io { .. }), "{missing}");

        let below_a_file = path.join(FORMAT).join("data");
        assert!(matches!(DataDir::open(&below_a_file).unwrap_err(), DataDirError::Io { .. }));

        let mount = temporary.path().join("mount");
        fs::create_dir_all(mount.join("lost+found")).unwrap();
        DataDir::open(&mount).unwrap();

        let home = temporary.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("thesis.txt"), "x").unwrap();
        for refused in [DataDir::open(&home).unwrap_err(), DataDir::check(&home).unwrap_err()] {
            assert!(matches!(refused, DataDirError::Foreign { .. }), "{refused}");
        }
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }
}
