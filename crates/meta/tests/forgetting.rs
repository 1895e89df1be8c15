//! The SQLite journal lets go of entries: its files stay small, and what is left of them makes the map.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use floe_env::*;
use floe_meta::*;

fn open(path: &Path) -> Result<SqliteJournal, SqliteOpenError> {
    SqliteJournal::open(&Env::real(), path)
}

fn put(number: u64) -> Commit {
    let value = format!("{number}").repeat(100);
    let change = Change { key: format!("key {}", number % 50).into(), value: Some(value.into()) };
    Commit { envelope: Envelope::broker("test"), changes: vec![change] }
}

async fn commit(journal: &SqliteJournal, count: u64) {
    let last = journal.lsn();
    let group: Vec<Commit> = (last.0..last.0 + count).map(put).collect();
    let done = journal.commit(last, u128::from(last.0), &group).await;
    assert_eq!(done, Ok(Outcome::Committed(last.plus(count as usize))));
}

/// Waits until the journal has nothing before `first`.
async fn forgotten(journal: &SqliteJournal, first: u64) {
    for _ in 0..2_000 {
        match journal.history(Lsn(first - 2), 1).await {
            Err(JournalError::Reload(kept)) if kept == Lsn(first) => return,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("entries before {first} are kept");
}

/// A journal of so many commits that was closed, and begins with `first`.
async fn shortened(path: &Path, commits: u64, first: u64) -> Snapshot {
    let journal = open(path).unwrap();
    commit(&journal, commits).await;
    journal.forget(Lsn(first - 1));
    forgotten(&journal, first).await;
    drop(journal);
    whole(path)
}

/// The map, after a look at everything that found nothing.
fn whole(path: &Path) -> Snapshot {
    let found = inspect(path).unwrap();
    assert_eq!((found.journal, found.history, found.image), (vec![], vec![], vec![]));
    found.snapshot
}

fn same(one: &Snapshot, other: &Snapshot) -> bool {
    one.lsn() == other.lsn() && one.pairs().eq(other.pairs())
}

async fn start(path: &Path) -> Result<Snapshot, String> {
    let journal = open(path).map_err(|error| error.to_string())?;
    let opened = Meta::open(Env::real(), std::sync::Arc::new(journal), Options::default()).await;
    let snapshot = opened.map(|meta| meta.snapshot()).map_err(|error| error.to_string());
    // The committer drops its handle a moment later.
    while matches!(open(path), Err(SqliteOpenError::InUse { .. })) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    snapshot
}

#[tokio::test]
async fn the_map_is_made_of_the_base_when_the_image_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let map = shortened(path, 3_000, 2_001).await;
    assert_eq!((map.lsn(), map.len()), (Lsn(3_000), 50));
    for file in ["image.sqlite", "image.sqlite-wal", "image.sqlite-shm"] {
        let _ = fs::remove_file(path.join(file));
    }
    assert!(same(&start(path).await.unwrap(), &map));
    assert!(same(&whole(path), &map));
    // With neither, nothing is guessed.
    fs::remove_file(path.join("image.sqlite")).unwrap();
    let base = fs::read(path.join("base.sqlite")).unwrap();
    fs::remove_file(path.join("base.sqlite")).unwrap();
    let refused = open(path).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::LostImage { first: Lsn(2_001), .. }), "{refused}");
    assert!(inspect(path).unwrap().journal[0].contains("base.sqlite"));
    fs::write(path.join("base.sqlite"), &base).unwrap();
    assert!(same(&start(path).await.unwrap(), &map));
}

#[tokio::test]
async fn a_damaged_base_is_named_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let map = shortened(path, 300, 101).await;
    let mut bytes = fs::read(path.join("base.sqlite")).unwrap();
    let at = bytes.windows(4).rposition(|window| window == b"key ").unwrap();
    bytes[at] ^= 1;
    fs::write(path.join("base.sqlite"), &bytes).unwrap();
    let found = inspect(path).unwrap();
    assert!(found.history[0].contains("base.sqlite"), "{found:?}");
    assert!(found.journal.is_empty() && found.image.is_empty() && same(&found.snapshot, &map));
    assert!(same(&start(path).await.unwrap(), &map));
    let map = shortened(path, 300, 501).await;
    assert_eq!(map.lsn(), Lsn(600));
}

/// The directory as it is at many moments while entries leave: each of them is whole.
#[tokio::test]
async fn a_copy_of_any_moment_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    commit(&journal, 5_000).await;
    journal.forget(Lsn(4_000));
    for _ in 0..60 {
        let copy = tempfile::tempdir().unwrap();
        // As a process that is killed leaves them; the log last, so that it is not older than the file.
        for file in
            ["base.sqlite", "image.sqlite", "image.sqlite-wal", "journal.sqlite", "journal.sqlite-wal"]
        {
            let _ = fs::copy(directory.path().join(file), copy.path().join(file));
        }
        // A copy that is torn by the keeper's own writes is no crash; only what can be opened is compared.
        if let Ok(found) = start(copy.path()).await {
            assert_eq!((found.lsn(), found.len()), (Lsn(5_000), 50));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    forgotten(&journal, 4_001).await;
}

/// The file is as large as what was not kept elsewhere at a time, however many commits there were.
#[tokio::test]
async fn the_file_does_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    let mut sizes = Vec::new();
    for round in 1..=6_u64 {
        for _ in 0..40 {
            commit(&journal, 1_000).await;
        }
        journal.forget(Lsn(round * 40_000 - 10));
        forgotten(&journal, round * 40_000 - 9).await;
        sizes.push(directory.path().join("journal.sqlite").metadata().unwrap().len());
    }
    assert!(sizes[5] <= sizes[1] + sizes[1] / 4, "{sizes:?}");
    // What the next commits will not take goes back.
    for _ in 0..1_000 {
        if directory.path().join("journal.sqlite").metadata().unwrap().len() < (18 << 20) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        journal.forget(Lsn(1));
    }
    panic!("the file keeps its room");
}
