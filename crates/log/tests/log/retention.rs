//! Retention and DeleteRecords over a store and a journal: what readers see, what is given back, and brokers that die
//! in the middle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, SIMULATION_EPOCH, Timestamp};
use floe_log::codec::Compression;
use floe_log::extent::Extent;
use floe_log::object::Object;
use floe_log::records::Builder;
use floe_log::topic::{NewTopic, Topic};
use floe_log::walk::{At, ReadError};
use floe_log::{
    Append, Below, Config, DeleteError, Log, Offset, PartitionId, RetentionDefaults, Times, Unread, limits,
};
use floe_meta::lease::Lease;
use floe_meta::{DecodeError, Journal, Lsn, MemoryJournal, Snapshot};
use floe_store::MemoryStore;
use futures::future::join_all;

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{World, append, config, offset, open, values, writer};

const HOUR: Duration = Duration::from_secs(3_600);

/// A log that enforces and cleans only when told to.
fn told() -> Config {
    let never = Duration::from_secs(1_000_000_000);
    Config { times: Times { cleaner_pause: never, retention_pause: never, ..config().times }, ..config() }
}

async fn topic_with(log: &Log, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Topic {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let new = NewTopic { name: name.to_owned(), partitions, configs: settings.iter().map(own).collect() };
    log.create_topic(&writer(), new, false).await.expect("the topic is new")
}

/// A batch of one record.
fn record(value: &str, time: i64) -> Bytes {
    Builder::new(Compression::None).push(time, None, Some(value.as_bytes()), &[]).build()
}

/// Appends one record with the time of now, in an object of its own.
async fn write(env: &Env, log: &Log, partition: PartitionId, value: &str) {
    let batches = vec![(partition, record(value, env.now().0))];
    let appended = log.append(Append { writer: writer(), batches }).await;
    assert!(appended.iter().all(Result::is_ok), "{appended:?}");
}

fn start(log: &Log, partition: PartitionId) -> i64 {
    Log::bounds(&log.meta().snapshot(), partition).expect("it exists").log_start.0
}

fn below(partition: PartitionId, offset: Option<i64>) -> Below {
    Below { partition, offset: offset.map(Offset) }
}

#[tokio::test(start_paused = true)]
async fn old_records_go_and_their_room_comes_back() {
    let world = World::new(1).await;
    let (env, log) = (&world.env, &world.log);
    let topic = topic_with(log, "t", 1, &[("retention.ms", "3600000")]).await;
    let partition = PartitionId::new(topic.id, 0);
    let kept = PartitionId::new(world.topic("kept", 1).await.id, 0);
    log.enforce_retention(Vec::new());
    for value in ["a", "b", "c"] {
        write(env, log, partition, value).await;
        write(env, log, kept, value).await;
        tokio::time::sleep(HOUR / 3).await;
    }
    let before = log.meta().snapshot();
    tokio::time::sleep(HOUR / 6).await;
    assert_eq!(values(log, partition).await, [(1, "b".to_owned()), (2, "c".to_owned())]);
    assert_eq!(
        log.offset_at(&log.meta().snapshot(), partition, At::Earliest).await.unwrap().unwrap().0,
        offset(1)
    );
    let out = ReadError::OutOfRange { log_start: offset(1), high_watermark: offset(3) };
    assert_eq!(log.read(&log.meta().snapshot(), partition, offset(0), 100).await.unwrap_err(), out);
    tokio::time::sleep(HOUR * 2).await;
    assert!(values(log, partition).await.is_empty());
    assert_eq!(start(log, partition), 3, "the log goes on where it was");
    write(env, log, partition, "d").await;
    assert_eq!(values(log, partition).await, [(3, "d".to_owned())]);
    assert_eq!(values(log, kept).await.len(), 3);
    // Its objects are gone, and nothing is damaged: the records were removed.
    for from in 0..3 {
        let found = log.read(&before, partition, offset(from), 100).await.unwrap_err();
        assert_eq!(found, ReadError::OutOfRange { log_start: offset(3), high_watermark: offset(4) });
    }
    nothing_is_orphaned(log, &world.memory).expect("the room came back");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_began_before_reads_on_for_the_grace() {
    let world = World::with(2, told()).await;
    let (env, log) = (&world.env, &world.log);
    let partition = PartitionId::new(topic_with(log, "t", 1, &[("retention.bytes", "0")]).await.id, 0);
    write(env, log, partition, "a").await;
    let before = log.meta().snapshot();
    let done = log.retain().await.expect("a round");
    assert_eq!((done.records, done.waiting), (1, 0));
    // Another broker has nothing in its cache.
    let cold = async || open(&env.scope(), &world.journal, Arc::new(world.memory.clone()), told()).await;
    for _ in 0..5 {
        log.clean().await.expect("cleaned");
        tokio::time::sleep(told().times.trash_grace / 6).await;
        let read = cold().await.read(&before, partition, offset(0), 100).await.expect("it is there");
        assert_eq!(read.batches.len(), 1);
    }
    for _ in 0..3 {
        log.clean().await.expect("cleaned");
        tokio::time::sleep(told().times.trash_grace).await;
    }
    let cold = cold().await;
    let gone = ReadError::OutOfRange { log_start: offset(1), high_watermark: offset(1) };
    assert_eq!(cold.read(&before, partition, offset(0), 100).await.unwrap_err(), gone);
    cold.delete_topic(&writer(), partition.topic).await.expect("deleted");
    let unknown = cold.read(&before, partition, offset(0), 100).await.unwrap_err();
    assert_eq!(unknown, ReadError::UnknownPartition);
}

#[tokio::test(start_paused = true)]
async fn the_log_start_may_lie_within_a_batch() {
    let world = World::with(3, told()).await;
    let log = &world.log;
    let partition = PartitionId::new(topic_with(log, "t", 1, &[]).await.id, 0);
    // Times of the records: 1000, 1001, 1002 in each.
    append(log, partition, &["a", "b", "c"]).await.expect("appended");
    append(log, partition, &["d", "e"]).await.expect("appended");
    let delete = async |offset| log.delete_records(&writer(), &[below(partition, offset)]).await.remove(0);
    assert_eq!(delete(Some(2)).await, Ok(offset(2)));
    assert_eq!(delete(Some(1)).await, Ok(offset(2)));
    assert_eq!(delete(Some(6)).await, Err(DeleteError::OutOfRange { high_watermark: offset(5) }));
    let read = log.read(&log.meta().snapshot(), partition, offset(2), 1_000).await.expect("readable");
    assert_eq!((read.log_start, read.batches[0].base_offset), (offset(2), offset(0)), "whole batches");
    let at = async |at| log.offset_at(&log.meta().snapshot(), partition, at).await.expect("found");
    let time = |time| At::Timestamp(Timestamp(time));
    assert_eq!(at(time(1_000)).await, Some((offset(2), Timestamp(1_002))), "the deleted ones do not count");
    assert_eq!(at(time(1_002)).await, Some((offset(2), Timestamp(1_002))));
    assert_eq!(at(At::MaxTimestamp).await, Some((offset(2), Timestamp(1_002))));
    assert_eq!(delete(Some(3)).await, Ok(offset(3)));
    assert_eq!(at(At::MaxTimestamp).await, Some((offset(4), Timestamp(1_001))));
    assert_eq!(delete(Some(4)).await, Ok(offset(4)));
    assert_eq!(at(time(1_001)).await, Some((offset(4), Timestamp(1_001))));
    assert_eq!(at(At::MaxTimestamp).await, Some((offset(4), Timestamp(1_001))));
    assert_eq!(delete(None).await, Ok(offset(5)));
    assert_eq!(at(At::MaxTimestamp).await, None);
    assert_eq!(log.meta().snapshot().range::<Extent>(..).count(), 0);
}

/// The largest time of the first extent is below the log start, and a later extent has the largest of the rest.
#[tokio::test(start_paused = true)]
async fn the_largest_time_is_looked_for_above_the_log_start() {
    let world = World::with(4, told()).await;
    let log = &world.log;
    let partition = PartitionId::new(topic_with(log, "t", 1, &[]).await.id, 0);
    let batches =
        |times: &[i64]| times.iter().map(|time| (partition, record("v", *time))).collect::<Vec<_>>();
    for times in [&[900, 100][..], &[200], &[300], &[100]] {
        let appended = log.append(Append { writer: writer(), batches: batches(times) }).await;
        assert!(appended.iter().all(Result::is_ok));
    }
    log.delete_records(&writer(), &[below(partition, Some(1))]).await.remove(0).expect("deleted");
    let found = log.offset_at(&log.meta().snapshot(), partition, At::MaxTimestamp).await.expect("found");
    assert_eq!(found, Some((offset(3), Timestamp(300))));
}

/// Ten thousand partitions in one round: few commits, each bounded, and no look beyond the oldest extents.
#[tokio::test(start_paused = true)]
async fn a_round_makes_few_commits_of_bounded_size() {
    let partitions = 10_000;
    let world = World::with(5, told()).await;
    let (env, log) = (&world.env, &world.log);
    let topic = topic_with(log, "t", partitions, &[("retention.ms", "3600000")]).await;
    for _ in 0..2 {
        let batch = record("v", env.now().0);
        let batches = topic.partition_ids().map(|partition| (partition, batch.clone())).collect();
        let appended = log.append(Append { writer: writer(), batches }).await;
        assert!(appended.iter().all(Result::is_ok));
        tokio::time::sleep(HOUR * 3 / 4).await;
    }
    let commits = async || {
        let commits = log.meta().history(Lsn(0), usize::MAX).await.expect("it is in memory");
        commits.iter().filter(|commit| commit.envelope.cause.as_deref() == Some("retention")).count()
    };
    assert_eq!(log.retain().await.expect("a round").records, u64::from(partitions));
    assert!(topic.partition_ids().all(|partition| start(log, partition) == 1));
    let wanted = (partitions as usize).div_ceil(limits::RETENTION_PARTITIONS_PER_COMMIT);
    assert_eq!(commits().await, wanted);
    assert_eq!(log.retain().await.expect("a round").records, 0);
    assert_eq!(commits().await, wanted, "a round without work makes no commit");
}

/// More extents than one commit removes, in two partitions: they take turns.
#[tokio::test(start_paused = true)]
async fn a_long_log_goes_in_several_commits() {
    // Each append has an object of its own.
    let times = Times { lease_ids: 1_000, ..told().times };
    let world = World::with(6, Config { object_bytes: 1, times, ..told() }).await;
    let log = &world.log;
    let topic = topic_with(log, "t", 2, &[("retention.bytes", "1"), ("retention.ms", "-1")]).await;
    let [one, two] = [0, 1].map(|index| PartitionId::new(topic.id, index));
    let extents = limits::RETENTION_EXTENTS_PER_COMMIT * 5 / 2;
    let both = || vec![(one, record("v", 1)), (two, record("v", 1))];
    let appends = (0..extents).map(|_| log.append(Append { writer: writer(), batches: both() }));
    let appended = join_all(appends.collect::<Vec<_>>()).await;
    assert!(appended.iter().flatten().all(Result::is_ok));
    assert_eq!(log.meta().snapshot().range::<Extent>(..).count(), 2 * extents);
    let all = below(one, None);
    let before = log.meta().snapshot().lsn().0;
    assert_eq!(log.delete_records(&writer(), &[all]).await, [Ok(Offset(extents as i64))]);
    assert!(log.meta().snapshot().lsn().0 - before >= 3, "in bounded commits");
    assert_eq!(log.retain().await.expect("a round").records, extents as u64 - 1);
    assert_eq!((start(log, one), start(log, two)), (extents as i64, extents as i64 - 1));
    assert_eq!(log.meta().snapshot().range::<Extent>(..).count(), 1);
    assert_eq!(log.meta().snapshot().range::<Object>(..).count(), 1);
}

/// A view of one topic: it has read up to an offset that the topic's name says.
fn by_name(_: &Snapshot, topic: &Topic) -> Result<Option<Unread>, DecodeError> {
    let mut words = topic.name.split('-');
    let always = match words.next() {
        Some("table") => false,
        Some("rebuilt") => true,
        _ => return Ok(None),
    };
    let next = words.next().and_then(|next| next.parse().ok()).map(Offset);
    Ok(Some(Unread { next: next.into_iter().map(|next| (0, next)).collect(), always }))
}

#[tokio::test(start_paused = true)]
async fn retention_waits_for_views_where_the_topic_says_so() {
    let world = World::with(7, told()).await;
    let (env, log) = (&world.env, &world.log);
    let waits = ("floe.retention.wait.for.views", "true");
    let mut partitions = Vec::new();
    for (name, settings) in [
        ("table-1", vec![]),
        ("table-2", vec![waits]),
        ("table", vec![waits]),
        ("rebuilt-1", vec![]),
        ("plain", vec![waits]),
    ] {
        let settings = [settings, vec![("retention.ms", "1000")]].concat();
        let partition = PartitionId::new(topic_with(log, name, 1, &settings).await.id, 0);
        for value in ["a", "b", "c"] {
            write(env, log, partition, value).await;
        }
        partitions.push(partition);
    }
    log.enforce_retention(vec![by_name]);
    tokio::time::sleep(HOUR).await;
    let done = log.retain().await.expect("a round");
    let starts: Vec<i64> = partitions.iter().map(|partition| start(log, *partition)).collect();
    assert_eq!((starts, done.waiting), (vec![3, 2, 0, 1, 3], 1), "one would go at once");
    assert_eq!(log.retain().await.expect("a round").waiting, 3);
    let deleted = log.delete_records(&writer(), &[below(partitions[2], None)]).await;
    assert_eq!(deleted, [Ok(offset(3))], "DeleteRecords waits for nothing");
}

#[tokio::test(start_paused = true)]
async fn topics_without_settings_have_those_of_the_broker() {
    let defaults = RetentionDefaults { ms: 1_000, bytes: -1 };
    let world = World::with(8, Config { retention: defaults, ..told() }).await;
    let (env, log) = (&world.env, &world.log);
    assert_eq!(log.retention_defaults(), defaults);
    let plain = PartitionId::new(topic_with(log, "plain", 1, &[]).await.id, 0);
    let own = PartitionId::new(topic_with(log, "own", 1, &[("retention.ms", "-1")]).await.id, 0);
    write(env, log, plain, "a").await;
    write(env, log, own, "a").await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(log.retain().await.expect("a round").records, 1);
    assert_eq!((start(log, plain), start(log, own)), (1, 0));
}

/// A clock that was behind, or ahead, removes nothing that is young.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_makes_nothing_old() {
    let world = World::with(9, told()).await;
    let (env, log) = (&world.env, &world.log);
    let partition = PartitionId::new(topic_with(log, "t", 1, &[("retention.ms", "3600000")]).await.id, 0);
    write(env, log, partition, "a").await;
    // As at the start of a machine whose clock has no battery.
    env.set_wall_clock_ahead(-SIMULATION_EPOCH.0);
    log.retain().await.expect("a round");
    env.set_wall_clock_ahead(0);
    log.retain().await.expect("a round");
    assert_eq!(start(log, partition), 0);
    // Written while the clock was a year ahead, which commits remember.
    env.set_wall_clock_ahead(365 * 86_400_000);
    let ahead = PartitionId::new(topic_with(log, "ahead", 1, &[("retention.ms", "3600000")]).await.id, 0);
    write(env, log, ahead, "b").await;
    env.set_wall_clock_ahead(0);
    write(env, log, ahead, "c").await;
    log.retain().await.expect("a round");
    assert_eq!((start(log, partition), start(log, ahead)), (0, 0));
    tokio::time::sleep(HOUR * 2).await;
    log.retain().await.expect("a round");
    assert_eq!(start(log, partition), 1);
}

#[tokio::test(start_paused = true)]
async fn one_broker_at_a_time_enforces() {
    let world = World::with(10, told()).await;
    let (env, log) = (&world.env, &world.log);
    let other = open(&env.scope(), &world.journal, Arc::new(world.memory.clone()), told()).await;
    let partition = PartitionId::new(topic_with(log, "t", 1, &[("retention.bytes", "0")]).await.id, 0);
    write(env, log, partition, "a").await;
    assert_eq!(log.retain().await.expect("it has the lease").records, 1);
    let epoch =
        |log: &Log| log.meta().snapshot().get::<Lease>(&"retention".to_owned()).unwrap().unwrap().epoch;
    assert_eq!(epoch(log), 1);
    write(env, log, partition, "b").await;
    other
        .meta()
        .commit(floe_meta::Envelope::broker("test"), |tx| tx.next_counter(&COUNTER))
        .await
        .expect("follows");
    assert!(other.retain().await.unwrap_err().contains("held by"));
    tokio::time::sleep(told().times.cleaner_lease).await;
    assert_eq!(other.retain().await.expect("nobody renewed it").records, 1);
    assert_eq!(epoch(&other), 2);
}

const COUNTER: floe_meta::CounterKey = floe_meta::CounterKey::named("test");

/// Three extents of which two are due. The broker dies at its `crash`th poll. Returns the number of polls.
async fn retain_and_die(crash: Option<u64>) -> u64 {
    let env = Env::simulated(11);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let first = env.scope();
    let log = open(&first, &journal, Arc::new(memory.clone()), told()).await;
    let partition = PartitionId::new(topic_with(&log, "t", 1, &[("retention.ms", "3600000")]).await.id, 0);
    for value in ["a", "b", "c"] {
        write(&env, &log, partition, value).await;
        tokio::time::sleep(HOUR * 2 / 5).await;
    }
    tokio::time::sleep(HOUR * 2 / 5).await;
    first.abort_all();

    let broker = env.scope();
    let log = open(&broker, &journal, Arc::new(memory.clone()), told()).await;
    let before = broker.polls();
    broker.crash_at_poll(before + crash.unwrap_or(u64::MAX - before));
    let rounds = broker.spawn("rounds", async move {
        let _ = log.retain().await;
        log.delete_records(&writer(), &[below(partition, Some(2))]).await.remove(0)
    });
    let told = tokio::select! {
        biased;
        () = broker.crashed() => None,
        ended = rounds => Some(ended.expect("no panic")),
    };
    let polls = broker.polls() - before;
    broker.abort_all();

    let last = open(&env.scope(), &journal, Arc::new(memory.clone()), config()).await;
    last.enforce_retention(Vec::new());
    let begin = start(&last, partition);
    assert!(
        (0..=2).contains(&begin) && told.as_ref().is_none_or(|told| *told == Ok(Offset(begin))),
        "crash {crash:?}: {told:?}"
    );
    let expected = [(0, "a"), (1, "b"), (2, "c")].map(|(offset, value)| (offset, value.to_owned()));
    assert_eq!(values(&last, partition).await, expected[begin as usize..], "crash {crash:?}");
    long_after().await;
    nothing_is_orphaned(&last, &memory).unwrap_or_else(|orphans| panic!("crash {crash:?}: {orphans}"));
    assert_eq!(start(&last, partition), 2, "crash {crash:?}");
    polls
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_poll_leaves_a_log_and_nothing_behind() {
    let polls = retain_and_die(None).await;
    assert!(polls > 10, "only {polls} polls");
    for crash in 1..polls {
        retain_and_die(Some(crash)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_of_a_topic_that_does_not_exist() {
    let world = World::with(12, told()).await;
    let none = PartitionId::new(floe_log::TopicId(99), 0);
    let deleted = world.log.delete_records(&writer(), &[below(none, None), below(none, Some(0))]).await;
    assert_eq!(deleted, [Err(DeleteError::UnknownPartition), Err(DeleteError::UnknownPartition)]);
}
