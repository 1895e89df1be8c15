//! How a journal ages: makes very many commits, lets the journal forget those that a history would have, and opens it.
//!
//! `cargo run --release -p floe-meta --example age -- [COMMITS] [DIRECTORY]`

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_meta::{
    Change, Commit, Envelope, Journal, JournalError, JournalOptions, Lsn, Meta, Options, open_journal,
};

/// Commits of one group.
const GROUP: u64 = 2_000;
/// Commits that a history takes at a time.
const FORGOTTEN: u64 = 50_000;
/// Keys of the map: a bounded log with merging and retention has about so many.
const KEYS: u64 = 100_000;

/// A commit like that of a small append: a partition, an extent, an object, a producer, a counter; one extent goes.
fn append(number: u64) -> Commit {
    let put = |kind: u8, key: u64, bytes: usize| {
        let mut full = vec![kind];
        full.extend_from_slice(&key.to_be_bytes());
        let value = (0..bytes).map(|at| (number >> (at % 8)) as u8).collect::<Vec<u8>>();
        Change { key: full.into(), value: Some(value.into()) }
    };
    let mut gone = put(13, number.wrapping_sub(KEYS), 0);
    gone.value = None;
    let mut changes = vec![
        put(2, 1, 6),
        put(12, number % 100, 20),
        put(13, number, 30),
        put(14, number % 100, 60),
        put(15, number % KEYS, 5),
    ];
    changes.push(gone);
    changes.sort_by(|one, other| one.key.cmp(&other.key));
    let envelope = Envelope::client("anonymous".into(), format!("sensor-{}", number % 100).into());
    Commit { envelope, changes }
}

/// Bytes of all files below a directory. A file may go meanwhile.
fn bytes_of(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("the directory is there").flatten();
    let bytes = |file: std::fs::DirEntry| match file.metadata() {
        Ok(found) if found.is_dir() => bytes_of(&file.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    files.map(bytes).sum()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let commits: u64 = arguments.next().map_or(10_000_000, |text| text.parse().expect("a number of commits"));
    let temporary = tempfile::tempdir().expect("there is a directory for temporary files");
    let directory = arguments.next().map_or(temporary.path().to_owned(), PathBuf::from);
    let env = Env::real();
    let open = || open_journal(&Env::real(), &directory, JournalOptions::default());
    let journal = open().expect("the journal opens");
    let (begun, mut largest) = (env.monotonic(), 0);
    let mut last = journal.lsn().0;
    while last < commits {
        let group: Vec<Commit> = (last..last + GROUP).map(append).collect();
        match journal.commit(Lsn(last), last.into(), &group).await {
            Ok(_) => last += GROUP,
            // Images are behind: these are more commits a second than any broker makes.
            Err(JournalError::NotApplied(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
        if last.is_multiple_of(FORGOTTEN) {
            journal.forget(Lsn(last));
            largest = bytes_of(&directory).max(largest);
        }
        if last.is_multiple_of(1_000_000) {
            println!(
                "{last:>10} commits  {:>6} s  {:>6} MB",
                (env.monotonic() - begun).as_secs(),
                bytes_of(&directory) / 1_000_000
            );
        }
    }
    drop(journal);
    println!("largest: {} MB; closed: {} MB", largest / 1_000_000, bytes_of(&directory) / 1_000_000);
    for _ in 0..3 {
        let begun = env.monotonic();
        let journal = open().expect("the journal opens");
        let meta =
            Meta::open(Env::real(), Arc::new(journal), Options::default()).await.expect("the map loads");
        println!("opened {:?} in {:.2} s", meta.snapshot(), (env.monotonic() - begun).as_secs_f64());
        drop(meta);
        // Its tasks end a moment later, and the last of them closes the files.
        while open().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
