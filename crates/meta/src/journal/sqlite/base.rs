//! The base: a second copy of the image, which lets the journal forget what went into it.
//!
//! The image changes all the time, and one file may rot. While the journal has every entry, the image can be made anew.
//! So before entries leave the journal, the keeper copies the image aside, reads the copy back, and keeps it. From then
//! on the base and the entries after it make the image.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::journal::seal::Fold;
use crate::journal::sqlite::image::{fold_of, read_image};

pub(super) const BASE: &str = "base.sqlite";
/// What it is called until it is whole.
const WRITING: &str = "base.sqlite.writing";
/// What an image is called until it is whole that is made from the base.
const IMAGE_WRITING: &str = "image.sqlite.writing";

/// Copies the image, which goes up to `folded`. The copy is durable and was read back when this returns.
pub(super) fn write(directory: &Path, image: &Connection, id: &[u8], folded: Fold) -> Result<(), String> {
    let aside = directory.join(WRITING);
    remove(&aside).map_err(|error| error.to_string())?;
    let name = aside.to_str().ok_or("the name of the directory is not UTF-8")?;
    image.execute("VACUUM INTO ?1", [name]).map_err(|error| error.to_string())?;
    let found = read(&aside, id)?.0;
    if found != folded {
        return Err(format!("the copy of the image goes up to commit {}, not {}", found.lsn, folded.lsn));
    }
    let named = || -> io::Result<()> {
        floe_env::sync_data(&File::open(&aside)?, "a copy of the image of the metadata");
        fs::rename(&aside, directory.join(BASE))?;
        floe_env::sync_dir(directory)
    };
    named().map_err(|error| error.to_string())
}

/// The pairs of an image.
pub(super) type Pairs = Vec<(bytes::Bytes, bytes::Bytes)>;

/// How far the base of a journal goes, and what it holds. All of it is compared with its checksums.
pub(super) fn read(path: &Path, id: &[u8]) -> Result<(Fold, Pairs), String> {
    let connection = look(path)?;
    let fold = fold_of(&connection, id)?;
    let pairs = read_image(&connection, fold.sum)?;
    Ok((fold, pairs))
}

/// How far the base of a journal goes; none if there is none, or it cannot be read. The next one then takes its place.
pub(super) fn reach(directory: &Path, id: &[u8]) -> Option<Fold> {
    let path = directory.join(BASE);
    if !path.exists() {
        return None;
    }
    match look(&path).and_then(|connection| fold_of(&connection, id)) {
        Ok(fold) => Some(fold),
        Err(reason) => {
            tracing::warn!(base = %path.display(), reason, "the copy of the image is damaged, it will be made anew");
            None
        }
    }
}

/// Makes the image from the base.
pub(super) fn restore(directory: &Path, image: &Path) -> io::Result<()> {
    let aside = directory.join(IMAGE_WRITING);
    fs::copy(directory.join(BASE), &aside)?;
    floe_env::sync_data(&File::open(&aside)?, "the image of the metadata");
    fs::rename(&aside, image)?;
    floe_env::sync_dir(directory)
}

fn look(path: &Path) -> Result<Connection, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|error| error.to_string())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
