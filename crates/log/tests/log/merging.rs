//! Merging, from small objects and from bytes in the journal to segments, and what stops it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, watch};
use floe_log::extent::{Extent, Place, WrittenBy};
use floe_log::object::{Level, Object, ObjectKind, Trash};
use floe_log::{
    Below, Capacity, Config, Log, MergeRound, MergeSizes, Offset, PartitionId, Times, extent::Outcome, marker,
};
use floe_meta::{Envelope, Journal, MemoryJournal, Tx};
use floe_store::{Listed, MemoryStore, PutIfAbsent, Store, StoreError};

use crate::world::{World, append, config, open, topic, values, writer};

const NEVER: Duration = Duration::from_secs(1_000_000_000);

/// Eight small objects become one, and four segments are sorted together. It merges only when told to.
fn small() -> Config {
    let merge = MergeSizes {
        segment_bytes: 16_000,
        small_bytes: 600,
        small_objects: 8,
        long_bytes: 3_000,
        pool_bytes: 32_000,
    };
    let times = Times { merge_pause: NEVER, cleaner_pause: NEVER, retention_pause: NEVER, ..config().times };
    // It reads from the store.
    let cache = Capacity { tail: 1, cold: 1 << 20, reads: 1 << 20 };
    Config { merge, times, cache, ..config() }
}

/// Merges until nothing is due. Returns the segments that were written.
async fn merge_all(log: &Log) -> u64 {
    let mut segments = 0;
    loop {
        let MergeRound { segments: more, more: again, .. } = log.merge().await.expect("it merges");
        segments += more;
        if !again {
            return segments;
        }
    }
}

async fn partitions(log: &Log, count: u32) -> Vec<PartitionId> {
    topic(log, "t", count).await.partition_ids().collect()
}

/// Appends values of this length to partitions in turn, each in an object of its own.
async fn fill(log: &Log, partitions: &[PartitionId], numbers: Range<usize>, bytes: usize) {
    for number in numbers {
        let value = format!("{number} {}", "v".repeat(bytes));
        let partition = partitions[number % partitions.len()];
        append(log, partition, &[&value, "second"]).await.expect("appended");
    }
}

async fn all_values(log: &Log, partitions: &[PartitionId]) -> Vec<Vec<(i64, String)>> {
    let mut all = Vec::new();
    for partition in partitions {
        all.push(values(log, *partition).await);
    }
    all
}

fn extents(log: &Log, partition: PartitionId) -> Vec<Extent> {
    let snapshot = log.meta().snapshot();
    let extents = snapshot.range::<Extent>(..).map(|pair| pair.expect("it can be read"));
    extents.filter(|(key, _)| key.partition == partition).map(|(_, extent)| extent).collect()
}

fn objects(log: &Log, kind: ObjectKind) -> Vec<Object> {
    let snapshot = log.meta().snapshot();
    let all = snapshot.range::<Object>(kind.first()..=kind.last());
    all.map(|pair| pair.expect("it can be read").1).collect()
}

#[tokio::test(start_paused = true)]
async fn small_objects_become_segments_that_read_the_same_and_the_others_go() {
    let world = World::with(1, small()).await;
    let log = &world.log;
    let parts = partitions(log, 3).await;
    fill(log, &parts, 0..48, 20).await;
    let before = all_values(log, &parts).await;
    let pinned = log.pin();
    assert_eq!(merge_all(log).await, 1, "all of them fit");
    assert_eq!(all_values(log, &parts).await, before);
    let segments = objects(log, ObjectKind::Segment);
    assert!(segments.iter().all(|object| object.level == Level::Gathered));
    assert_eq!(objects(log, ObjectKind::Wal).len(), 0);
    assert_eq!(extents(log, parts[0]).len(), 1);
    for extent in extents(log, parts[0]) {
        let data = extent.data().expect("records");
        assert!(matches!(data.written_by, WrittenBy::One(_)), "one client wrote all of it");
        assert!(data.lsn > floe_meta::Lsn(0));
    }
    assert_eq!(floe_log::miscounted_writers(&log.meta().snapshot()), Ok(Vec::new()));
    // The old objects stay for the reader, and go with it.
    let stored = |kind: &str| world.memory.keys().iter().filter(|key| key.starts_with(kind)).count();
    assert_eq!(stored("wal/"), 48);
    let read = log.read(&pinned, parts[0], Offset(0), 1_000).await.expect("the old snapshot is whole");
    assert_eq!(read.batches[0].base_offset, Offset(0));
    drop(pinned);
    for _ in 0..3 {
        log.clean().await.expect("cleaned");
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    assert_eq!((stored("wal/"), stored("segment/")), (0, segments.len()));
    assert_eq!(all_values(&world.reopened().await, &parts).await, before);
}

/// Long extents are sorted at once, and then each partition has segments of its own.
#[tokio::test(start_paused = true)]
async fn a_pool_is_sorted_by_partitions_and_stays() {
    let world = World::with(2, small()).await;
    let log = &world.log;
    let parts = partitions(log, 4).await;
    fill(log, &parts, 0..12, 3_000).await;
    let before = all_values(log, &parts).await;
    let segments = merge_all(log).await;
    assert!((2..6).contains(&segments), "{segments} segments");
    assert!(objects(log, ObjectKind::Segment).iter().all(|object| object.level == Level::Sorted));
    for partition in &parts {
        // One waits for others to be sorted with.
        assert!(extents(log, *partition).len() <= 3, "{:?}", extents(log, *partition));
    }
    assert_eq!(all_values(log, &parts).await, before);
    assert_eq!(log.merge().await, Ok(MergeRound::default()), "nothing is due, and nothing is committed");
    let lsn = log.meta().snapshot().lsn();
    log.merge().await.expect("nothing is due");
    assert_eq!(log.meta().snapshot().lsn(), lsn);
}

#[tokio::test(start_paused = true)]
async fn bytes_in_the_journal_and_markers_become_segments() {
    let (env, journal) = (Env::simulated(3), MemoryJournal::carrying_at_most(100_000));
    let memory = MemoryStore::new();
    let shared: Arc<dyn Journal> = Arc::new(journal.clone());
    let log = open(&env, &shared, Arc::new(memory.clone()), Config { sole: true, ..small() }).await;
    let parts = partitions(&log, 2).await;
    fill(&log, &parts, 0..10, 20).await;
    let marked = parts.clone();
    let mark = move |tx: &mut Tx<'_>| marker::mark(tx, &marked, (9, 1), Outcome::Abort);
    log.meta().commit(Envelope::broker("markers"), mark).await.expect("marked");
    fill(&log, &parts, 10..31, 20).await;
    assert!(extents(&log, parts[0]).iter().filter_map(Extent::data).any(|data| data.place == Place::Frame));
    let batches = |log: &Log, partition| {
        let log = log.clone();
        async move {
            let snapshot = log.pin();
            let read = log.read(&snapshot, partition, Offset(0), 1 << 20).await.expect("read");
            read.batches.iter().map(|batch| batch.stamped()).collect::<Vec<Bytes>>()
        }
    };
    let before = (batches(&log, parts[0]).await, batches(&log, parts[1]).await);
    assert_eq!(merge_all(&log).await, 1);
    let markers = |log: &Log| extents(log, parts[0]).iter().filter(|extent| extent.data().is_none()).count();
    assert_eq!(markers(&log), 0, "it is a control batch now");
    for partition in &parts {
        for extent in extents(&log, *partition).iter().rev().skip(4) {
            assert_ne!(extent.data().expect("records").place, Place::Frame);
        }
    }
    let kept = journal.attachments().len();
    log.clean().await.expect("cleaned");
    assert!(journal.attachments().len() < kept / 2, "the journal lets go of them");
    let again = open(&env.scope(), &shared, Arc::new(memory), small()).await;
    assert_eq!((batches(&again, parts[0]).await, batches(&again, parts[1]).await), before);
}

/// What is damaged stays where it is, has a name, and holds up nothing else.
#[tokio::test(start_paused = true)]
async fn damage_stops_its_extent_alone_and_is_tried_again() {
    let world = World::with(4, small()).await;
    let log = &world.log;
    let parts = partitions(log, 2).await;
    fill(log, &parts, 0..16, 20).await;
    let before = all_values(log, &parts).await;
    let key =
        world.memory.keys().into_iter().filter(|key| key.starts_with("wal/")).nth(4).expect("it is there");
    let whole = world.memory.get(&key, None).await.expect("it is there");
    let mut rotten = whole.to_vec();
    rotten[100] ^= 1;
    world.memory.plant(&key, rotten.into());
    let lost =
        world.memory.keys().into_iter().filter(|key| key.starts_with("wal/")).nth(7).expect("it is there");
    let lost_bytes = world.memory.get(&lost, None).await.expect("it is there");
    world.memory.remove(&lost);
    merge_all(log).await;
    assert_eq!(objects(log, ObjectKind::Wal).len(), 2, "all but the damaged ones are merged");
    let trouble = log.damage(parts[0].topic);
    let places: Vec<_> = trouble.iter().map(|one| (one.partition, one.from, one.to)).collect();
    assert_eq!(places, [(parts[0], Offset(4), Offset(6)), (parts[1], Offset(6), Offset(8))], "{trouble:?}");
    assert!(trouble[0].what.contains("checksum"), "{trouble:?}");
    assert!(trouble[0].place.contains("object"), "{trouble:?}");
    // Nobody tries it again and again.
    fill(log, &parts, 16..40, 20).await;
    merge_all(log).await;
    assert_eq!(log.damage(parts[0].topic), trouble);
    world.memory.plant(&key, whole);
    world.memory.plant(&lost, lost_bytes);
    tokio::time::sleep(floe_log::limits::DAMAGE_PAUSE).await;
    fill(log, &parts, 40..56, 20).await;
    merge_all(log).await;
    assert_eq!(log.damage(parts[0].topic), []);
    assert_eq!(objects(log, ObjectKind::Wal).len(), 0);
    for (found, before) in all_values(log, &parts).await.iter().zip(&before) {
        assert_eq!(found[..before.len()], before[..]);
    }
}

/// No store compares the bytes of a segment with what was put. So the reader does, and hands out nothing that changed.
#[tokio::test(start_paused = true)]
async fn a_changed_value_of_a_segment_is_never_handed_out() {
    let (env, memory) = (Env::simulated(9), MemoryStore::new());
    let shared: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let log = open(&env, &shared, Arc::new(memory.clone()), Config { sole: true, ..small() }).await;
    let parts = partitions(&log, 1).await;
    fill(&log, &parts, 0..16, 20).await;
    merge_all(&log).await;
    log.close().await;
    let key = memory.keys().into_iter().find(|key| key.starts_with("segment/")).expect("it is there");
    let mut rotten = memory.get(&key, None).await.expect("it is there").to_vec();
    // In the value of the first record, behind the head of the object and the header of the batch.
    rotten[16 + 61 + 12] ^= 1;
    memory.plant(&key, rotten.into());
    let again = open(&env.scope(), &shared, Arc::new(memory), Config { sole: true, ..small() }).await;
    let read = again.read(&again.meta().snapshot(), parts[0], Offset(0), 1).await;
    assert!(
        matches!(&read, Err(floe_log::walk::ReadError::Corrupt(what)) if what.contains("checksum")),
        "{read:?}"
    );
}

/// A store whose PUTs of segments wait until somebody opens the gate.
struct Gate {
    memory: MemoryStore,
    open: watch::Receiver<bool>,
    waiting: watch::Sender<bool>,
}

#[async_trait]
impl Store for Gate {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        if key.starts_with("segment/") {
            self.waiting.send_replace(true);
            self.open.clone().wait_for(|open| *open).await.expect("the test holds the gate");
        }
        self.memory.put(key, payload).await
    }
    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        self.memory.put_if_absent(key, payload).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.memory.get(key, range).await
    }
    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.memory.size(key).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.memory.delete(key).await
    }
    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        self.memory.list(prefix, after, count).await
    }
    fn url(&self, key: &str) -> String {
        self.memory.url(key)
    }
    fn remote(&self) -> bool {
        false
    }
}

/// What a client deletes while a merge is under way stays deleted. The other partitions are merged.
#[tokio::test(start_paused = true)]
async fn a_merge_drops_what_went_meanwhile() {
    let env = Env::simulated(5);
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let (memory, opened, waiting) =
        (MemoryStore::new(), watch::Sender::new(false), watch::Sender::new(false));
    let mut reached = waiting.subscribe();
    let gate = Gate { memory: memory.clone(), open: opened.subscribe(), waiting };
    let log = open(&env, &journal, Arc::new(gate), small()).await;
    let parts = partitions(&log, 2).await;
    fill(&log, &parts, 0..8, 20).await;
    let merging = log.clone();
    let merging = env.spawn("merge", async move { merging.merge().await });
    reached.wait_for(|reached| *reached).await.expect("the store holds it");
    let below = Below { partition: parts[0], offset: Some(Offset(5)) };
    log.delete_records(&writer(), &[below]).await.remove(0).expect("deleted");
    opened.send_replace(true);
    let done = merging.await.expect("it ends").expect("it merges");
    assert_eq!((done.segments, done.replaced), (1, 4), "those of the other partition");
    assert_eq!(extents(&log, parts[1]).len(), 1);
    assert_eq!(extents(&log, parts[0]).len(), 2, "as deletion left them");
    let bounds = Log::bounds(&log.meta().snapshot(), parts[0]).expect("it is there");
    assert_eq!(bounds.log_start, Offset(5));
    assert_eq!(values(&log, parts[1]).await.len(), 8);
}

/// A segment whose commit is refused is nobody's, and goes.
#[tokio::test(start_paused = true)]
async fn a_segment_of_which_nothing_is_left_is_trash() {
    let env = Env::simulated(6);
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let (memory, opened, waiting) =
        (MemoryStore::new(), watch::Sender::new(false), watch::Sender::new(false));
    let mut reached = waiting.subscribe();
    let gate = Gate { memory: memory.clone(), open: opened.subscribe(), waiting };
    let log = open(&env, &journal, Arc::new(gate), small()).await;
    let parts = partitions(&log, 1).await;
    fill(&log, &parts, 0..8, 20).await;
    let merging = log.clone();
    let merging = env.spawn("merge", async move { merging.merge().await });
    reached.wait_for(|reached| *reached).await.expect("the store holds it");
    let below = Below { partition: parts[0], offset: None };
    log.delete_records(&writer(), &[below]).await.remove(0).expect("deleted");
    opened.send_replace(true);
    merging.await.expect("it ends").expect("nothing is wrong");
    assert_eq!(objects(&log, ObjectKind::Segment).len(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let trash = log.meta().snapshot().range::<Trash>(ObjectKind::Segment.first()..).count();
    assert_eq!(trash, 1, "its id was given up");
    for _ in 0..3 {
        log.clean().await.expect("cleaned");
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    assert!(!memory.keys().iter().any(|key| key.starts_with("segment/")));
}

/// One broker merges at a time; another goes on when it has ended, or has been silent for the time to live.
#[tokio::test(start_paused = true)]
async fn one_broker_merges_at_a_time() {
    for dies in [false, true] {
        let env = Env::simulated(7);
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
        let memory = MemoryStore::new();
        let scope = env.scope();
        let one = open(&scope, &journal, Arc::new(memory.clone()), small()).await;
        let two = open(&env.scope(), &journal, Arc::new(memory.clone()), small()).await;
        let parts = partitions(&one, 2).await;
        fill(&one, &parts, 0..8, 20).await;
        assert_eq!(one.merge().await.expect("it merges").segments, 1);
        fill(&one, &parts, 8..16, 20).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let held = two.merge().await.expect_err("the first one holds the lease");
        assert!(held.contains("is held by"), "{held}");
        if dies {
            scope.abort_all();
            tokio::time::sleep(floe_log::limits::CLEANER_LEASE).await;
        } else {
            one.close().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(two.merge().await.expect("it merges").segments, 1);
        assert_eq!(values(&two, parts[0]).await.len(), 16);
    }
}

/// A thousand objects that came while nobody merged are merged by a broker that does nothing else for it.
#[tokio::test(start_paused = true)]
async fn a_broker_catches_up_by_itself() {
    let world = World::with(8, small()).await;
    let parts = partitions(&world.log, 4).await;
    fill(&world.log, &parts, 0..1_000, 20).await;
    let before = all_values(&world.log, &parts).await;
    world.log.clone().close().await;
    let times = Times { merge_pause: floe_log::limits::MERGE_PAUSE, ..small().times };
    let config = Config { times, sole: true, ..small() };
    let log = open(&world.env.scope(), &world.journal, Arc::new(world.memory.clone()), config).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(objects(&log, ObjectKind::Wal).len() < 8);
    let left: usize = parts.iter().map(|partition| extents(&log, *partition).len()).sum();
    assert!(left < 80, "{left} extents");
    assert_eq!(all_values(&log, &parts).await, before);
}

/// What readers of the tail find in memory stays there when it is merged.
#[tokio::test(start_paused = true)]
async fn the_tail_moves_with_what_is_merged() {
    let cache = Capacity { tail: 1 << 20, cold: 1, reads: 1 << 20 };
    let world = World::with(9, Config { cache, ..small() }).await;
    let parts = partitions(&world.log, 2).await;
    fill(&world.log, &parts, 0..8, 20).await;
    let before = all_values(&world.log, &parts).await;
    assert_eq!(merge_all(&world.log).await, 1);
    for key in world.memory.keys().iter().filter(|key| !key.starts_with("floe/")) {
        world.memory.remove(key);
    }
    assert_eq!(all_values(&world.log, &parts).await, before);
}

/// A deleted topic is merged, and comes back with what it had.
#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_merged_and_comes_back() {
    let trash = floe_log::deleted::Trash { ms: 1 << 40, ..Default::default() };
    let world = World::with(10, Config { trash, ..small() }).await;
    let log = &world.log;
    let parts = partitions(log, 2).await;
    fill(log, &parts, 0..8, 20).await;
    let before = all_values(log, &parts).await;
    log.delete_topic(&writer(), parts[0].topic).await.expect("deleted");
    assert_eq!(merge_all(log).await, 1);
    let which = floe_log::deleted::Which::Name("t".to_owned());
    log.undelete_topic(&writer(), which, None).await.expect("it comes back");
    assert_eq!(all_values(log, &parts).await, before);
    assert_eq!((objects(log, ObjectKind::Wal).len(), objects(log, ObjectKind::Segment).len()), (0, 1));
}
