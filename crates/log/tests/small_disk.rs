//! The log on a real disk that is full: a small file system in a file, mounted for the test.
//!
//! Mounting takes the rights of root, and `mkfs` of each file system. Where one of them is missing, the test says on
//! standard error that it was left out, and passes.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::{DiskReserve, DiskRoom, Env};
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::sequencer::AppendError;
use floe_log::topic::{NewTopic, Topic, TopicError};
use floe_log::{Append, Config, Log, PartitionId, Times, Writer};
use floe_meta::{JournalOptions, Meta, Options, open_journal};
use floe_store::Store;
use floe_store::local::{self, LocalStore};

const MIB: u64 = 1 << 20;
/// XFS makes none smaller than 300 MiB.
const DISK_BYTES: u64 = 400 * MIB;

/// A mounted file system. Dropping it unmounts it.
struct SmallDisk {
    mount: PathBuf,
    _files: tempfile::TempDir,
}

impl SmallDisk {
    /// Makes a file system with `mkfs` and mounts it, or says why that is not possible.
    fn mount(mkfs: &[&str]) -> Result<SmallDisk, String> {
        let files = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, mount) = (files.path().join("image"), files.path().join("mount"));
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        made.and_then(|()| fs::create_dir(&mount)).map_err(|error| error.to_string())?;
        let image = image.to_str().expect("temporary paths are text");
        run(&[mkfs, &[image]].concat())?;
        run(&["mount", "-o", "loop", image, mount.to_str().expect("temporary paths are text")])?;
        Ok(SmallDisk { mount, _files: files })
    }

    fn room(&self) -> DiskRoom {
        DiskReserve::new(&self.mount, floe_env::DISK_RESERVE_BYTES).room().expect("it is mounted")
    }

    /// Takes all the room that is left, as another program would.
    fn fill(&self) -> PathBuf {
        let path = self.mount.join("of another program");
        let file = File::create(&path).expect("a name takes no room");
        for step in [MIB as usize, 4096] {
            let bytes = vec![7; step];
            let mut at = file.metadata().expect("it is open").len();
            while file.write_all_at(&bytes, at).is_ok() && file.sync_data().is_ok() {
                at += step as u64;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run(&["umount", "-l", self.mount.to_str().expect("temporary paths are text")]) {
            say(&error);
        }
    }
}

fn run(command: &[&str]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(command[0]).args(&command[1..]).env("PATH", path).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Says something that the test harness does not hold back.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("standard error is open");
}

struct Broker {
    env: Env,
    log: Log,
}

impl Broker {
    async fn start(disk: &SmallDisk) -> Broker {
        let env = Env::real().scope();
        let journal = open_journal(&env, &disk.mount.join("journal"), JournalOptions::default())
            .expect("the journal opens");
        let meta = Meta::open(env.clone(), Arc::new(journal), Options::default()).await.expect("it loads");
        let store = LocalStore::open(env.clone(), disk.mount.join("store"), local::Options::default()).await;
        let store: Arc<dyn Store> = Arc::new(store.expect("the store opens"));
        let default = Config::default();
        let times = Times {
            trash_grace: Duration::from_millis(200),
            cleaner_pause: Duration::from_millis(100),
            ..default.times
        };
        let log = Log::open(env.clone(), meta, store, Config { times, sole: true, ..default })
            .await
            .expect("it opens");
        Broker { env, log }
    }

    async fn stop(self) {
        let Broker { env, log } = self;
        log.close().await;
        env.abort_all();
        env.drained().await;
    }

    async fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        let new = NewTopic { name: name.into(), partitions: 1, configs: Default::default() };
        self.log.create_topic(&writer(), new, false).await
    }

    async fn append(&self, batches: Vec<(PartitionId, Bytes)>) -> Result<(), AppendError> {
        let answers = self.log.append(Append { writer: writer(), batches }).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// The number of records of a partition, all of which are read.
    async fn records(&self, partition: PartitionId) -> i64 {
        let snapshot = self.log.meta().snapshot();
        let mut from = Log::bounds(&snapshot, partition).expect("the partition exists").log_start;
        loop {
            let read = self.log.read(&snapshot, partition, from, 1 << 20).await.expect("it can be read");
            match read.batches.last() {
                Some(last) => from = last.next_offset(),
                None => return from.0,
            }
        }
    }
}

fn writer() -> Writer {
    Writer::new("User:test", "test-client")
}

fn batch(bytes: usize) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    builder.push(1000, None, Some(&vec![b'x'; bytes]), &[]);
    builder.build()
}

/// Fills the disk, starts a broker on it, deletes the topic that takes the room, and goes on.
async fn fills_and_goes_on(disk: &SmallDisk) {
    let broker = Broker::start(disk).await;
    let large = PartitionId::new(broker.topic("large").await.expect("created").id, 0);
    let small = PartitionId::new(broker.topic("small").await.expect("created").id, 0);
    let mut kept = 0;
    let refused = loop {
        // Each pack gets some objects of the small topic, so that deleting the large one frees no pack.
        let mut appended = broker.append(vec![(large, batch(900 << 10))]).await;
        if appended.is_ok() && kept % 16 == 0 {
            appended = broker.append(vec![(small, batch(100))]).await;
        }
        match appended {
            Ok(()) => kept += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(&refused, AppendError::Unavailable(reason) if reason.contains("are kept for deletions")),
        "{refused}"
    );
    let of_small = broker.records(small).await;
    let of_large = broker.records(large).await;
    assert!(of_large > 100 && of_small > 6, "{of_large} and {of_small} records");
    let room = disk.room();
    assert!(!room.only_deletions(), "records leave the reserve alone: {room:?}");
    broker.topic("another").await.expect("and metadata is still taken");

    // Another program takes all that is left.
    let foreign = disk.fill();
    tokio::time::sleep(floe_meta::limits::RING_ROOM_LOOK).await;
    let refused = broker.topic("one-more").await.expect_err("the rest is for deletions");
    assert!(refused.to_string().contains("delete topics"), "{refused}");
    let refused = broker.append(vec![(small, batch(100))]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    broker.stop().await;
    let broker = Broker::start(disk).await;
    assert_eq!(broker.records(small).await, of_small, "a broker starts on a full disk, and reads");
    broker.log.delete_topic(&writer(), large.topic).await.expect("a deletion is taken");
    let all = floe_log::deleted::Which::All;
    let purged = broker.log.purge_topics(&writer(), all).await.expect("a purge is taken");
    assert_eq!(purged.topics, 1);

    // The objects go, and their room goes back to the file system although each pack is still in use.
    let freed = |room: DiskRoom| room.holds(of_large as u64 * (900 << 10) / 2);
    let mut patience = 600;
    while !freed(disk.room()) {
        patience -= 1;
        assert!(patience > 0, "no room was given back: {:?}", disk.room());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    broker.topic("one-more").await.expect("metadata is taken again");
    broker.append(vec![(small, batch(100))]).await.expect("and so are records");
    assert_eq!(broker.records(small).await, of_small + 1);
    assert!(foreign.exists(), "nobody else gave way");
    broker.stop().await;
    let broker = Broker::start(disk).await;
    assert_eq!(broker.records(small).await, of_small + 1, "packs with holes are read after a start");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_trap() {
    for mkfs in [&["mkfs.ext4", "-q", "-m", "0"][..], &["mkfs.xfs", "-q"]] {
        match SmallDisk::mount(mkfs) {
            Ok(disk) => fills_and_goes_on(&disk).await,
            Err(reason) => say(&format!("\nLEFT OUT: the log on a small disk of {}: {reason}\n", mkfs[0])),
        }
    }
}
