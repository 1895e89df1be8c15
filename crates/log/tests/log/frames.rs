//! Batches that ride with their commits, in a journal that carries them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_log::extent::{Extent, Place};
use floe_log::object::{Object, ObjectLease};
use floe_log::sequencer::AppendError;
use floe_log::walk::ReadError;
use floe_log::{Append, Config, Log, Offset, PartitionId, attached};
use floe_meta::{
    AttachedError, Attachment, Carried, Commit, Entry, Journal, JournalError, Loaded, Lsn, MemoryJournal,
    Outcome,
};
use floe_store::{MemoryStore, Store as _};

use crate::world::{append, batch, config, open, request, topic, values, writer};

/// A log over a journal that carries so many bytes.
struct World {
    env: Env,
    journal: MemoryJournal,
    store: MemoryStore,
    log: Log,
    first: PartitionId,
    second: PartitionId,
}

impl World {
    async fn carrying(bytes: u64, config: Config) -> World {
        let env = Env::simulated(1);
        let journal = MemoryJournal::carrying_at_most(bytes);
        let store = MemoryStore::new();
        let log = opened(&env, &journal, &store, config).await;
        let id = topic(&log, "t", 2).await.id;
        prime(&log).await;
        let (first, second) = (PartitionId::new(id, 0), PartitionId::new(id, 1));
        World { env, journal, store, log, first, second }
    }

    /// The objects beside that of the first request.
    async fn objects(&self) -> usize {
        self.store.list("wal/1", "", usize::MAX).await.expect("it is in memory").len() - 1
    }

    /// The places of the extents of both partitions.
    fn places(&self) -> Vec<Place> {
        let snapshot = self.log.meta().snapshot();
        let extents = snapshot.range::<Extent>(..).map(|pair| pair.expect("it can be read"));
        let extents = extents.filter(|(key, _)| key.partition.topic == self.first.topic);
        extents.map(|(_, extent)| extent).map(|extent| extent.data().expect("it has batches").place).collect()
    }

    /// Another process over the same journal and store.
    async fn reopened(&self, config: Config) -> Log {
        opened(&self.env.scope(), &self.journal, &self.store, config).await
    }
}

/// The first request of a process is an object, wherever its journal has the others.
async fn prime(log: &Log) {
    let id = topic(log, "first", 1).await.id;
    append(log, PartitionId::new(id, 0), &["first"]).await.expect("it is appended");
}

async fn opened(env: &Env, journal: &MemoryJournal, store: &MemoryStore, config: Config) -> Log {
    let journal: Arc<dyn Journal> = Arc::new(journal.clone());
    open(env, &journal, Arc::new(store.clone()), config).await
}

fn sole() -> Config {
    Config { sole: true, ..config() }
}

fn texts(found: &[(i64, String)]) -> Vec<&str> {
    found.iter().map(|(_, text)| text.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn batches_ride_with_their_commit_and_are_read_from_memory_and_from_the_journal() {
    let world = World::carrying(1 << 20, sole()).await;
    for text in ["a", "b", "c"] {
        append(&world.log, world.first, &[text, text]).await.expect("it is appended");
    }
    let two = vec![(world.second, batch(&["x"])), (world.first, batch(&["d"]))];
    let answers = world.log.append(Append { writer: writer(), batches: two }).await;
    assert_eq!(answers.iter().map(|a| a.as_ref().unwrap().base_offset.0).collect::<Vec<_>>(), [0, 6]);
    assert!(world.places().iter().all(|place| *place == Place::Frame), "{:?}", world.places());
    assert_eq!(world.objects().await, 0);
    let snapshot = world.log.meta().snapshot();
    assert_eq!((snapshot.range::<Object>(..).count(), snapshot.range::<ObjectLease>(..).count()), (1, 1));
    assert_eq!(world.journal.attachments().len(), 4);
    let all = ["a", "a", "b", "b", "c", "c", "d"];
    assert_eq!(texts(&values(&world.log, world.first).await), all);
    world.log.clone().close().await;
    let again = world.reopened(sole()).await;
    assert_eq!(texts(&values(&again, world.first).await), all);
    assert_eq!(texts(&values(&again, world.second).await), ["x"]);
    append(&again, world.first, &["e"]).await.expect("it is appended");
    assert_eq!(values(&again, world.first).await.last(), Some(&(7, "e".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_request_above_what_the_journal_carries_is_an_object_and_keeps_its_place_in_the_order() {
    let world = World::carrying(1_000, sole()).await;
    let large = "l".repeat(2_000);
    let sent: Vec<&str> = vec!["a", "b", &large, "c", &large, &large, "d", "e"];
    let tickets: Vec<_> = sent.iter().map(|text| world.log.append(request(world.first, &[text]))).collect();
    for (at, ticket) in tickets.into_iter().enumerate() {
        let appended = ticket.await.remove(0).expect("it is appended");
        assert_eq!(appended.base_offset, Offset(at as i64));
    }
    assert_eq!(texts(&values(&world.log, world.first).await), sent);
    assert_eq!(world.objects().await, 3, "one for each");
    assert!(world.places().contains(&Place::Frame));
    assert_eq!(texts(&values(&world.reopened(config()).await, world.first).await), sent);
}

#[tokio::test(start_paused = true)]
async fn refused_and_repeated_batches_are_holes_and_a_commit_without_any_keeps_no_bytes() {
    let world = World::carrying(1 << 20, sole()).await;
    let sequenced = |sequence: i32, text: &str| {
        use floe_log::{codec::Compression, records::Builder};
        let mut builder = Builder::new(Compression::None).producer(7, 0, sequence);
        builder.push(1_000, None, Some(text.as_bytes()), &[]).build()
    };
    let send = |batches: Vec<Bytes>| {
        let batches = batches.into_iter().map(|batch| (world.first, batch)).collect();
        world.log.append(Append { writer: writer(), batches })
    };
    assert!(send(vec![sequenced(0, "a")]).await[0].is_ok());
    let answers =
        send(vec![sequenced(0, "a"), sequenced(1, "b"), sequenced(5, "z"), sequenced(2, "c")]).await;
    assert!(answers[0].as_ref().is_ok_and(|appended| appended.duplicate), "{answers:?}");
    assert_eq!(answers[2], Err(AppendError::OutOfOrderSequence));
    assert!(answers[1].is_ok() && answers[3].is_ok());
    let kept = world.journal.attachments();
    assert!(send(vec![sequenced(0, "a")]).await[0].as_ref().is_ok_and(|appended| appended.duplicate));
    assert_eq!(world.journal.attachments(), kept, "a repeat alone changes nothing");
    assert_eq!(texts(&values(&world.reopened(config()).await, world.first).await), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_released_with_their_last_extent_when_nobody_reads_them_any_more() {
    let world = World::carrying(1 << 20, sole()).await;
    let both = vec![(world.first, batch(&["a"])), (world.second, batch(&["x"]))];
    assert!(world.log.append(Append { writer: writer(), batches: both }).await.iter().all(Result::is_ok));
    append(&world.log, world.first, &["b"]).await.expect("it is appended");
    assert_eq!(world.journal.attachments().len(), 2);
    let below = |partition, offset| floe_log::Below { partition, offset: Some(Offset(offset)) };
    let pinned = world.log.pin();
    for answer in world.log.delete_records(&writer(), &[below(world.first, 2)]).await {
        answer.expect("it is deleted");
    }
    world.log.clean().await.expect("it cleans");
    assert_eq!(world.journal.attachments().len(), 2, "one is needed, and somebody reads the other");
    let read = world.log.read(&pinned, world.first, Offset(0), 1 << 20).await.expect("it is pinned");
    assert_eq!(read.batches.len(), 2);
    drop(pinned);
    assert_eq!(world.log.clean().await.expect("it cleans").frames, 1);
    assert_eq!(world.journal.attachments().len(), 1, "the second partition needs it");
    world.log.delete_topic(&writer(), world.first.topic).await.expect("it is deleted");
    assert_eq!(world.log.clean().await.expect("it cleans").frames, 1);
    assert!(world.journal.attachments().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_start_releases_what_no_extent_needs_and_knows_what_is_missing() {
    let world = World::carrying(1 << 20, sole()).await;
    for text in ["a", "b", "c"] {
        append(&world.log, world.first, &[text]).await.expect("it is appended");
    }
    let below = floe_log::Below { partition: world.first, offset: Some(Offset(1)) };
    world.log.delete_records(&writer(), &[below]).await.remove(0).expect("it is deleted");
    // The process dies before its cleaner comes by.
    let kept = world.journal.attachments();
    assert_eq!(kept.len(), 3);
    let again = world.reopened(sole()).await;
    assert_eq!(again.clean().await.expect("it cleans").frames, 1);
    assert_eq!(world.journal.attachments(), kept[1..]);
    // Somebody takes a file away.
    world.journal.released(kept[1]);
    let again = world.reopened(sole()).await;
    let snapshot = again.meta().snapshot();
    let missing = attached::unattached(&snapshot, &world.journal.attachments()).expect("it can be read");
    assert_eq!(missing.keys().copied().collect::<Vec<_>>(), [kept[1]]);
    let damaged = again.read(&snapshot, world.first, Offset(1), 1 << 20).await;
    assert!(matches!(&damaged, Err(ReadError::Corrupt(why)) if why.contains("attachment")), "{damaged:?}");
    let whole = again.read(&snapshot, world.first, Offset(2), 1 << 20).await.expect("it is whole");
    assert_eq!(whole.batches.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_removed_records_are_gone_and_not_damaged() {
    let world = World::carrying(1 << 20, sole()).await;
    append(&world.log, world.first, &["a"]).await.expect("it is appended");
    // Nobody pins this.
    let old = world.log.meta().snapshot();
    world.log.delete_topic(&writer(), world.first.topic).await.expect("it is deleted");
    world.log.clean().await.expect("it cleans");
    let again = world.reopened(sole()).await;
    let gone = again.read(&old, world.first, Offset(0), 1 << 20).await;
    assert_eq!(gone.unwrap_err(), ReadError::UnknownPartition);
}

#[tokio::test(start_paused = true)]
async fn an_open_commit_lets_one_more_get_ready_and_the_rest_rides_together() {
    let world = World::carrying(1 << 20, sole()).await;
    let before = world.journal.lsn();
    let texts: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    let tickets: Vec<_> = texts.iter().map(|text| world.log.append(request(world.first, &[text]))).collect();
    for ticket in tickets {
        ticket.await.remove(0).expect("it is appended");
    }
    let commits = world.journal.lsn().0 - before.0;
    assert!(commits <= 3, "{commits} commits");
}

/// A journal of which the bytes rot.
struct Rotten {
    inner: MemoryJournal,
}

#[async_trait]
impl Journal for Rotten {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.inner.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        self.inner.commit(expected, attempt, commits).await
    }
    fn carries(&self) -> u64 {
        self.inner.carries()
    }
    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        self.inner.commit_with(expected, attempt, commits, attachments).await
    }
    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let mut bytes = self.inner.attached(lsn, range).await?.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(bytes.into())
    }
    fn attachments(&self) -> Vec<Lsn> {
        self.inner.attachments()
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.inner.follow(from).await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.inner.history(from, count).await
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_rotted_on_the_disk_are_not_served() {
    let world = World::carrying(1 << 20, sole()).await;
    append(&world.log, world.first, &[&"a".repeat(500)]).await.expect("it is appended");
    assert_eq!(values(&world.log, world.first).await.len(), 1, "memory has them as they were");
    let journal: Arc<dyn Journal> = Arc::new(Rotten { inner: world.journal.clone() });
    let again = open(&world.env.scope(), &journal, Arc::new(world.store.clone()), config()).await;
    let read = again.read(&again.meta().snapshot(), world.first, Offset(0), 1 << 20).await;
    assert!(matches!(&read, Err(ReadError::Corrupt(why)) if why.contains("checksum")), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn brokers_of_one_journal_count_each_others_bytes() {
    let world = World::carrying(1 << 20, config()).await;
    let other = world.reopened(config()).await;
    append(&world.log, world.first, &["a"]).await.expect("it is appended");
    append(&other, world.first, &["b"]).await.expect("it is appended");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&values(&world.log, world.first).await), ["a", "b"]);
    assert_eq!(texts(&values(&other, world.first).await), ["a", "b"]);
    let pinned = other.pin();
    world.log.delete_topic(&writer(), world.first.topic).await.expect("it is deleted");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let read = other.read(&pinned, world.first, Offset(0), 1 << 20).await.expect("it is pinned");
    assert_eq!(read.batches.len(), 2);
    drop(pinned);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(world.journal.attachments().is_empty());
}
