//! Files of a journal that rot, come back from a backup, or are lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use floe_env::Env;
use floe_meta::{
    Change, Commit, Envelope, Journal, JournalOpenError, Lsn, Meta, Options, Outcome, Snapshot,
    SqliteJournal, SqliteOpenError, inspect, set_image_aside,
};

fn open(path: &Path) -> Result<SqliteJournal, SqliteOpenError> {
    SqliteJournal::open(&Env::real(), path)
}

fn put(key: u64, value: &str) -> Commit {
    let change = Change { key: format!("\u{1}key {key}").into(), value: Some(value.to_owned().into()) };
    Commit { envelope: Envelope::broker("test"), changes: vec![change] }
}

async fn commit(journal: &SqliteJournal, count: u64) {
    for _ in 0..count {
        let last = journal.lsn();
        let group = [put(last.0 % 7, &format!("value {last}"))];
        let attempt = u128::from(last.0) + 1;
        assert_eq!(journal.commit(last, attempt, &group).await, Ok(Outcome::Committed(last.next())));
    }
}

/// A copy of the directory as it is now.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
    }
    to
}

/// The map that a start finds, or why it refuses.
async fn start(path: &Path) -> Result<Snapshot, String> {
    let journal = open(path).map_err(|error| error.to_string())?;
    let opened = Meta::open(Env::real(), Arc::new(journal), Options::default()).await;
    opened.map(|meta| meta.snapshot()).map_err(|error| error.to_string())
}

fn pairs(snapshot: &Snapshot) -> Vec<(String, String)> {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    snapshot.pairs().map(|(key, value)| (text(key), text(value))).collect()
}

/// A journal that was closed in order, with the map that it holds.
async fn closed() -> (tempfile::TempDir, Vec<(String, String)>) {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    commit(&journal, 20).await;
    drop(journal);
    let found = inspect(directory.path()).unwrap();
    assert_eq!((found.last, &found.journal[..], &found.image[..]), (Lsn(20), &[][..], &[][..]));
    (directory, pairs(&found.snapshot))
}

#[tokio::test]
async fn a_journal_that_was_closed_has_everything_in_its_files() {
    let (directory, expected) = closed().await;
    let left: Vec<PathBuf> =
        fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
    for path in left.iter().filter(|path| path.to_str().unwrap().ends_with("-wal")) {
        assert_eq!(path.metadata().unwrap().len(), 0, "{path:?}");
        fs::remove_file(path).unwrap();
    }
    assert_eq!(start(directory.path()).await.map(|found| pairs(&found)), Ok(expected));
}

/// Whatever byte of the files is wrong: a start refuses, or finds exactly what was there.
#[tokio::test]
async fn no_changed_byte_changes_what_is_read() {
    let (directory, expected) = closed().await;
    let (mut refused, mut whole) = (0, 0);
    for file in ["journal.sqlite", "image.sqlite"] {
        let bytes = fs::read(directory.path().join(file)).unwrap();
        // Pages are mostly empty; their ends and their headers are what matters.
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 512 < 24).step_by(41) {
            let copy = copy(directory.path());
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << (at % 8);
            fs::write(copy.path().join(file), &rotten).unwrap();
            match start(copy.path()).await {
                Ok(found) => {
                    whole += 1;
                    assert_eq!(pairs(&found), expected, "{file}, byte {at}");
                    assert_eq!(found.lsn(), Lsn(20), "{file}, byte {at}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 20 && whole > 5, "{refused} refused, {whole} whole");
}

/// A changed byte of an old entry, which no start reads, is found by a look at everything, and named.
#[tokio::test]
async fn a_rotten_entry_is_named() {
    let (directory, expected) = closed().await;
    let path = directory.path().join("journal.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let at =
        bytes.windows(8).position(|window| window == b"value 4\0" || window.starts_with(b"value 4")).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = inspect(directory.path()).unwrap();
    assert!(found.history[0].contains("entry 5 of the journal is damaged"), "{found:?}");
    assert_eq!((found.last, found.journal.len(), pairs(&found.snapshot)), (Lsn(20), 0, expected.clone()));
    // Without an image, that is the end.
    let without = copy(directory.path());
    for file in ["image.sqlite", "image.sqlite-wal", "image.sqlite-shm"] {
        let _ = fs::remove_file(without.path().join(file));
    }
    let found = inspect(without.path()).unwrap();
    assert!(found.journal[0].contains("entry 5 of the journal is damaged"), "{found:?}");
    assert_eq!((found.last, found.history.len()), (Lsn(4), 0));
    assert!(start(without.path()).await.is_err());
    assert_eq!(start(directory.path()).await.map(|found| pairs(&found)), Ok(expected));
}

/// An image without its journal is the end of a directory, and not the beginning of a new one.
#[tokio::test]
async fn a_lost_journal_is_not_begun_anew() {
    let (directory, _) = closed().await;
    fs::remove_file(directory.path().join("journal.sqlite")).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::LostJournal { .. }), "{refused}");
    let refused = inspect(directory.path()).unwrap_err();
    assert!(matches!(refused, JournalOpenError::Sqlite(SqliteOpenError::LostJournal { .. })), "{refused}");
    assert!(!directory.path().join("journal.sqlite").exists());
}

#[tokio::test]
async fn a_rotten_image_is_refused_and_made_again() {
    let (directory, expected) = closed().await;
    let path = directory.path().join("image.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"value 19").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = start(directory.path()).await.unwrap_err();
    assert!(refused.contains("floe check") && refused.contains("does not match"), "{refused}");
    let found = inspect(directory.path()).unwrap();
    assert_eq!((found.journal.len(), found.image.len()), (0, 1), "{found:?}");
    let aside = set_image_aside(directory.path()).unwrap();
    assert_eq!(fs::read(&aside).unwrap(), bytes, "nothing was destroyed");
    assert_eq!(start(directory.path()).await.map(|found| pairs(&found)), Ok(expected));
}

/// The write-ahead log of a running journal holds acknowledged commits.
#[tokio::test]
async fn a_lost_write_ahead_log_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    commit(&journal, 20).await;
    let running = copy(directory.path());
    assert_eq!(start(running.path()).await.unwrap().lsn(), Lsn(20), "the copy is whole with it");
    let running = copy(directory.path());
    fs::remove_file(running.path().join("journal.sqlite-wal")).unwrap();
    let refused = open(running.path()).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::LostLog { .. }), "{refused}");
    let found = inspect(running.path()).unwrap();
    assert!(found.journal[0].contains("restore it"), "{:?}", found.journal);
    drop(journal);
}

#[tokio::test]
async fn a_journal_older_than_its_image_is_refused() {
    let (directory, _) = closed().await;
    let older = copy(directory.path());
    let journal = open(directory.path()).unwrap();
    commit(&journal, 5).await;
    drop(journal);
    fs::copy(older.path().join("journal.sqlite"), directory.path().join("journal.sqlite")).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::Older { last: Lsn(20), folded: Lsn(25), .. }), "{refused}");
    assert!(inspect(directory.path()).unwrap().journal[0].contains("older than its image"));
}

/// Two journals with one beginning: the image of one is not taken for the image of the other.
#[tokio::test]
async fn an_image_of_another_branch_is_refused() {
    let (directory, _) = closed().await;
    let other = copy(directory.path());
    let journal = open(directory.path()).unwrap();
    commit(&journal, 5).await;
    drop(journal);
    let journal = open(other.path()).unwrap();
    for lsn in 20..26 {
        let group = [put(1, "another value")];
        assert_eq!(journal.commit(Lsn(lsn), 1, &group).await, Ok(Outcome::Committed(Lsn(lsn + 1))));
    }
    drop(journal);
    fs::copy(directory.path().join("image.sqlite"), other.path().join("image.sqlite")).unwrap();
    let refused = open(other.path()).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::DamagedImage { .. }), "{refused}");
}
