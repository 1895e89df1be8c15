//! Compaction over a store and a journal: what readers see, what is given back, brokers that die in the middle, and
//! what is damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, Timestamp};
use floe_log::codec::Compression;
use floe_log::compacted::Compacted;
use floe_log::extent::{Extent, Outcome};
use floe_log::object::{Object, object_key};
use floe_log::records::Builder;
use floe_log::topic::{NewTopic, Topic};
use floe_log::walk::At;
use floe_log::{
    Append, Below, Compaction, CompactionRound, Config, DeleteError, FoundBy, Log, Offset, PartitionId,
    Times, Unread,
};
use floe_meta::{DecodeError, Envelope, Journal, MemoryJournal, Snapshot, Tx};
use floe_store::MemoryStore;

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{World, config, open, writer};

/// A log that compacts, enforces, merges and cleans only when told to, and finds nothing too small.
fn told() -> Config {
    let never = Duration::from_secs(1_000_000_000);
    let compaction =
        Compaction { pause: never, small_bytes: 0, small_pause: Duration::ZERO, ..Compaction::default() };
    let times = Times { cleaner_pause: never, retention_pause: never, merge_pause: never, ..config().times };
    Config { times, compaction, ..config() }
}

async fn compacted(log: &Log, partitions: u32, settings: &[(&str, &str)]) -> PartitionId {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut configs: BTreeMap<_, _> = settings.iter().map(own).collect();
    configs.entry("cleanup.policy".to_owned()).or_insert_with(|| "compact".to_owned());
    let new = NewTopic { name: "t".to_owned(), partitions, configs };
    PartitionId::new(log.create_topic(&writer(), new, false).await.expect("the topic is new").id, 0)
}

/// A batch of `key=value` and of keys alone, which are tombstones.
fn batch(records: &[&str], time: i64) -> Bytes {
    let mut builder = Builder::new(Compression::Zstd);
    for record in records {
        match record.split_once('=') {
            Some((key, value)) => builder.push(time, Some(key.as_bytes()), Some(value.as_bytes()), &[]),
            None => builder.push(time, Some(record.as_bytes()), None, &[]),
        };
    }
    builder.build()
}

async fn put(log: &Log, partition: PartitionId, records: &[&str]) {
    let batches = vec![(partition, batch(records, log.env().now().0))];
    let appended = log.append(Append { writer: writer(), batches }).await;
    assert!(appended.iter().all(Result::is_ok), "{appended:?}");
}

/// The records as `offset key=value`.
async fn all(log: &Log, partition: PartitionId) -> Vec<String> {
    let snapshot = log.pin();
    let bounds = Log::bounds(&snapshot, partition).expect("it exists");
    let (mut next, mut found) = (bounds.log_start, Vec::new());
    while next < bounds.high_watermark {
        let read = log.read(&snapshot, partition, next, 150).await.expect("it can be read");
        for batch in &read.batches {
            assert!(batch.base_offset <= next, "no offset is left out");
            next = batch.next_offset();
            for record in batch.records(1 << 20).expect("it decodes") {
                let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
                let value = record.value.map(|value| format!("={}", text(value))).unwrap_or_default();
                let key = record.key.map(text).unwrap_or_default();
                if !batch.header().is_control() && record.offset >= bounds.log_start {
                    found.push(format!("{} {key}{value}", record.offset));
                }
            }
        }
    }
    found
}

/// The last value of each key.
fn fold(records: &[String]) -> BTreeMap<String, String> {
    let mut fold = BTreeMap::new();
    for record in records {
        let (_, record) = record.split_once(' ').expect("an offset");
        match record.split_once('=') {
            Some((key, value)) => drop(fold.insert(key.to_owned(), value.to_owned())),
            None => drop(fold.remove(record)),
        }
    }
    fold
}

fn extents(log: &Log) -> Vec<(i64, Extent)> {
    let snapshot = log.meta().snapshot();
    snapshot.range::<Extent>(..).map(|pair| pair.expect("readable")).map(|(key, e)| (key.base.0, e)).collect()
}

fn end(log: &Log, partition: PartitionId) -> i64 {
    let compacted = log.meta().snapshot().get::<Compacted>(&partition).expect("readable");
    compacted.map_or(0, |compacted| compacted.next.0)
}

#[tokio::test(start_paused = true)]
async fn of_each_key_the_last_record_stays_with_its_offset() {
    let world = World::with(1, told()).await;
    let log = &world.log;
    let partition =
        compacted(log, 1, &[("delete.retention.ms", "60000"), ("min.cleanable.dirty.ratio", "0")]).await;
    for records in [&["a=1", "b=1"][..], &["a=2", "c=1", "a=3"], &["b", "d=1"], &["a=4"]] {
        put(log, partition, records).await;
    }
    let before = log.meta().snapshot();
    let done = log.compact().await.expect("it compacts");
    let expected = CompactionRound { due: 1, passes: 1, swaps: 1, kept: 4, removed: 4, ..done };
    assert_eq!(done, expected);
    assert_eq!(all(log, partition).await, ["3 c=1", "5 b", "6 d=1", "7 a=4"]);
    assert_eq!(end(log, partition), 8);
    assert_eq!(extents(log).len(), 1);
    // Those who began before still see all of it.
    let read = log.read(&before, partition, Offset(0), 10_000).await.expect("it is there");
    assert_eq!(read.batches.len(), 4);
    // A read at an offset that is gone gets what comes next.
    let read = log.read(&log.pin(), partition, Offset(1), 10_000).await.expect("it is there");
    assert_eq!(read.batches.iter().find(|batch| batch.has_records()).expect("one").base_offset, Offset(2));
    // Without anything new, nothing is due.
    assert_eq!(log.compact().await, Ok(CompactionRound::default()));
    // The tombstone goes when its time is over, in the next pass.
    tokio::time::sleep(Duration::from_secs(61)).await;
    put(log, partition, &["d=2"]).await;
    log.compact().await.expect("it compacts");
    assert_eq!(all(log, partition).await, ["3 c=1", "7 a=4", "8 d=2"]);
    assert_eq!(floe_log::miscounted_writers(&*log.pin()), Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_map_that_is_too_small_takes_several_passes_and_a_small_object_several_swaps() {
    for (keys, object_bytes) in [(2usize, 1u64), (3, 400), (64, 1), (3, 1 << 20)] {
        let compaction = Compaction { map_bytes: 32 * keys, object_bytes, ..told().compaction };
        let world = World::with(2, Config { compaction, ..told() }).await;
        let log = &world.log;
        let partition = compacted(log, 1, &[("min.cleanable.dirty.ratio", "0")]).await;
        for round in 0..12 {
            let records: Vec<String> = (0..5).map(|key| format!("k{}={round}", (round + key) % 9)).collect();
            put(log, partition, &records.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let before = fold(&all(log, partition).await);
        let mut passes = 0;
        while end(log, partition) < 60 {
            let done = log.compact().await.expect("it compacts");
            assert!(done.passes == 1 && passes < 60, "{keys} keys: {done:?}");
            assert_eq!(fold(&all(log, partition).await), before);
            passes += 1;
        }
        let left = all(log, partition).await;
        assert_eq!(left.len(), 9, "{left:?}");
        assert!((passes > 3) == (keys < 9), "{passes} passes with {keys} keys");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_young_waits_and_what_has_waited_long_goes() {
    let world = World::with(3, told()).await;
    let log = &world.log;
    let settings = [
        ("min.compaction.lag.ms", "60000"),
        ("max.compaction.lag.ms", "600000"),
        ("min.cleanable.dirty.ratio", "0.9"),
    ];
    let partition = compacted(log, 1, &settings).await;
    put(log, partition, &["a=1", "a=2"]).await;
    assert_eq!(log.compact().await.expect("a round").passes, 0, "it is too young");
    tokio::time::sleep(Duration::from_secs(61)).await;
    put(log, partition, &["a=3"]).await;
    assert_eq!(log.compact().await.expect("a round").passes, 1);
    assert_eq!(all(log, partition).await, ["1 a=2", "2 a=3"]);
    assert_eq!(end(log, partition), 2);
    // Less than the ratio is dirty, until the record has waited for long.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(log.compact().await.expect("a round").passes, 0);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(log.compact().await.expect("a round").passes, 1);
    assert_eq!(all(log, partition).await, ["2 a=3"]);
}

/// A client may give its records a time in the future, or none. They do not stay out of compaction for ever.
#[tokio::test(start_paused = true)]
async fn records_that_do_not_tell_their_age_are_compacted_by_a_mark() {
    let world = World::with(4, told()).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[("min.compaction.lag.ms", "60000")]).await;
    for time in [-1, log.env().now().0 + 3_000_000] {
        let batches = vec![(partition, batch(&["a=1"], time))];
        assert!(log.append(Append { writer: writer(), batches }).await[0].is_ok());
    }
    assert_eq!(log.compact().await.expect("a round").passes, 0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(log.compact().await.expect("a round").passes, 1);
    assert_eq!(all(log, partition).await, ["1 a=1"]);
}

#[tokio::test(start_paused = true)]
async fn small_parts_wait() {
    let compaction =
        Compaction { small_pause: Duration::from_secs(600), small_bytes: 1 << 20, ..told().compaction };
    let world = World::with(5, Config { compaction, ..told() }).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[]).await;
    put(log, partition, &["a=1", "a=2"]).await;
    assert_eq!(log.compact().await.expect("a round").passes, 1, "the first one");
    put(log, partition, &["a=3", "a=4", "a=5"]).await;
    assert_eq!(log.compact().await.expect("a round").passes, 0);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(log.compact().await.expect("a round").passes, 1);
    assert_eq!(all(log, partition).await, ["4 a=5"]);
}

/// Records without a key came before the topic was compacted. The newest record stays, whatever it is.
#[tokio::test(start_paused = true)]
async fn records_without_a_key_go_and_the_newest_record_stays() {
    let world = World::with(6, told()).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[("cleanup.policy", "delete")]).await;
    let keyless = |value: &[u8]| {
        let mut builder = Builder::new(Compression::None);
        builder.push(1, None, Some(value), &[]).build()
    };
    for batches in [
        vec![(partition, keyless(b"x"))],
        vec![(partition, batch(&["a=1", "b"], 2))],
        vec![(partition, keyless(b"y"))],
    ] {
        assert!(log.append(Append { writer: writer(), batches }).await[0].is_ok());
    }
    assert_eq!(log.compact().await, Ok(CompactionRound::default()));
    let configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("delete.retention.ms".to_owned(), "0".to_owned()),
        ("min.cleanable.dirty.ratio".to_owned(), "0".to_owned()),
    ]);
    let compact = move |tx: &mut Tx<'_>| floe_log::topic::configure(tx, partition.topic, &configs).map(drop);
    log.meta().commit(Envelope::broker("test"), compact).await.expect("committed");
    log.compact().await.expect("it compacts");
    assert_eq!(all(log, partition).await, ["1 a=1", "2 b", "3 =y"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = log.append(Append { writer: writer(), batches: vec![(partition, keyless(b"z"))] }).await;
    assert!(
        refused[0].as_ref().expect_err("it has no key").to_string().contains("has no key"),
        "{refused:?}"
    );
    put(log, partition, &["a=2"]).await;
    log.compact().await.expect("it compacts");
    assert_eq!(all(log, partition).await, ["4 a=2"], "the tombstone had no time, and nothing is older");
    // A client cannot delete records of a topic that only compacts.
    let below = Below { partition, offset: None };
    assert_eq!(log.delete_records(&writer(), &[below]).await, [Err(DeleteError::Policy)]);
}

#[tokio::test(start_paused = true)]
async fn markers_go_and_gaps_are_covered() {
    let world = World::with(7, told()).await;
    let log = &world.log;
    let partition =
        compacted(log, 1, &[("delete.retention.ms", "1000"), ("min.cleanable.dirty.ratio", "0")]).await;
    let mark = || async {
        let work = move |tx: &mut Tx<'_>| floe_log::marker::mark(tx, &[partition], (9, 1), Outcome::Commit);
        log.meta().commit(Envelope::broker("test"), work).await.expect("committed")
    };
    put(log, partition, &["a=1"]).await;
    mark().await;
    put(log, partition, &["a=2"]).await;
    mark().await;
    log.compact().await.expect("it compacts");
    let controls = || async {
        let read = log.read(&log.pin(), partition, Offset(0), 10_000).await.expect("readable");
        let controls = read.batches.iter().filter(|batch| batch.header().is_control());
        controls.map(|batch| batch.base_offset.0).collect::<Vec<_>>()
    };
    assert_eq!((controls().await, all(log, partition).await), (vec![1, 3], vec!["2 a=2".to_owned()]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    put(log, partition, &["b=1"]).await;
    log.compact().await.expect("it compacts");
    // The second marker was the newest record of the pass before, so its time begins now.
    assert_eq!(controls().await, [3]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    put(log, partition, &["c=1"]).await;
    log.compact().await.expect("it compacts");
    assert_eq!(controls().await, [0i64; 0]);
    assert_eq!(all(log, partition).await, ["2 a=2", "4 b=1", "5 c=1"]);
}

#[tokio::test(start_paused = true)]
async fn lookups_and_producers_know_what_is_gone() {
    let world = World::with(8, told()).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[]).await;
    let (id, epoch) = log.producer_id(&writer()).await.expect("an id");
    let of_producer = |sequence: i32, value: &str| {
        let mut builder = Builder::new(Compression::None).producer(id, epoch, sequence);
        builder.push(100 + i64::from(sequence), Some(b"a"), Some(value.as_bytes()), &[]).build()
    };
    for sequence in 0..3 {
        let batches = vec![(partition, of_producer(sequence, "v"))];
        assert!(log.append(Append { writer: writer(), batches }).await[0].is_ok());
    }
    let mut last = Builder::new(Compression::None);
    last.push(5, Some(b"a"), Some(b"last"), &[]);
    let batches = vec![(partition, last.build())];
    assert!(log.append(Append { writer: writer(), batches }).await[0].is_ok());
    log.compact().await.expect("it compacts");
    assert_eq!(all(log, partition).await, ["3 a=last"]);
    // Its batches are gone, and it still knows them: a repeated one is a duplicate, and the next one follows.
    let repeated = vec![(partition, of_producer(2, "v"))];
    let repeated =
        log.append(Append { writer: writer(), batches: repeated }).await.remove(0).expect("a duplicate");
    assert_eq!(repeated.base_offset, Offset(2));
    let next = vec![(partition, of_producer(3, "w"))];
    assert_eq!(
        log.append(Append { writer: writer(), batches: next }).await[0]
            .as_ref()
            .expect("it follows")
            .base_offset,
        Offset(4)
    );
    let at = |time| {
        let log = log.clone();
        async move {
            log.offset_at(&log.pin(), partition, At::Timestamp(Timestamp(time))).await.expect("readable")
        }
    };
    assert_eq!(at(4).await, Some((Offset(3), Timestamp(5))));
    assert_eq!(at(100).await, Some((Offset(4), Timestamp(103))));
    let max = log.offset_at(&log.pin(), partition, At::MaxTimestamp).await.expect("readable");
    assert_eq!(max, Some((Offset(4), Timestamp(103))));
}

/// One partition is damaged. It stays as it is, and says so; the other one is compacted.
#[tokio::test(start_paused = true)]
async fn damage_stops_one_partition_only() {
    let env = Env::simulated(9);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let log = open(&env.scope(), &journal, Arc::new(memory.clone()), told()).await;
    let bad = compacted(&log, 2, &[]).await;
    let good = PartitionId::new(bad.topic, 1);
    for value in ["a=1", "a=2", "a=3"] {
        put(&log, bad, &[value]).await;
        put(&log, good, &[value]).await;
    }
    let object = extents(&log)[1].1.object().expect("an object");
    log.close().await;
    memory.remove(&object_key(object));

    let log = open(&env.scope(), &journal, Arc::new(memory.clone()), told()).await;
    let before = extents(&log).iter().filter(|(_, extent)| extent.data().is_some()).count();
    let done = log.compact().await.expect("a round");
    assert_eq!((done.due, done.passes), (2, 1));
    assert_eq!(all(&log, good).await, ["2 a=3"]);
    assert_eq!((before, extents(&log).len()), (6, 4));
    let troubles = log.damage(bad.topic);
    let [trouble] = &troubles[..] else { panic!("{troubles:?}") };
    assert_eq!((trouble.partition, trouble.from, trouble.to), (bad, Offset(1), Offset(2)));
    assert!(trouble.place.contains(&object.to_string()) && !trouble.what.is_empty(), "{trouble:?}");
    assert_eq!(trouble.found_by, [FoundBy::Compaction]);
    // It is left alone for a while, and then tried again.
    assert_eq!(log.compact().await.expect("a round").due, 0);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(log.compact().await.expect("a round").due, 1);
}

/// Merging and compaction change the same extents in turn.
#[tokio::test(start_paused = true)]
async fn merging_and_compaction_get_on() {
    let world = World::with(10, told()).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[("min.cleanable.dirty.ratio", "0")]).await;
    for round in 0..40 {
        for key in 0..4 {
            put(log, partition, &[&format!("k{}={round}", (key * round) % 7)]).await;
        }
        let before = fold(&all(log, partition).await);
        match round % 4 {
            1 => drop(log.merge().await.expect("it merges")),
            3 => drop(log.compact().await.expect("it compacts")),
            _ => {}
        }
        assert_eq!(fold(&all(log, partition).await), before, "round {round}");
    }
    log.compact().await.expect("it compacts");
    assert_eq!(all(log, partition).await.len(), 7);
    assert_eq!(floe_log::miscounted_writers(&*log.pin()), Ok(Vec::new()));
}

/// A start does not wait for the pause between two rounds.
#[tokio::test(start_paused = true)]
async fn compaction_begins_at_the_start() {
    let world = World::with(11, told()).await;
    let partition = compacted(&world.log, 1, &[("min.cleanable.dirty.ratio", "0")]).await;
    for value in ["a=1", "a=2"] {
        put(&world.log, partition, &[value]).await;
    }
    world.log.enforce_retention(Vec::new());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(all(&world.log, partition).await, ["1 a=2"]);
}

/// A view has read the first two records.
fn two_are_read(_: &Snapshot, _: &Topic) -> Result<Option<Unread>, DecodeError> {
    Ok(Some(Unread { next: BTreeMap::from([(0, Offset(2))]), always: false }))
}

#[tokio::test(start_paused = true)]
async fn compaction_waits_for_views_where_the_topic_says_so() {
    for (waits, left) in [("true", &["1 a=2", "2 a=3", "3 a=4"][..]), ("false", &["3 a=4"])] {
        let world = World::with(13, told()).await;
        let log = &world.log;
        let partition = compacted(log, 1, &[("floe.retention.wait.for.views", waits)]).await;
        log.enforce_retention(vec![two_are_read]);
        for value in ["a=1", "a=2", "a=3", "a=4"] {
            put(log, partition, &[value]).await;
        }
        assert_eq!(log.compact().await.expect("a round").passes, 1);
        assert_eq!(all(log, partition).await, left, "{waits}");
    }
}

/// Objects of a log that was compacted are given back.
#[tokio::test(start_paused = true)]
async fn room_comes_back() {
    let world = World::with(11, Config { compaction: told().compaction, ..config() }).await;
    let log = &world.log;
    let partition = compacted(log, 1, &[]).await;
    let large = "v".repeat(10_000);
    for _ in 0..20 {
        put(log, partition, &[&format!("a={large}")]).await;
    }
    log.compact().await.expect("it compacts");
    long_after().await;
    nothing_is_orphaned(log, &world.memory).expect("all is cleaned");
    let sizes: u64 =
        log.meta().snapshot().range::<Object>(..).map(|pair| pair.expect("readable").1.size).sum();
    assert!(sizes < 2_000, "{sizes} bytes: the value is one letter");
    assert_eq!(all(log, partition).await.len(), 1);
}

/// The broker dies at its `crash`th poll. Returns the number of polls.
async fn compact_and_die(crash: Option<u64>) -> u64 {
    let env = Env::simulated(12);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let small = Compaction { object_bytes: 150, map_bytes: 32 * 4, ..told().compaction };
    let small = Config { compaction: small, ..told() };
    let first = env.scope();
    let log = open(&first, &journal, Arc::new(memory.clone()), small).await;
    let settings = [("delete.retention.ms", "0"), ("min.cleanable.dirty.ratio", "0")];
    let partition = compacted(&log, 1, &settings).await;
    for records in [&["a=1", "b=1"][..], &["a=2", "c"], &["b", "d=1"], &["a=3"], &["d", "e=1"]] {
        put(&log, partition, records).await;
    }
    let before = fold(&all(&log, partition).await);
    first.abort_all();

    let broker = env.scope();
    let log = open(&broker, &journal, Arc::new(memory.clone()), small).await;
    let begun = broker.polls();
    broker.crash_at_poll(begun + crash.unwrap_or(u64::MAX - begun));
    let rounds = broker.spawn("rounds", async move {
        for _ in 0..4 {
            let _ = log.compact().await;
        }
    });
    tokio::select! {
        biased;
        () = broker.crashed() => {}
        ended = rounds => ended.expect("no panic"),
    }
    let polls = broker.polls() - begun;
    broker.abort_all();

    let last = open(
        &env.scope(),
        &journal,
        Arc::new(memory.clone()),
        Config { compaction: small.compaction, ..config() },
    )
    .await;
    assert_eq!(fold(&all(&last, partition).await), before, "crash {crash:?}");
    // The dead broker may hold the lease.
    let _ = last.compact().await;
    long_after().await;
    for _ in 0..8 {
        last.compact().await.expect("it compacts");
        assert_eq!(fold(&all(&last, partition).await), before, "crash {crash:?}");
    }
    assert_eq!(end(&last, partition), 9, "crash {crash:?}");
    long_after().await;
    nothing_is_orphaned(&last, &memory).unwrap_or_else(|orphans| panic!("crash {crash:?}: {orphans}"));
    polls
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_poll_leaves_a_log_that_means_the_same() {
    let polls = compact_and_die(None).await;
    assert!(polls > 20, "only {polls} polls");
    for crash in 1..polls {
        compact_and_die(Some(crash)).await;
    }
}
