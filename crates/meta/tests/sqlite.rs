//! The SQLite journal: the suite, formats, and a killed process.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use floe_env::*;
use floe_meta::conformance::{self, Place};
use floe_meta::*;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(tempfile::tempdir().expect("there is a directory for temporary files"))
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("meta")
    }
}

impl Place for Directory {
    fn open(&self) -> Arc<dyn Journal> {
        Arc::new(SqliteJournal::open(&Env::real(), &self.path()).expect("the journal opens"))
    }
}

#[tokio::test]
async fn conformance() {
    conformance::run(&Env::real(), || Box::new(Directory::new())).await;
}

fn open(path: &Path) -> Result<SqliteJournal, SqliteOpenError> {
    SqliteJournal::open(&Env::real(), path)
}

/// Removes a database with what SQLite keeps beside it.
fn remove(path: &Path, file: &str) {
    for file in [file.to_owned(), format!("{file}-wal"), format!("{file}-shm")] {
        match fs::remove_file(path.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

fn remove_image(path: &Path) {
    remove(path, "image.sqlite");
}

fn put(value: String) -> Commit {
    let change = Change { key: "key".into(), value: Some(value.into()) };
    Commit { envelope: Envelope::broker("test"), changes: vec![change] }
}

#[tokio::test]
async fn files_that_are_not_ours_or_newer_are_refused() {
    let directory = Directory::new();
    let path = directory.path();
    let first = open(&path).unwrap();
    assert_eq!(first.commit(Lsn(0), 1, &[put("a".into())]).await, Ok(Outcome::Committed(Lsn(1))));
    let busy = open(&path).unwrap_err();
    assert!(
        matches!(&busy, SqliteOpenError::InUse { holder, .. } if holder.starts_with("process ")),
        "{busy}"
    );
    drop(first);

    for file in ["journal.sqlite", "image.sqlite"] {
        let set_format = |format: i64| {
            let connection = rusqlite::Connection::open(path.join(file)).unwrap();
            connection.execute("UPDATE meta SET value = ?1 WHERE name = 'format'", [format]).unwrap();
        };
        set_format(3);
        let newer = open(&path).unwrap_err();
        assert!(matches!(newer, SqliteOpenError::NewerFormat { found: 3, known: 2, .. }), "{newer}");
        assert!(newer.to_string().contains("use a newer floe"));
        set_format(1);
        let older = open(&path).unwrap_err();
        assert!(matches!(older, SqliteOpenError::OlderFormat { found: 1, known: 2, .. }), "{older}");
        assert!(older.to_string().contains("start with a new data directory"));
        set_format(2);
        assert_eq!(open(&path).unwrap().lsn(), Lsn(1));
    }

    // An image of another journal is refused. A missing image is rebuilt from the journal.
    let other = Directory::new();
    drop(open(&other.path()).unwrap());
    remove_image(&path);
    fs::copy(other.path().join("image.sqlite"), path.join("image.sqlite")).unwrap();
    let foreign = open(&path).unwrap_err();
    assert!(foreign.to_string().contains("belongs to another journal"), "{foreign}");
    remove_image(&path);
    let again = open(&path).unwrap();
    assert_eq!(again.load().await.unwrap().entries.len(), 1);
    drop(again);

    fs::write(path.join("journal.sqlite"), "this is not a database, but long enough to be one".repeat(100))
        .unwrap();
    assert!(matches!(open(&path).unwrap_err(), SqliteOpenError::Foreign { .. }));
    remove(&path, "journal.sqlite");
    let connection = rusqlite::Connection::open(path.join("journal.sqlite")).unwrap();
    connection.execute_batch("CREATE TABLE theirs(x)").unwrap();
    drop(connection);
    assert!(matches!(open(&path).unwrap_err(), SqliteOpenError::Foreign { .. }));
}

/// The image follows the journal, and the next start loads only the entries that are not folded yet.
#[tokio::test]
async fn the_image_is_folded_beside_commits() {
    let directory = Directory::new();
    let journal = open(&directory.path()).unwrap();
    let group: Vec<Commit> = (0..2_500).map(|i| put(i.to_string())).collect();
    assert_eq!(journal.commit(Lsn(0), 1, &group).await, Ok(Outcome::Committed(Lsn(2_500))));
    let loaded = loop {
        let loaded = journal.load().await.unwrap();
        if loaded.image_lsn == Lsn(2_500) {
            break loaded;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(loaded.image, [("key".into(), "2499".into())]);
    assert!(loaded.entries.is_empty());
    assert_eq!(journal.history(Lsn(0), 10_000).await.unwrap().len(), 2_500);
}

/// The child process of a test. It commits one group after another, and prints what was acknowledged.
#[tokio::test]
async fn child_commits() {
    let Ok(path) = std::env::var("FLOE_META_TEST_CHILD") else { return };
    let journal = open(Path::new(&path)).unwrap();
    let env = Env::real();
    let mut last = journal.lsn();
    let large = std::env::var("FLOE_META_TEST_LARGE").is_ok();
    if large {
        // More than the child may write to a file. It is refused, and small commits still work.
        let refused = journal.commit(last, 1, &[put("x".repeat(40 << 20))]).await.unwrap_err();
        assert!(matches!(refused, JournalError::NotApplied(_)), "{refused}");
    }
    for round in 0.. {
        let group: Vec<Commit> =
            (0..1 + round % 5).map(|_| put("v".repeat(1 + round * 37 % 3_000))).collect();
        assert_eq!(
            journal.commit(last, env.random_u128(), &group).await,
            Ok(Outcome::Committed(last.plus(group.len())))
        );
        last = last.plus(group.len());
        println!("\nacknowledged {}", last.0);
        if large && round == 20 {
            return;
        }
    }
}

fn child(path: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell} exec \"$0\" child_commits --exact --nocapture"));
    command.arg(std::env::current_exe().unwrap()).env("FLOE_META_TEST_CHILD", path).stdout(Stdio::piped());
    command
}

/// The LSN of the last commit that the child acknowledged before its end. Calls `at` after each acknowledgement.
fn acknowledged(child: &mut Child, mut at: impl FnMut(&mut Child, usize)) -> u64 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    for (count, line) in
        lines.map_while(Result::ok).filter(|line| line.starts_with("acknowledged")).enumerate()
    {
        last = line.split(' ').nth(1).unwrap().parse().unwrap();
        at(child, count);
    }
    last
}

/// A process is killed while it commits. Everything that it acknowledged is there, in whole groups.
#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let directory = Directory::new();
    let mut total = 0;
    for round in 0..8 {
        let mut child = child(&directory.path(), "").spawn().unwrap();
        let last = acknowledged(&mut child, |child, count| {
            if count == 3 + round * 7 {
                child.kill().unwrap();
            }
        });
        child.wait().unwrap();
        let journal = open(&directory.path()).unwrap();
        let entries = journal.history(Lsn(0), usize::MAX).await.unwrap();
        assert!(journal.lsn().0 >= last && last > total, "{} after {last}", journal.lsn());
        assert!(entries.iter().map(|e| e.lsn.0).eq(1..=journal.lsn().0));
        total = journal.lsn().0;
        let meta = Meta::open(Env::real(), Arc::new(journal), Options::default()).await.unwrap();
        assert_eq!((meta.snapshot().lsn(), meta.snapshot().len()), (Lsn(total), 1));
        drop(meta);
        while matches!(open(&directory.path()), Err(SqliteOpenError::InUse { .. })) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// The log cannot grow any further. The commit is certainly not applied, smaller ones still work, and the next
/// start finds exactly what was acknowledged.
#[tokio::test]
async fn a_log_that_cannot_grow_refuses_and_goes_on() {
    let directory = Directory::new();
    // 34,000 blocks of 512 bytes are a little more than the log's working size. Without the trap, the signal would
    // end the child.
    let mut command = child(&directory.path(), "trap '' XFSZ; ulimit -f 34000;");
    let mut child = command.env("FLOE_META_TEST_LARGE", "1").spawn().unwrap();
    let last = acknowledged(&mut child, |_, _| {});
    assert!(child.wait().unwrap().success());
    let journal = open(&directory.path()).unwrap();
    assert_eq!(journal.lsn(), Lsn(last));
    assert_eq!(last, (0..=20).map(|round| 1 + round % 5).sum::<u64>());
}
