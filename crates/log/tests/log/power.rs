//! The log over ring files on a simulated disk that loses its power in the middle of writes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex};

use floe_env::{Disk, DiskFile, DiskRoom, Env, SimulatedDisk, lock};
use floe_log::{Below, Log, Offset, PartitionId};
use floe_meta::{Journal, RingJournal, RingOptions};
use floe_store::MemoryStore;

use crate::world::{config, open, request, topic, values, writer};

/// Files so small that they are used again.
const OPTIONS: RingOptions = RingOptions {
    first_bytes: 128 << 10,
    file_bytes: 128 << 10,
    bytes_max: Some(1 << 20),
    image_bytes: 4 << 10,
    history_bytes: 16 << 10,
};
/// Records of one run.
const RECORDS: usize = 120;
/// One of so many calls of the disk is the last before a power cut.
const CUTS: u64 = 7;

/// A disk of which copies are taken at its calls, with what was acknowledged then.
#[derive(Clone, Debug)]
struct Watched {
    disk: SimulatedDisk,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    acknowledged: BTreeSet<String>,
    /// What a client has begun to delete.
    deleted: BTreeSet<String>,
    cuts: Vec<Cut>,
}

#[derive(Debug)]
struct Cut {
    disk: SimulatedDisk,
    acknowledged: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Watched {
    fn look(&self) {
        let mut seen = lock(&self.seen);
        seen.calls += 1;
        if seen.calls.is_multiple_of(CUTS) {
            let cut = Cut {
                disk: self.disk.copied(seen.calls),
                acknowledged: seen.acknowledged.clone(),
                deleted: seen.deleted.clone(),
            };
            seen.cuts.push(cut);
        }
    }

    fn watched(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { disk: self.clone(), file })
    }
}

impl Disk for Watched {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.look();
        Ok(self.watched(self.disk.create(name, bytes)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watched(self.disk.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.look();
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.look();
        self.disk.remove(name)
    }
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }
    fn create_dir(&self, directory: &str) -> io::Result<()> {
        self.look();
        self.disk.create_dir(directory)
    }
    fn sync_dir(&self, directory: &str) {
        self.look();
        self.disk.sync_dir(directory);
    }
    fn room(&self) -> io::Result<DiskRoom> {
        self.disk.room()
    }
    fn end_process(&self, what: &str, why: &dyn Display) -> ! {
        self.disk.end_process(what, why)
    }
}

#[derive(Debug)]
struct WatchedFile {
    disk: Watched,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for WatchedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.look();
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(into, offset)
    }
    fn sync(&self) {
        self.disk.look();
        self.file.sync();
    }
}

async fn over(env: &Env, disk: Arc<dyn Disk>) -> Log {
    let journal = RingJournal::open_on(env, disk, OPTIONS).expect("the journal opens");
    let journal: Arc<dyn Journal> = Arc::new(journal);
    open(env, &journal, Arc::new(MemoryStore::new()), config()).await
}

fn text(number: usize) -> String {
    // Some are larger than a block of the disk.
    format!("{number:04}").repeat(1 + number * 7 % 13 * 60)
}

/// What is there after a power cut is everything that was acknowledged and not deleted, once, and nothing that nobody
/// sent.
async fn holds(env: &Env, cut: Cut, partitions: &[PartitionId], sent: &BTreeSet<String>) {
    cut.disk.cut_power();
    let log = over(&env.scope(), Arc::new(cut.disk)).await;
    let mut found = BTreeSet::new();
    for partition in partitions {
        if Log::bounds(&log.meta().snapshot(), *partition).is_none() {
            continue;
        }
        for (_, text) in values(&log, *partition).await {
            assert!(sent.contains(&text), "nobody sent it");
            assert!(found.insert(text), "it is there twice");
        }
    }
    let kept: BTreeSet<_> = cut.acknowledged.difference(&cut.deleted).cloned().collect();
    let lost: Vec<&String> = kept.difference(&found).collect();
    assert!(lost.is_empty(), "{} acknowledged records are lost", lost.len());
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_when_the_power_goes_in_the_middle_of_a_write() {
    let env = Env::simulated(1);
    let watched = Watched { disk: SimulatedDisk::new(1), seen: Arc::default() };
    let log = over(&env, Arc::new(watched.clone())).await;
    // The first request is an object, and the store of this test does not come along.
    let first = topic(&log, "first", 1).await.id;
    log.append(request(PartitionId::new(first, 0), &["first"])).await.remove(0).expect("it is appended");
    log.delete_topic(&writer(), first).await.expect("it is deleted");
    let id = topic(&log, "t", 2).await.id;
    let partitions = [PartitionId::new(id, 0), PartitionId::new(id, 1)];
    lock(&watched.seen).cuts.clear();
    let texts: Vec<String> = (0..RECORDS).map(text).collect();
    for some in (0..RECORDS).collect::<Vec<_>>().chunks(3) {
        let sent: Vec<_> =
            some.iter().map(|at| (at, log.append(request(partitions[at % 2], &[&texts[*at]])))).collect();
        for (at, ticket) in sent {
            ticket.await.remove(0).expect("it is appended");
            lock(&watched.seen).acknowledged.insert(texts[*at].clone());
        }
        if some[0] == RECORDS / 2 {
            // So that files are used again.
            lock(&watched.seen).deleted.extend(texts[..some[0]].iter().cloned());
            let offset = Some(Offset((some[0] / 2) as i64));
            let below = partitions.map(|partition| Below { partition, offset });
            for deleted in log.delete_records(&writer(), &below).await {
                deleted.expect("they are deleted");
            }
            assert!(log.clean().await.expect("it cleans").frames > 0);
        }
    }
    let cuts = std::mem::take(&mut lock(&watched.seen).cuts);
    assert!(cuts.len() > 10, "only {} power cuts", cuts.len());
    let sent = texts.into_iter().collect();
    for cut in cuts {
        holds(&env, cut, &partitions, &sent).await;
    }
}
