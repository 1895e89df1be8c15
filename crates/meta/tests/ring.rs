//! The journal in ring files: the suite, on real files and on a simulated disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use floe_env::*;
use floe_meta::conformance::{self, Place};
use floe_meta::*;

/// Files so small that the suite uses them many times, and large enough for its largest commit.
const OPTIONS: RingOptions = RingOptions {
    first_bytes: 1 << 20,
    file_bytes: 8 << 20,
    bytes_max: Some(48 << 20),
    image_bytes: 64 << 10,
    history_bytes: 256 << 10,
};

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
        Arc::new(RingJournal::open(&Env::real(), &self.path(), OPTIONS).expect("the journal opens"))
    }
}

#[tokio::test]
async fn conformance_on_files() {
    conformance::run(&Env::real(), || Box::new(Directory::new())).await;
}

struct Simulated(Env, SimulatedDisk);

impl Place for Simulated {
    fn open(&self) -> Arc<dyn Journal> {
        let disk = Arc::new(self.1.clone());
        Arc::new(RingJournal::open_on(&self.0, disk, OPTIONS).expect("the journal opens"))
    }
}

#[tokio::test(start_paused = true)]
async fn conformance_on_a_simulated_disk() {
    let env = Env::simulated(1);
    conformance::run(&env, || Box::new(Simulated(env.clone(), SimulatedDisk::new(1)))).await;
}

fn open(path: &Path) -> Result<RingJournal, RingOpenError> {
    RingJournal::open(&Env::real(), path, OPTIONS)
}

fn group(round: usize) -> (Vec<Commit>, Vec<Attachment>) {
    let commits = 0..1 + round % 5;
    let commits = commits.map(|i| {
        let value = "v".repeat(1 + round * 37 % 3_000).into();
        let change = Change { key: format!("key {i}").into(), value: Some(value) };
        Commit { envelope: Envelope::broker("test"), changes: vec![change] }
    });
    let bytes = vec![round as u8; round * 977 % 200_000];
    (commits.collect(), vec![Attachment::of(vec![bytes.into()])])
}

/// The child process of the test below. It commits one group after another, and prints what was acknowledged.
#[tokio::test]
async fn child_commits() {
    let Ok(path) = std::env::var("FLOE_META_TEST_CHILD") else { return };
    let journal = open(Path::new(&path)).unwrap();
    let env = Env::real();
    for round in 0.. {
        let (commits, attachments) = group(round);
        let last = journal.lsn();
        let done = journal.commit_with(last, env.random_u128(), &commits, &attachments).await.unwrap();
        assert_eq!(done.outcome, Outcome::Committed(last.plus(commits.len())));
        println!("\nacknowledged {} {round}", last.0);
        // The newest twenty are kept.
        let kept = journal.attachments();
        kept.iter().take(kept.len().saturating_sub(20)).for_each(|lsn| journal.released(*lsn));
    }
}

/// A process is killed while it commits. Everything that it acknowledged is there, in whole groups with their bytes.
#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let directory = Directory::new();
    let mut before = Lsn(0);
    for life in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_commits", "--exact", "--nocapture"])
            .env("FLOE_META_TEST_CHILD", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let Some(numbers) = line.strip_prefix("acknowledged ") else { continue };
            let (lsn, round) = numbers.split_once(' ').unwrap();
            acknowledged.push((Lsn(lsn.parse().unwrap()), round.parse::<usize>().unwrap()));
            if acknowledged.len() == 3 + life * 17 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let journal = open(&directory.path()).unwrap();
        for (lsn, round) in &acknowledged {
            let (commits, attachments) = group(*round);
            let found = journal.history(*lsn, commits.len()).await.unwrap();
            assert!(
                found.iter().map(|entry| &entry.changes).eq(commits.iter().map(|commit| &commit.changes))
            );
            let whole = journal.attached(lsn.next(), 0..attachments[0].bytes).await;
            let newest = acknowledged.len() - round <= 20;
            match whole {
                Ok(bytes) => assert!(bytes == attachments[0].pieces[0]),
                Err(error) => assert!(!newest && matches!(error, AttachedError::None(_)), "{error}"),
            }
        }
        let (last, round) = acknowledged.last().unwrap();
        assert!(journal.lsn() >= last.plus(group(*round).0.len()) && *last >= before);
        before = journal.lsn();
        let meta = Meta::open(Env::real(), Arc::new(journal), Options::default()).await.unwrap();
        assert_eq!(meta.snapshot().lsn(), before);
        drop(meta);
        while matches!(open(&directory.path()), Err(RingOpenError::InUse { .. })) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn one_process_at_a_time() {
    let directory = Directory::new();
    let first = open(&directory.path()).unwrap();
    let busy = open(&directory.path()).unwrap_err();
    assert!(matches!(&busy, RingOpenError::InUse { holder, .. } if holder.starts_with("process ")), "{busy}");
    drop(first);
    open(&directory.path()).unwrap();
}

/// The history of a ring begins later once its commits are kept elsewhere, and an image says where.
#[tokio::test(start_paused = true)]
async fn parts_of_the_history_leave() {
    let place = Simulated(Env::simulated(7), SimulatedDisk::new(7));
    let parts =
        || place.1.names().into_iter().filter(|name| name.starts_with("history/")).collect::<Vec<_>>();
    let mut last = 0;
    let mut commit = async |journal: &dyn Journal, groups: u64| {
        for _ in 0..groups {
            let change = Change { key: "key".into(), value: Some("v".repeat(2_000).into()) };
            let group = vec![Commit { envelope: Envelope::broker("test"), changes: vec![change] }; 20];
            journal.commit(Lsn(last), last.into(), &group).await.unwrap();
            last += 20;
        }
        last
    };
    let journal = place.open();
    commit(&*journal, 60).await;
    assert!(parts().len() > 3, "{:?}", parts());
    journal.forget(Lsn(1_000));
    let last = commit(&*journal, 20).await;
    let Err(JournalError::Reload(kept)) = journal.history(Lsn(0), 1).await else {
        panic!("it has let go of the first commits")
    };
    assert!(kept > Lsn(200) && kept <= Lsn(1_001), "{kept}");
    assert_eq!(journal.history(Lsn(kept.0 - 1), 1).await.unwrap()[0].lsn, kept);
    drop(journal);
    let journal = place.open();
    assert!(matches!(journal.history(Lsn(0), 1).await, Err(JournalError::Reload(again)) if again == kept));
    assert_eq!(journal.load().await.unwrap().image, [("key".into(), "v".repeat(2_000).into())]);
    assert_eq!(journal.history(Lsn(last - 1), 1).await.unwrap().len(), 1);
    drop(journal);
    // A part that is lost is not one that has gone.
    place.1.lose(parts().first().unwrap());
    let disk = Arc::new(place.1.clone());
    let refused = RingJournal::open_on(&place.0, disk, OPTIONS).unwrap_err();
    assert!(matches!(refused, RingOpenError::History(_)), "{refused}");
}

/// Names and bytes of all files below a directory.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// A look at a directory reads all of it, changes none of it, and is for a journal that nobody uses.
#[tokio::test]
async fn a_look_at_a_ring_changes_nothing() {
    let directory = Directory::new();
    let options = JournalOptions { ring: OPTIONS, ..JournalOptions::default() };
    let open = || open_journal(&Env::real(), &directory.path(), options).unwrap();
    let missing = inspect(&directory.path()).unwrap_err();
    assert!(matches!(missing, JournalOpenError::Sqlite(_)) && !directory.path().exists(), "{missing}");
    let journal = open();
    for round in 0..60 {
        let (commits, attachments) = group(round);
        let last = journal.lsn();
        journal.commit_with(last, round as u128, &commits, &attachments).await.unwrap();
    }
    let busy = inspect(&directory.path()).unwrap_err();
    assert!(matches!(busy, JournalOpenError::InUse { .. }), "{busy}");
    let (last, attachments) = (journal.lsn(), journal.attachments());
    drop(journal);
    let before = contents(&directory.path());
    let found = inspect(&directory.path()).unwrap();
    assert_eq!((found.last, found.snapshot.len()), (last, 5));
    let told = [&found.journal, &found.history, &found.image, &found.notes];
    assert!(told.iter().all(|texts| texts.is_empty()) && found.damaged.is_empty(), "{told:?}");
    assert!(found.attachments.keys().eq(&attachments) && found.attachments.values().sum::<u64>() > 1 << 20);
    let after = contents(&directory.path());
    let same = |(name, bytes): &(PathBuf, Vec<u8>)| {
        name.ends_with("journal.lock") || after.contains(&(name.clone(), bytes.clone()))
    };
    assert!(before.len() == after.len() && before.iter().all(same));
    // A damaged image is set aside, and the start takes the other one.
    let image = after.iter().rfind(|(name, _)| name.parent().unwrap().ends_with("image")).unwrap();
    let mut rotten = image.1.clone();
    rotten[5_000] ^= 1;
    std::fs::write(&image.0, rotten).unwrap();
    let found = inspect(&directory.path()).unwrap();
    assert!(found.journal.is_empty() && found.image.len() == 1 && found.last == last, "{found:?}");
    let aside = set_image_aside(&directory.path()).unwrap();
    assert!(aside.exists() && !image.0.exists(), "{}", aside.display());
    assert!(inspect(&directory.path()).unwrap().image.is_empty());
    assert_eq!(open().lsn(), last);
}
