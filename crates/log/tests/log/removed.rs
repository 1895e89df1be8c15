//! Records that retention and DeleteRecords took, and that come back, with their objects; and a disk that gets full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floe_env::{DiskRoom, Env};
use floe_log::deleted::{self, Deleted, Which};
use floe_log::removed::ranges;
use floe_log::topic::{NewTopic, TopicError};
use floe_log::{Below, Config, Log, Offset, PartitionId, Times};
use floe_meta::{Journal, MemoryJournal};
use floe_store::faulty::{Fault, FaultyStore};
use floe_store::{MemoryStore, Store};

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{World, append, config, open, values, writer};

/// How long removed records can come back here.
const KEPT: Duration = Duration::from_secs(8_000);

fn told() -> Config {
    let never = Duration::from_secs(1_000_000_000);
    Config { times: Times { cleaner_pause: never, retention_pause: never, ..config().times }, ..config() }
}

async fn keeping(log: &Log, name: &str, more: &[(&str, &str)]) -> PartitionId {
    let ms = KEPT.as_millis().to_string();
    let mut configs = vec![("floe.trash.ms", ms.as_str())];
    configs.extend(more);
    let configs = configs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let new = NewTopic { name: name.to_owned(), partitions: 1, configs };
    PartitionId::new(log.create_topic(&writer(), new, false).await.expect("the topic is new").id, 0)
}

async fn delete_below(log: &Log, partition: PartitionId, offset: i64) {
    let below = Below { partition, offset: Some(Offset(offset)) };
    let done = log.delete_records(&writer(), &[below]).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

fn kept(log: &Log) -> Vec<Deleted> {
    deleted::all(&log.meta().snapshot()).expect("readable")
}

fn id_of(part: &Deleted) -> Which {
    Which::Id(part.topic.name.clone(), part.topic.uuid())
}

fn numbered(from: i64, texts: &[&str]) -> Vec<(i64, String)> {
    (from..).zip(texts).map(|(offset, text)| (offset, (*text).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_comes_back_after_rounds_of_the_cleaner_and_a_restart() {
    let world = World::new(1).await;
    let partition = keeping(&world.log, "t", &[("retention.bytes", "0")]).await;
    for value in ["a", "b", "c"] {
        append(&world.log, partition, &[value]).await.expect("appended");
    }
    let done = world.log.retain().await.expect("a round");
    assert_eq!(done.records, 3);
    append(&world.log, partition, &["d"]).await.expect("appended");
    long_after().await;
    nothing_is_orphaned(&world.log, &world.memory).expect("nothing is left over");
    let second = world.reopened().await;
    let back = second.undelete_topic(&writer(), Which::Name("t".into()), Some("u".into())).await;
    let back = back.expect("it is there");
    assert_eq!(values(&second, PartitionId::new(back.id, 0)).await, numbered(0, &["a", "b", "c"]));
    assert_eq!(values(&second, partition).await, numbered(3, &["d"]));
    // Retention leaves it alone, and the topic goes on losing records.
    second.retain().await.expect_err("the first broker has the lease");
    long_after().await;
    second.retain().await.expect("a round");
    assert_eq!(values(&second, PartitionId::new(back.id, 0)).await.len(), 3);
    assert_eq!(values(&second, partition).await, []);
    second.delete_topic(&writer(), back.id).await.expect("deleted");
    second.delete_topic(&writer(), partition.topic).await.expect("deleted");
    assert_eq!(kept(&second).len(), 3);
    tokio::time::sleep(KEPT * 2).await;
    long_after().await;
    assert_eq!(kept(&second), []);
    nothing_is_orphaned(&second, &world.memory).expect("nothing is left over");
    assert!(world.memory.keys().iter().all(|key| !key.starts_with("wal/")), "{:?}", world.memory.keys());
}

#[tokio::test(start_paused = true)]
async fn parts_collect_what_goes_in_a_span_and_go_by_their_last() {
    let world = World::with(2, told()).await;
    let log = &world.log;
    let partition = keeping(log, "t", &[]).await;
    for _ in 0..17 {
        let last = append(log, partition, &["x"]).await.expect("appended").base_offset.0;
        delete_below(log, partition, last + 1).await;
        log.clean().await.expect("a round");
        // Two removals in each span.
        tokio::time::sleep(KEPT / 16).await;
    }
    let snapshot = log.meta().snapshot();
    let found: Vec<_> =
        kept(log).iter().map(|part| ranges(&snapshot, part.topic.id, 9).unwrap()[0]).collect();
    let bounds: Vec<_> = found.iter().map(|range| (range.from.0, range.to.0)).collect();
    let expected: Vec<_> = (0..8).map(|part| (2 * part, 2 * part + 2)).chain([(16, 17)]).collect();
    assert_eq!(bounds, expected);
    // The first was last added to at 1/16 of the time.
    log.clean().await.expect("a round");
    assert_eq!(kept(log).len(), 8, "its time is over");
    let several = log.undelete_topic(&writer(), Which::Name("t".into()), Some("u".into())).await;
    assert!(matches!(several, Err(TopicError::Several(_))), "{several:?}");
    let oldest = kept(log).remove(0);
    let back = log.undelete_topic(&writer(), id_of(&oldest), Some("u".into())).await.expect("it is there");
    assert_eq!(values(log, PartitionId::new(back.id, 0)).await, numbered(2, &["x", "x"]));
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_an_old_snapshot_finds_records_that_moved() {
    let world = World::with(3, told()).await;
    let log = &world.log;
    let partition = keeping(log, "t", &[]).await;
    append(log, partition, &["a"]).await.expect("appended");
    let pinned = log.pin();
    delete_below(log, partition, 1).await;
    let part = kept(log).remove(0);
    for _ in 0..3 {
        log.clean().await.expect("a round");
        tokio::time::sleep(config().times.trash_grace).await;
    }
    let read = log.read(&pinned, partition, Offset(0), 100).await.expect("it is there");
    assert_eq!(read.batches.len(), 1);
    log.purge_topics(&writer(), id_of(&part)).await.expect("purged");
    for _ in 0..3 {
        log.clean().await.expect("a round");
        tokio::time::sleep(config().times.trash_grace).await;
    }
    let cold = world.reopened().await;
    assert_eq!(cold.read(&pinned, partition, Offset(0), 100).await.expect("it is pinned").batches.len(), 1);
}

/// A log over a store whose disk has this room, and a reserve of 1,000 bytes.
async fn on_disk(free: &Arc<AtomicU64>) -> (Env, Log, MemoryStore) {
    let (env, memory) = (Env::simulated(4), MemoryStore::new());
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let free = Arc::clone(free);
    let room = move || DiskRoom { free: free.load(Ordering::SeqCst), reserve: 1_000 };
    let store: Arc<dyn Store> =
        Arc::new(FaultyStore::new(memory.clone(), |_, _| Fault::None).with_room(room));
    let log = open(&env, &journal, store, told()).await;
    (env, log, memory)
}

#[tokio::test(start_paused = true)]
async fn the_trash_gives_way_to_a_full_disk_step_by_step() {
    let free = Arc::new(AtomicU64::new(100_000));
    let (_env, log, memory) = on_disk(&free).await;
    let large = "x".repeat(1_000);
    let partition = keeping(&log, "t", &[]).await;
    for number in 0..6 {
        append(&log, partition, &[large.as_str()]).await.expect("appended");
        delete_below(&log, partition, number + 1).await;
        tokio::time::sleep(KEPT / 7).await;
    }
    assert_eq!(kept(&log).len(), 6);
    let look = async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        log.clean().await.expect("a round");
        kept(&log).len()
    };
    // Above the threshold, and for a moment below it.
    for room in [3_000, 2_999, 3_000, 2_999, 3_001] {
        free.store(room, Ordering::SeqCst);
        assert_eq!(look().await, 6, "{room}");
    }
    // 1,900 bytes beside the reserve: 1,100 are wanted, which two parts have. That is enough until their objects are
    // gone.
    free.store(2_900, Ordering::SeqCst);
    assert_eq!(look().await, 6, "it may be a blip");
    assert_eq!(look().await, 4);
    assert_eq!(look().await, 4, "what is under way counts");
    let objects = || memory.keys().iter().filter(|key| key.starts_with("wal/")).count();
    assert_eq!(objects(), 6);
    free.store(3_000, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(look().await, 4);
    }
    assert_eq!(objects(), 4, "they went after their grace");
    // Objects are refused: all that is left is not enough.
    free.store(100, Ordering::SeqCst);
    assert_eq!(look().await, 4);
    assert_eq!(look().await, 1, "3,000 bytes are wanted");
    free.store(0, Ordering::SeqCst);
    for _ in 0..6 {
        look().await;
    }
    assert_eq!(kept(&log).len(), 0, "when the first are gone and it is not enough, the last goes");
    append(&log, partition, &["y"]).await.expect("this store takes it");
    assert_eq!(values(&log, partition).await, numbered(6, &["y"]), "the topic itself stays");
}
