//! Objects that are files of their own. Each is written aside, synced, and given its name; then the
//! name is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use floe_env::{DiskReserve, sync_dir};

use crate::limits::{FILE_STEP_BYTES, FILE_STEP_PAUSE, FOLDERS_REMEMBERED_MAX};
use crate::local::failure::not_applied;
use crate::local::finding::Finding;
use crate::local::pack::{allocate, reserve, sync, write_all_vectored_at};
use crate::payload::too_short;
use crate::{CLUSTER_FOLDER, PutIfAbsent, StoreError, payload_bytes};

/// A directory of objects, one file each.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    disk: DiskReserve,
    /// Folders whose names this process has made durable.
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Files {
    /// Creates the folders, and removes files that a crash left half written. Adds what is there and should not be.
    pub(super) fn open(dir: &Path, disk: DiskReserve, findings: &mut Vec<Finding>) -> io::Result<Files> {
        let files = Files { dir: dir.to_owned(), disk, durable: Mutex::default() };
        // The folder stays, because making one takes room.
        std::fs::create_dir_all(files.tmp())?;
        for entry in std::fs::read_dir(files.tmp())? {
            let path = entry?.path();
            match is_aside(&path) {
                true => std::fs::remove_file(&path)?,
                false => findings.push(Finding::unknown(path)),
            }
        }
        Ok(files)
    }

    /// The files as they are, to list them.
    pub(super) fn look(dir: &Path) -> Files {
        // Nothing is written with these.
        let disk = DiskReserve::new(dir, 0);
        Files { dir: dir.to_owned(), disk, durable: Mutex::default() }
    }

    /// The files of a folder and of those in it, with their lengths.
    pub(super) fn list(&self, prefix: &str) -> io::Result<BTreeMap<String, u64>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![prefix.to_owned()]);
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(self.path(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let key = format!("{folder}/{name}");
                let metadata = match entry.metadata() {
                    // Deleted since.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    metadata => metadata?,
                };
                match metadata.is_dir() {
                    true => folders.push(key),
                    false => drop(found.insert(key, metadata.len())),
                }
            }
        }
        Ok(found)
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }

    /// Writes an object. `aside` must be unique: it names the file until the file is complete.
    pub(super) fn put(&self, aside: u64, key: &str, payload: &[Bytes]) -> Result<(), StoreError> {
        let (aside, path) = self.write_aside(aside, key, payload)?;
        if let Err(error) = std::fs::rename(&aside, &path) {
            discard(&aside);
            return Err(not_applied(&error));
        }
        sync_name(&path)
    }

    pub(super) fn put_if_absent(
        &self,
        aside: u64,
        key: &str,
        payload: &[Bytes],
    ) -> Result<PutIfAbsent, StoreError> {
        let (aside, path) = self.write_aside(aside, key, payload)?;
        // A hard link, unlike a rename, does not replace: of several callers one succeeds.
        let linked = std::fs::hard_link(&aside, &path);
        discard(&aside);
        match linked {
            Ok(()) => sync_name(&path).map(|()| PutIfAbsent::Created),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The caller relies on the existing object, so its name must be durable, too.
                sync_name(&path).map(|()| PutIfAbsent::Exists)
            }
            Err(error) => Err(not_applied(&error)),
        }
    }

    pub(super) fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let file = File::open(self.path(key)).map_err(|error| unreadable(key, &error))?;
        let length = file.metadata().map_err(|error| unreadable(key, &error))?.len();
        let range = range.unwrap_or(0..length);
        if range.start > range.end || range.end > length {
            return Err(StoreError::Corrupt(too_short(key, &range, length)));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| unreadable(key, &error))?;
        Ok(Bytes::from(bytes))
    }

    pub(super) fn size(&self, key: &str) -> Result<u64, StoreError> {
        let metadata = std::fs::metadata(self.path(key)).map_err(|error| unreadable(key, &error))?;
        Ok(metadata.len())
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Ok(()) => sync_name(&path),
            // Deleted before, perhaps by a process that died before it synced the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent().map(Path::exists) {
                Some(true) => sync_name(&path),
                _ => Ok(()),
            },
            Err(error) => Err(StoreError::NotApplied(format!("cannot delete {key}: {error}"))),
        }
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn write_aside(
        &self,
        aside: u64,
        key: &str,
        payload: &[Bytes],
    ) -> Result<(PathBuf, PathBuf), StoreError> {
        let aside = self.tmp().join(format!("{aside:016x}"));
        let path = self.path(key);
        let written =
            write_synced(&aside, key, &self.disk, payload).and_then(|()| self.create_folders(&path));
        if let Err(error) = written {
            discard(&aside);
            return Err(not_applied(&error));
        }
        Ok((aside, path))
    }

    /// Creates the missing folders of `path`, and makes their names durable from the top down. An existing folder
    /// may still lack a durable name: another thread may just have created it, or a process that died.
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().expect("an object lies below the directory of the store");
        if self.durable().contains(folder) && folder.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(folder)?;
        let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.dir));
        above.collect::<Vec<_>>().into_iter().rev().try_for_each(sync_dir)?;
        let mut durable = self.durable();
        if durable.len() >= FOLDERS_REMEMBERED_MAX {
            durable.clear();
        }
        durable.insert(folder.to_owned());
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        floe_env::lock(&self.durable)
    }
}

/// Whether a file in `tmp` has a name that this store gives.
fn is_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == ASIDE_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Digits of the name of a file that is being written.
const ASIDE_DIGITS: usize = 16;

fn write_synced(path: &Path, key: &str, disk: &DiskReserve, payload: &[Bytes]) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    // Reserving first makes a full disk show as an error of a write, never as a failed sync.
    // What the cluster notes there (a few bytes for many objects) belongs to the metadata, for which room is left.
    match key.starts_with(CLUSTER_FOLDER) {
        true => allocate(&file, payload_bytes(payload))?,
        false => reserve(&file, disk, payload_bytes(payload))?,
    }
    let mut position = 0;
    for step in steps(payload) {
        if position > 0 {
            std::thread::park_timeout(FILE_STEP_PAUSE);
        }
        let mut slices: Vec<IoSlice<'_>> = step.iter().map(|piece| IoSlice::new(piece)).collect();
        let bytes: usize = step.iter().map(|piece| piece.len()).sum();
        write_all_vectored_at(&file, &mut slices, position)?;
        sync(&file);
        position += bytes as u64;
    }
    Ok(())
}

/// The pieces in steps of [`FILE_STEP_BYTES`], at least one. Each is synced, so that a sync of the journal, or of the
/// pack in use, waits only shortly behind one, however large the object is.
fn steps(payload: &[Bytes]) -> Vec<Vec<&[u8]>> {
    let (mut steps, mut room): (Vec<Vec<&[u8]>>, _) = (vec![Vec::new()], FILE_STEP_BYTES);
    for piece in payload {
        let mut piece = &piece[..];
        while !piece.is_empty() {
            if room == 0 {
                steps.push(Vec::new());
                room = FILE_STEP_BYTES;
            }
            let (now, later) = piece.split_at(piece.len().min(room));
            steps.last_mut().expect("there is one").push(now);
            (piece, room) = (later, room - now.len());
        }
    }
    steps
}

fn sync_name(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().expect("an object lies below the directory of the store");
    sync_dir(folder)
        .map_err(|error| StoreError::Unknown(format!("cannot sync {}: {error}", folder.display())))
}

fn discard(aside: &Path) {
    match std::fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // The next start removes the file. Until then it only takes up room.
            tracing::warn!(path = %aside.display(), %error, "cannot remove a file that was being written");
        }
        _ => {}
    }
}

fn unreadable(key: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NotFound(key.to_owned()),
        _ => StoreError::NotApplied(format!("cannot read {key}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_objects_are_written_in_steps() {
        let piece = |length: usize| Bytes::from((0..length).map(|at| at as u8).collect::<Vec<u8>>());
        for lengths in [vec![], vec![0], vec![5, 7], vec![FILE_STEP_BYTES], vec![9, 3 * FILE_STEP_BYTES, 2]] {
            let payload: Vec<Bytes> = lengths.iter().map(|length| piece(*length)).collect();
            let steps = steps(&payload);
            let sizes = steps.iter().map(|step| step.iter().map(|piece| piece.len()).sum::<usize>());
            assert!(sizes.clone().all(|bytes| bytes <= FILE_STEP_BYTES));
            assert_eq!(steps.len(), sizes.sum::<usize>().div_ceil(FILE_STEP_BYTES).max(1));
            assert_eq!(steps.concat().concat(), payload.concat());
        }
    }
}
