use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::DISK_RESERVE_BYTES;

use super::*;
use crate::journal::open::{JournalOpenError, JournalOptions, open_journal};
use crate::journal::ring::RingJournal;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Change, Commit, Entry, Envelope, Journal, JournalError, Outcome};
use crate::{Meta, Options, Snapshot};

/// Commits of the old journal; more than one slice of them is kept.
const COMMITS: u64 = 24_000;
/// The first that is kept.
const FIRST: u64 = 6_001;

fn put(number: u64) -> Commit {
    let value = (!number.is_multiple_of(7)).then(|| Bytes::from(format!("value {number}")));
    let change = Change { key: format!("\u{1}key {:04}", number % 900).into(), value };
    let envelope =
        Envelope { run_id: Some(format!("run {number}")), ..Envelope::client("User:ann".into(), "x".into()) };
    Commit { envelope, changes: vec![change] }
}

/// What a directory held when it was closed.
struct Held {
    directory: tempfile::TempDir,
    map: Snapshot,
    entries: Vec<Entry>,
}

/// A journal in SQLite that has let go of its first commits.
async fn old_journal() -> Held {
    let directory = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&Env::real(), directory.path()).unwrap();
    for begin in (0..COMMITS).step_by(1_000) {
        let group: Vec<Commit> = (begin..begin + 1_000).map(put).collect();
        let done = journal.commit(Lsn(begin), u128::from(begin) << 70 | 7, &group).await;
        assert_eq!(done, Ok(Outcome::Committed(Lsn(begin + 1_000))));
    }
    journal.forget(Lsn(FIRST - 1));
    while !matches!(journal.history(Lsn(FIRST - 2), 1).await, Err(JournalError::Reload(Lsn(FIRST)))) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let entries = history(&journal, FIRST - 1).await;
    assert_eq!(entries.len() as u64, COMMITS + 1 - FIRST);
    let meta = Meta::open(Env::real(), Arc::new(journal), Options::default()).await.unwrap();
    let map = meta.snapshot();
    drop(meta);
    // The committer drops its handle a moment later.
    while SqliteJournal::open(&Env::real(), directory.path()).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Held { directory, map, entries }
}

async fn history(journal: &dyn Journal, from: u64) -> Vec<Entry> {
    let (mut found, mut at) = (Vec::new(), Lsn(from));
    loop {
        let more = journal.history(at, 5_000).await.unwrap();
        let Some(last) = more.last() else { return found };
        at = last.lsn;
        found.extend(more);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let (path, kind) = file.map(|file| (file.path(), file.file_type().unwrap())).unwrap();
        let to = to.join(path.file_name().unwrap());
        match kind.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).unwrap()),
        }
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Small files, which take less time.
fn options() -> JournalOptions {
    let ring = RingOptions { first_bytes: 64 << 10, file_bytes: 1 << 20, ..RingOptions::default() };
    JournalOptions { ring, ..JournalOptions::default() }
}

fn open(directory: &Path) -> Result<RingJournal, JournalOpenError> {
    open_journal(&Env::real(), directory, options())
}

/// The directory is a ring that has all that was held, and goes on. Returns the names in it.
async fn assert_moved(directory: &Path, held: &Held, more: u64) -> BTreeSet<String> {
    let journal = open(directory).unwrap();
    assert_eq!(journal.lsn(), Lsn(COMMITS + more));
    let entries = history(&journal, FIRST - 1).await;
    assert!(entries[..held.entries.len()] == held.entries, "attempts, envelopes and changes are the same");
    assert!(matches!(journal.history(Lsn(FIRST - 2), 1).await, Err(JournalError::Reload(Lsn(FIRST)))));
    if more == 0 {
        let loaded = journal.load().await.unwrap();
        assert!(loaded.image.iter().map(|(key, value)| (key, value)).eq(held.map.pairs()));
    }
    let done = journal.commit(Lsn(COMMITS + more), 9, &[put(1)]).await;
    assert_eq!(done, Ok(Outcome::Committed(Lsn(COMMITS + more + 1))));
    drop(journal);
    let refused = SqliteJournal::open(&Env::real(), directory).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::NewerFormat { .. }), "{refused}");
    names(directory)
}

/// The process is killed after any step: the next start has everything.
#[tokio::test]
async fn a_journal_in_sqlite_becomes_a_ring_whatever_happens_on_the_way() {
    let held = old_journal().await;
    let copies = tempfile::tempdir().unwrap();
    let (mut moments, directory) = (Vec::<(String, PathBuf)>::new(), held.directory.path());
    let mut done = |step: &str| {
        let to = copies.path().join(format!("{} {step}", moments.len()));
        copy(directory, &to);
        moments.push((step.to_owned(), to));
    };
    migrate(&Env::real(), directory, DISK_RESERVE_BYTES, options().ring, &mut done).unwrap();
    let steps: Vec<&str> = moments.iter().map(|(step, _)| &step[..]).collect();
    let expected =
        ["opened", "read", "part", "part", "built", "closed", "marked", "moved", "moved", "moved", "removed"];
    assert_eq!(steps, expected);
    let expected = ["history", "image", "journal.lock", "journal.sqlite", "ring"].map(str::to_owned);
    for (step, place) in &moments {
        for more in 0..2 {
            let mut left = assert_moved(place, &held, more).await;
            left.remove("reserve");
            assert_eq!(left, BTreeSet::from(expected.clone()), "killed after {step}");
        }
    }
    assert_moved(directory, &held, 0).await;
}

/// What a start refuses stays as it is, and so does what only a move reads.
#[tokio::test]
async fn a_damaged_journal_is_not_moved() {
    let held = old_journal().await;
    let path = held.directory.path();
    for (file, text) in
        [("image.sqlite", "value 23999"), ("journal.sqlite", "run 7000"), ("journal.sqlite", "run 23999")]
    {
        let place = tempfile::tempdir().unwrap();
        copy(path, place.path());
        let mut bytes = fs::read(place.path().join(file)).unwrap();
        let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
        bytes[at] ^= 1;
        fs::write(place.path().join(file), &bytes).unwrap();
        let refused = open(place.path()).unwrap_err();
        assert!(
            refused.to_string().contains("damaged") && refused.to_string().contains("as it was"),
            "{refused}"
        );
        assert!(
            names(place.path()).iter().all(|name| !name.starts_with("ring")),
            "{:?}",
            names(place.path())
        );
        // Made good, it is moved.
        let mut bytes = fs::read(place.path().join(file)).unwrap();
        bytes[at] ^= 1;
        fs::write(place.path().join(file), &bytes).unwrap();
        assert_moved(place.path(), &held, 0).await;
    }
    // A start refuses this one before a move begins.
    fs::remove_file(path.join("journal.sqlite")).unwrap();
    let refused = open(path).unwrap_err();
    assert!(matches!(refused, JournalOpenError::Sqlite(SqliteOpenError::LostJournal { .. })), "{refused}");
}

/// An old file that comes back beside a ring, and a ring that is gone, are not passed over.
#[tokio::test]
async fn two_journals_and_a_lost_ring_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    drop(SqliteJournal::open(&Env::real(), path).unwrap());
    let old = fs::read(path.join("journal.sqlite")).unwrap();
    let journal = open(path).unwrap();
    assert_eq!(journal.commit(Lsn(0), 1, &[put(1)]).await, Ok(Outcome::Committed(Lsn(1))));
    drop(journal);
    let mark = fs::read(path.join("journal.sqlite")).unwrap();
    fs::write(path.join("journal.sqlite"), old).unwrap();
    let refused = open(path).unwrap_err();
    assert!(matches!(refused, JournalOpenError::Both { .. }), "{refused}");
    // Without either, the ring is taken, and gets its mark again.
    fs::remove_file(path.join("journal.sqlite")).unwrap();
    assert_eq!(open(path).unwrap().lsn(), Lsn(1));
    assert!(source::is_marked(path).unwrap());
    fs::write(path.join("journal.sqlite"), mark).unwrap();
    for directory in DIRECTORIES {
        fs::remove_dir_all(path.join(directory)).unwrap();
    }
    let refused = open(path).unwrap_err();
    assert!(matches!(refused, JournalOpenError::Ring(RingOpenError::NoImage { .. })), "{refused}");
}

/// A new broker begins with little on the disk, and an earlier floe stays away.
#[tokio::test]
async fn a_new_ring_is_small_and_marked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = open_journal(&Env::real(), &path, JournalOptions::default()).unwrap();
    assert_eq!(journal.commit(Lsn(0), 1, &[put(1)]).await, Ok(Outcome::Committed(Lsn(1))));
    // Dropping it waits for its thread, which makes files ahead.
    drop(journal);
    let files = fs::read_dir(path.join("ring")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 32 << 20, "{bytes}");
    let refused = SqliteJournal::open(&Env::real(), &path).unwrap_err();
    assert!(matches!(refused, SqliteOpenError::NewerFormat { .. }), "{refused}");
    let again = open(&path).unwrap();
    let busy = open(&path).unwrap_err();
    assert!(matches!(busy, JournalOpenError::InUse { .. }), "{busy}");
    assert_eq!(again.lsn(), Lsn(1));
}

/// A store in a bucket: commits bring no bytes, and those of earlier runs are there until they are released.
#[tokio::test]
async fn a_journal_that_carries_nothing_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = crate::Attachment::of(vec![Bytes::from_static(b"bytes")]);
    let journal = open(directory.path()).unwrap();
    let group = [put(1)];
    journal.commit_with(Lsn(0), 1, &group, std::slice::from_ref(&bytes)).await.unwrap();
    drop(journal);
    let options = JournalOptions { carries: false, ..options() };
    let journal = open_journal(&Env::real(), directory.path(), options).unwrap();
    assert_eq!((journal.carries(), journal.attachments()), (0, vec![Lsn(1)]));
    let refused = journal.commit_with(Lsn(1), 2, &group, &[bytes]).await.unwrap_err();
    assert!(matches!(refused, JournalError::NotApplied(_)), "{refused}");
    assert_eq!(journal.commit(Lsn(1), 3, &group).await, Ok(Outcome::Committed(Lsn(2))));
    assert_eq!(journal.attached(Lsn(1), 0..5).await, Ok(Bytes::from_static(b"bytes")));
    journal.released(Lsn(1));
    assert_eq!(journal.attachments(), []);
}
