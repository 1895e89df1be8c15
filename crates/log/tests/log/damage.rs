//! The list of what cannot be read: who meets damage, what is told of it, and when it is forgotten.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_log::extent::Extent;
use floe_log::limits::DAMAGE_ENTRIES_MAX;
use floe_log::object::object_key;
use floe_log::walk::{At, ReadError};
use floe_log::{Capacity, Compaction, Config, Damaged, FoundBy, Log, ObjectId, Offset, PartitionId, Times};
use floe_meta::{Journal, MemoryJournal};
use floe_store::{MemoryStore, Store};

use crate::world::{append, config, open, topic, values, writer};

/// The settings of a process that is alone, reads from the store, and does nothing by itself.
fn alone() -> Config {
    let never = Duration::from_secs(1_000_000_000);
    Config {
        sole: true,
        linger: Some(Duration::ZERO),
        cache: Capacity { tail: 1, cold: 1, reads: 1 << 20 },
        times: Times { merge_pause: never, cleaner_pause: never, retention_pause: never, ..config().times },
        compaction: Compaction { pause: never, ..Compaction::default() },
        ..config()
    }
}

/// A broker that died after some records, each in an object of its own.
struct Dead {
    env: Env,
    journal: Arc<dyn Journal>,
    memory: MemoryStore,
    partition: PartitionId,
    objects: Vec<ObjectId>,
}

impl Dead {
    async fn with(records: usize) -> Dead {
        let env = Env::simulated(5);
        let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
        let broker = env.scope();
        let log = open(&broker, &journal, Arc::new(memory.clone()), alone()).await;
        let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
        for number in 0..records {
            append(&log, partition, &[&number.to_string(), "second"]).await.expect("appended");
        }
        let snapshot = log.meta().snapshot();
        let extents = snapshot.range::<Extent>(..).map(|pair| pair.expect("readable").1);
        let objects: Vec<ObjectId> = extents.filter_map(|extent| extent.object()).collect();
        assert_eq!(objects.len(), records);
        broker.abort_all();
        Dead { env, journal, memory, partition, objects }
    }

    async fn start(&self) -> Log {
        open(&self.env.scope(), &self.journal, Arc::new(self.memory.clone()), alone()).await
    }

    /// Flips a bit in the value of a record.
    async fn flip(&self, object: ObjectId) {
        let key = object_key(object);
        let mut bytes = self.memory.get(&key, None).await.expect("it is there").to_vec();
        bytes[16 + 61 + 8] ^= 1;
        self.memory.plant(&key, bytes.into());
    }

    async fn bytes(&self, object: ObjectId) -> bytes::Bytes {
        self.memory.get(&object_key(object), None).await.expect("it is there")
    }
}

fn told(log: &Log, partition: PartitionId) -> Vec<(i64, i64, Vec<FoundBy>)> {
    let told = |one: Damaged| {
        assert!(
            one.partition == partition && !one.what.is_empty() && one.place.contains("object"),
            "{one:?}"
        );
        (one.from.0, one.to.0, one.found_by)
    };
    log.damage(partition.topic).into_iter().map(told).collect()
}

async fn read(log: &Log, partition: PartitionId, from: i64) -> Result<i64, ReadError> {
    let read = log.read(&log.pin(), partition, Offset(from), 1 << 20).await?;
    Ok(read.batches.last().map_or(from, |last| last.next_offset().0))
}

#[tokio::test(start_paused = true)]
async fn what_a_start_misses_is_told_until_it_was_read_whole_again() {
    let dead = Dead::with(6).await;
    let (lost, cut) = (dead.bytes(dead.objects[1]).await, dead.bytes(dead.objects[4]).await);
    dead.memory.remove(&object_key(dead.objects[1]));
    dead.memory.plant(&object_key(dead.objects[4]), cut.slice(..40));
    let log = dead.start().await;
    let start = || vec![FoundBy::Start];
    assert_eq!(told(&log, dead.partition), [(2, 4, start()), (8, 10, start())]);
    let since = log.damage(dead.partition.topic)[0].since;

    // A client meets one of them, too. What lies in front is served.
    let client = log.on_behalf_of(FoundBy::Client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(read(&client, dead.partition, 0).await, Ok(2));
    assert!(matches!(read(&client, dead.partition, 2).await, Err(ReadError::Corrupt(_))));
    assert_eq!(told(&log, dead.partition)[0], (2, 4, vec![FoundBy::Start, FoundBy::Client]));
    assert_eq!(log.damage(dead.partition.topic)[0].since, since, "since the first time");

    // Put back, each leaves when it was read.
    dead.memory.plant(&object_key(dead.objects[1]), lost);
    assert_eq!(read(&client, dead.partition, 0).await, Ok(8));
    assert_eq!(told(&log, dead.partition), [(8, 10, start())]);
    dead.memory.plant(&object_key(dead.objects[4]), cut);
    assert_eq!(values(&log, dead.partition).await.len(), 12);
    assert_eq!(told(&log, dead.partition), []);
}

#[tokio::test(start_paused = true)]
async fn each_reader_names_itself_and_a_deleted_topic_is_forgotten() {
    let dead = Dead::with(3).await;
    let log = dead.start().await;
    let whole = dead.bytes(dead.objects[1]).await;
    dead.memory.remove(&object_key(dead.objects[1]));
    for by in [FoundBy::View, FoundBy::Statement, FoundBy::Client, FoundBy::View] {
        assert!(read(&log.on_behalf_of(by), dead.partition, 2).await.is_err());
    }
    let all = vec![FoundBy::Client, FoundBy::Statement, FoundBy::View];
    assert_eq!(told(&log, dead.partition), [(2, 4, all)]);
    // What lies behind it proves nothing.
    dead.memory.plant(&object_key(dead.objects[1]), whole);
    assert_eq!(read(&log, dead.partition, 4).await, Ok(6));
    assert_eq!(told(&log, dead.partition).len(), 1);
    log.delete_topic(&writer(), dead.partition.topic).await.expect("deleted");
    log.clean().await.expect("cleaned");
    assert_eq!(told(&log, dead.partition), []);
}

/// The store hands out bytes that nobody compared. A lookup decodes them and sees it; a fetch of the same bytes does
/// not make them whole.
#[tokio::test(start_paused = true)]
async fn bytes_that_nobody_compared_do_not_end_damage() {
    let dead = Dead::with(3).await;
    let log = dead.start().await;
    dead.flip(dead.objects[0]).await;
    let client = log.on_behalf_of(FoundBy::Client);
    let at = client.offset_at(&log.pin(), dead.partition, At::MaxTimestamp).await;
    assert!(matches!(at, Err(ReadError::Corrupt(_))), "{at:?}");
    assert_eq!(told(&log, dead.partition), [(0, 2, vec![FoundBy::Client])]);
    assert_eq!(read(&client, dead.partition, 0).await, Ok(6));
    assert_eq!(told(&log, dead.partition), [(0, 2, vec![FoundBy::Client])]);
    dead.flip(dead.objects[0]).await;
    assert_eq!(read(&client, dead.partition, 0).await, Ok(6));
    assert_eq!(told(&log, dead.partition), []);
}

#[tokio::test(start_paused = true)]
async fn the_list_is_bounded() {
    let env = Env::simulated(5);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let broker = env.scope();
    let log = open(&broker, &journal, Arc::new(memory.clone()), alone()).await;
    let partitions: Vec<PartitionId> = topic(&log, "t", 1_000).await.partition_ids().collect();
    let rounds = DAMAGE_ENTRIES_MAX / partitions.len() + 2;
    for _ in 0..rounds {
        let batches = partitions.iter().map(|partition| (*partition, crate::world::batch(&["v"]))).collect();
        let done = log.append(floe_log::Append { writer: writer(), batches }).await;
        assert!(done.iter().all(Result::is_ok));
    }
    broker.abort_all();
    memory.keys().iter().filter(|key| key.starts_with("wal/")).for_each(|key| memory.remove(key));
    let log = open(&env.scope(), &journal, Arc::new(memory), alone()).await;
    assert_eq!(log.damage(partitions[0].topic).len(), DAMAGE_ENTRIES_MAX);
}
