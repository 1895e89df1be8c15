//! Uploads that are slow, fail, or get lost, and brokers that crash at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_log::PartitionId;
use floe_log::object::{Object, ObjectKind, ObjectLease, Trash, object_key};
use floe_log::{Config, Log, sequencer::AppendError, walk::ReadError};
use floe_meta::{Commit, Entry, Journal, JournalError, Loaded, Lsn, MemoryJournal, Outcome};
use floe_store::MemoryStore;
use floe_store::Store;
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::world::{append, batch, config, offset, open, request, topic, values, writer};

/// A store whose PUTs take a little time. `faults` maps the number of a PUT, counted from 0, to its fault.
fn faulty(inner: &MemoryStore, faults: impl IntoIterator<Item = (usize, Fault)>) -> Arc<FaultyStore> {
    let (faults, puts) = (faults.into_iter().collect::<BTreeMap<_, _>>(), AtomicUsize::new(0));
    let plan = move |operation, key: &str| match operation {
        Operation::Put if key.starts_with("wal/") => {
            faults.get(&puts.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Fault::None)
        }
        _ => Fault::None,
    };
    Arc::new(FaultyStore::new(inner.clone(), plan).with_latency(Duration::from_millis(1)))
}

/// A log whose objects close as soon as they have a request, and whose uploads overlap.
fn eager() -> Config {
    Config { linger: Some(Duration::from_millis(1)), uploads_max: Some(4), ..config() }
}

struct World {
    env: Env,
    journal: Arc<dyn Journal>,
    memory: MemoryStore,
    log: Log,
    partition: PartitionId,
}

async fn world(faults: impl IntoIterator<Item = (usize, Fault)>, config: Config) -> World {
    let env = Env::simulated(7);
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let memory = MemoryStore::new();
    let store = faulty(&memory, faults);
    let log = open(&env, &journal, store, config).await;
    let topic = topic(&log, "t", 1).await;
    World { env, journal, memory, log, partition: PartitionId::new(topic.id, 0) }
}

/// Sleeps until every lease has expired, including the cleaner's, the grace period is over, and the cleaner has
/// run.
pub(crate) async fn long_after() {
    let times = config().times;
    let leases = times.lease_ttl + times.cleaner_lease;
    tokio::time::sleep(leases + times.trash_grace + 10 * times.cleaner_pause).await;
}

/// Checks that the map refers to every object in the store, and that nothing waits for the cleaner.
pub(crate) fn nothing_is_orphaned(log: &Log, memory: &MemoryStore) -> Result<(), String> {
    let snapshot = log.meta().snapshot();
    let live: BTreeSet<String> =
        snapshot.range::<Object>(..).map(|pair| object_key(pair.expect("readable").0)).collect();
    let stored: BTreeSet<String> = memory.keys().into_iter().collect();
    if live != stored {
        return Err(format!("referenced {live:?}, stored {stored:?}"));
    }
    let trash: Vec<_> = snapshot.range::<Trash>(..).map(|pair| pair.expect("readable").0).collect();
    let leases =
        ObjectKind::ALL.map(|kind| snapshot.range::<ObjectLease>(kind.first()..=kind.last()).count());
    if !trash.is_empty() || leases.iter().any(|of_kind| *of_kind > 2) {
        return Err(format!("trash {trash:?}, {leases:?} leases"));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_visible_before_what_comes_before_it() {
    let world = world([(0, Fault::Slow(Duration::from_millis(500)))], eager()).await;
    let (log, partition) = (&world.log, world.partition);
    let slow = log.append(request(partition, &["slow"]));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut fast = log.append(request(partition, &["fast"]));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut fast).await;
    assert!(early.is_err(), "the later one is durable, but it must wait for the earlier");
    assert_eq!(world.memory.keys().len(), 1, "its upload did not wait");
    assert_eq!(values(log, partition).await, []);
    let (slow, fast) = (slow.await.remove(0), fast.await.remove(0));
    assert_eq!(slow.expect("appended").base_offset, offset(0));
    assert_eq!(fast.expect("appended").base_offset, offset(1));
    assert_eq!(values(log, partition).await, [(0, "slow".into()), (1, "fast".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_upload_takes_only_its_own_batches_along() {
    for fault in [Fault::Refused, Fault::Full, Fault::LostRequest, Fault::LostAnswer] {
        for failing in 0..4 {
            let world = world([(failing, fault)], eager()).await;
            let (log, partition) = (&world.log, world.partition);
            let mut tickets = Vec::new();
            for number in 0..4 {
                tickets.push(log.append(request(partition, &[&number.to_string()])));
                // Far enough apart for an object each, near enough for uploads to overlap.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let mut expected = Vec::new();
            for (number, ticket) in tickets.into_iter().enumerate() {
                match ticket.await.remove(0) {
                    Ok(appended) => {
                        assert_ne!(number, failing);
                        assert_eq!(appended.base_offset, offset(expected.len() as i64));
                        expected.push((appended.base_offset.0, number.to_string()));
                    }
                    // Never committed, so certainly not in the log, even when the outcome of the PUT is unknown.
                    Err(AppendError::Unavailable(_)) => assert_eq!(number, failing),
                    Err(other) => panic!("{fault:?}: {other}"),
                }
            }
            assert_eq!(values(log, partition).await, expected, "{fault:?} {failing}");
            append(log, partition, &["again"]).await.expect("service goes on");
            long_after().await;
            nothing_is_orphaned(log, &world.memory).expect("clean");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_says_whether_it_can_be_written() {
    let world = world([(0, Fault::Full), (2, Fault::Refused)], eager()).await;
    let (log, partition) = (&world.log, world.partition);
    assert_eq!(log.writable(), Ok(()), "nothing was tried yet");
    append(log, partition, &["a"]).await.expect_err("the store is full");
    let reason = log.writable().expect_err("the last one failed");
    assert!(reason.contains("planned"), "{reason}");
    append(log, partition, &["b"]).await.expect("there is room again");
    assert_eq!(log.writable(), Ok(()));
    append(log, partition, &["c"]).await.expect_err("refused");
    assert!(log.writable().is_err());
    // A caller that stopped sending because of the failure learns that it may try again.
    tokio::time::sleep(floe_log::limits::TROUBLE_TIME).await;
    assert_eq!(log.writable(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_commits_is_cleaned_away_and_one_that_is_committed_stays() {
    let world = world([], eager()).await;
    let (log, partition) = (&world.log, world.partition);
    let lost = log.upload(request(partition, &["lost"])).await.expect("uploaded");
    let kept = log.upload(request(partition, &["kept"])).await.expect("uploaded");
    assert_eq!(values(log, partition).await, []);
    let late = lost.clone();
    let sequence = move |uploaded: floe_log::sequencer::Uploaded| {
        log.meta().commit(floe_meta::Envelope::broker("test"), move |tx| {
            Ok::<_, std::convert::Infallible>(floe_log::sequencer::sequence(tx, &uploaded))
        })
    };
    let answers = sequence(kept).await.expect("committed").reply;
    assert_eq!(answers[0].as_ref().expect("appended").base_offset, offset(0));
    assert_eq!(values(log, partition).await, [(0, "kept".into())]);
    // The ids of the lease are used up, so only the detached uploads keep it.
    for _ in 0..8 {
        append(log, partition, &["x"]).await.expect("appended");
    }
    tokio::time::sleep(floe_log::limits::DETACHED_UPLOAD_TTL).await;
    append(log, partition, &["wakes the loop"]).await.expect("appended");
    long_after().await;
    nothing_is_orphaned(log, &world.memory).expect("clean");
    let answers = sequence(late).await.expect("answered").reply;
    assert!(matches!(answers[0], Err(AppendError::Unavailable(_))), "its lease is over: {answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_the_store_after_the_grace_period() {
    let world = world([], eager()).await;
    let (log, partition) = (&world.log, world.partition);
    append(log, partition, &["a"]).await.expect("appended");
    let before = log.meta().snapshot();
    log.delete_topic(&writer(), partition.topic).await.expect("deleted");
    tokio::time::sleep(config().times.trash_grace / 2).await;
    let read = log.read(&before, partition, offset(0), 100).await.expect("an old snapshot can still be read");
    assert_eq!(read.batches.len(), 1);
    long_after().await;
    assert!(world.memory.keys().is_empty());
    nothing_is_orphaned(log, &world.memory).expect("clean");
    assert!(matches!(append(log, partition, &["b"]).await, Err(AppendError::UnknownPartition)));
}

#[tokio::test(start_paused = true)]
async fn damage_is_named() {
    let world = world([], eager()).await;
    let (log, partition) = (&world.log, world.partition);
    append(log, partition, &["something"]).await.expect("appended");
    let key = world.memory.keys().remove(0);
    let whole = world.memory.get(&key, None).await.expect("there");
    let object = key.rsplit('/').next().expect("a key has parts").trim_start_matches('0').to_owned();
    let mut wrong = whole.to_vec();
    wrong[16 + 16] ^= 0xff; // the magic of the first batch
    for damage in [Some(whole.slice(..40)), Some(Bytes::from(wrong)), None] {
        match damage {
            Some(bytes) => world.memory.plant(&key, bytes),
            None => world.memory.delete(&key).await.expect("deleted"),
        }
        let fresh = open(&world.env.scope(), &world.journal, Arc::new(world.memory.clone()), config()).await;
        let read = fresh.read(&fresh.meta().snapshot(), partition, offset(0), 100).await;
        let named = format!("object {object}");
        assert!(matches!(&read, Err(ReadError::Corrupt(what)) if what.contains(&named)), "{read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_for_requests_is_bounded() {
    let config = Config { bytes_in_flight_max: 1000, ..config() };
    let world = world([(0, Fault::Slow(Duration::from_secs(1)))], config).await;
    let (log, partition) = (&world.log, world.partition);
    let permit = log.reserve(600).await;
    let minute = Duration::from_secs(60);
    assert!(tokio::time::timeout(minute, log.reserve(600)).await.is_err(), "there is no room for two");
    drop(permit);
    drop(tokio::time::timeout(minute, log.reserve(5000)).await.expect("larger than all: gets all"));
    // Appends without a reservation are refused at a multiple of the budget.
    let size = batch(&["x"]).len();
    let tickets: Vec<_> = (0..2000 / size + 1).map(|_| log.append(request(partition, &["x"]))).collect();
    let mut refused = 0;
    for ticket in tickets {
        refused += usize::from(matches!(ticket.await.remove(0), Err(AppendError::Unavailable(_))));
    }
    assert_eq!(refused, 1);
    append(log, partition, &["y"]).await.expect("room again");
}

#[tokio::test(start_paused = true)]
async fn large_requests_leave_half_of_the_memory_to_small_ones() {
    let config = Config { bytes_in_flight_max: 4 << 20, ..config() };
    let world = world([], config).await;
    let (log, minute) = (&world.log, Duration::from_secs(60));
    let large = log.reserve(3 << 19).await;
    assert!(tokio::time::timeout(minute, log.reserve(3 << 19)).await.is_err(), "no room for two");
    let small = (log.reserve(1 << 20).await, log.reserve(1 << 20).await);
    drop(large);
    drop(tokio::time::timeout(minute, log.reserve(2 << 20)).await.expect("room again"));
    drop(small);
}

/// A journal that commits nothing while its switch is on.
struct Stuck {
    inner: MemoryJournal,
    stuck: AtomicBool,
}

#[async_trait]
impl Journal for Stuck {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.inner.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        match self.stuck.load(Ordering::SeqCst) {
            true => Err(JournalError::NotApplied("planned".into())),
            false => self.inner.commit(expected, attempt, commits).await,
        }
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.inner.follow(from).await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.inner.history(from, count).await
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_does_not_commit_appends_are_refused_and_reads_go_on() {
    let env = Env::simulated(7);
    let stuck = Arc::new(Stuck { inner: MemoryJournal::new(), stuck: AtomicBool::new(false) });
    let journal: Arc<dyn Journal> = stuck.clone();
    let memory = MemoryStore::new();
    let log = open(&env, &journal, Arc::new(memory.clone()), eager()).await;
    let topic = topic(&log, "t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    append(&log, partition, &["before"]).await.expect("appended");
    stuck.stuck.store(true, Ordering::SeqCst);
    // More objects than leased ids, so in the end no object can even get an id.
    for _ in 0..8 {
        let refused = append(&log, partition, &["refused"]).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(values(&log, partition).await, [(0, "before".into())]);
    // Longer than the leases last.
    tokio::time::sleep(config().times.lease_ttl * 3).await;
    stuck.stuck.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    append(&log, partition, &["after"]).await.expect("service returns by itself");
    assert_eq!(values(&log, partition).await, [(0, "before".into()), (1, "after".into())]);
    long_after().await;
    append(&log, partition, &["later"]).await.expect("appended");
    long_after().await;
    nothing_is_orphaned(&log, &memory).expect("clean");
}

/// The promises of a run up to its crash.
#[derive(Default)]
struct Promised {
    acknowledged: BTreeMap<i64, String>,
    sent: BTreeSet<String>,
}

/// Two producers write until they finish or the broker crashes at its `crash`th poll. Returns the number of polls.
async fn run_and_crash(seed: u64, crash: Option<u64>) -> u64 {
    let env = Env::simulated(seed);
    let broker = env.scope();
    if let Some(poll) = crash {
        broker.crash_at_poll(poll);
    }
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let memory = MemoryStore::new();
    let promised = Arc::new(Mutex::new(Promised::default()));
    let faults = [(2, Fault::Slow(Duration::from_millis(7))), (5, Fault::LostAnswer), (7, Fault::Refused)];
    let store = faulty(&memory, faults);
    let life = live(&env, &broker, &journal, store, Arc::clone(&promised));
    tokio::select! {
        biased;
        () = broker.crashed() => {}
        () = life => {}
    }
    let polls = broker.polls();
    broker.abort_all();
    survivors(&env, &journal, &memory, &promised, crash).await;
    polls
}

async fn live(
    env: &Env,
    broker: &Env,
    journal: &Arc<dyn Journal>,
    store: Arc<FaultyStore>,
    promised: Arc<Mutex<Promised>>,
) {
    let log = open(broker, journal, store, eager()).await;
    let topic = topic(&log, "t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    let producers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let (log, promised) = (log.clone(), Arc::clone(&promised));
            env.spawn("producer", async move {
                for number in 0..6 {
                    let value = format!("{name}{number}");
                    promised.lock().expect("not poisoned").sent.insert(value.clone());
                    if let Ok(appended) = append(&log, partition, &[&value]).await {
                        let before = promised
                            .lock()
                            .expect("not poisoned")
                            .acknowledged
                            .insert(appended.base_offset.0, value);
                        assert_eq!(before, None, "an offset is given once");
                    }
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.expect("producers do not crash");
    }
    log.close().await;
}

/// Checks that acknowledged values are at their offsets, sent values are present at most once, nothing else is
/// present, and offsets have no gaps.
fn promises_are_kept(promised: &Promised, present: &[(i64, String)]) -> Result<(), String> {
    let by_offset: BTreeMap<i64, &String> = present.iter().map(|(offset, value)| (*offset, value)).collect();
    for (offset, value) in &promised.acknowledged {
        if by_offset.get(offset) != Some(&value) {
            return Err(format!("{value} was acknowledged at {offset} and is not there: {present:?}"));
        }
    }
    let distinct: BTreeSet<&String> = present.iter().map(|(_, value)| value).collect();
    if distinct.len() != present.len() {
        return Err(format!("something is there twice: {present:?}"));
    }
    if let Some(value) = distinct.into_iter().find(|value| !promised.sent.contains(*value)) {
        return Err(format!("{value} was never sent"));
    }
    if present.iter().enumerate().any(|(place, (offset, _))| place as i64 != *offset) {
        return Err(format!("offsets have gaps or are out of order: {present:?}"));
    }
    Ok(())
}

async fn survivors(
    env: &Env,
    journal: &Arc<dyn Journal>,
    memory: &MemoryStore,
    promised: &Mutex<Promised>,
    crash: Option<u64>,
) {
    let log = open(&env.scope(), journal, Arc::new(memory.clone()), config()).await;
    let found = floe_log::topic::by_name(&log.meta().snapshot(), "t").expect("readable");
    if let Some(topic) = found {
        let partition = PartitionId::new(topic.id, 0);
        let present = values(&log, partition).await;
        let kept = promises_are_kept(&promised.lock().expect("not poisoned"), &present);
        if let Err(broken) = kept {
            panic!("crash {crash:?}: {broken}");
        }
    }
    long_after().await;
    if let Err(orphans) = nothing_is_orphaned(&log, memory) {
        panic!("crash {crash:?}: {orphans}");
    }
    log.close().await;
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(future)
}

#[test]
fn after_a_crash_at_any_moment_what_was_acknowledged_is_there_once_and_nothing_is_orphaned() {
    for seed in 1..=4 {
        let polls = block_on(run_and_crash(seed, None));
        assert_eq!(polls, block_on(run_and_crash(seed, None)), "the same seed gives the same run");
        assert!(polls > 50, "the run has enough moments to crash at: {polls}");
        for crash in 1..=polls {
            block_on(run_and_crash(seed, Some(crash)));
        }
    }
}

/// The check above sees each kind of damage.
#[test]
fn a_broken_promise_is_seen() {
    let at = |pairs: &[(i64, &str)]| pairs.iter().map(|(o, v)| (*o, (*v).to_owned())).collect::<Vec<_>>();
    let promised = Promised {
        acknowledged: at(&[(0, "a"), (2, "c")]).into_iter().collect(),
        sent: ["a", "b", "c"].map(str::to_owned).into(),
    };
    promises_are_kept(&promised, &at(&[(0, "a"), (1, "b"), (2, "c")])).expect("kept");
    for broken in [
        &[(0, "a"), (1, "b")][..],       // lost
        &[(0, "a"), (1, "c"), (2, "b")], // moved
        &[(0, "a"), (1, "a"), (2, "c")], // twice
        &[(0, "a"), (1, "x"), (2, "c")], // invented
        &[(0, "a"), (2, "c")],           // a gap
        &[(0, "a"), (2, "c"), (1, "b")], // out of order
    ] {
        promises_are_kept(&promised, &at(broken)).expect_err("broken");
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_seen() {
    let world = world([], eager()).await;
    append(&world.log, world.partition, &["a"]).await.expect("appended");
    nothing_is_orphaned(&world.log, &world.memory).expect("clean");
    world.memory.plant("wal/1/00000000000000ff", Bytes::new());
    nothing_is_orphaned(&world.log, &world.memory).expect_err("planted");
    world.memory.delete("wal/1/00000000000000ff").await.expect("deleted");
    world.memory.delete(&world.memory.keys()[0]).await.expect("deleted");
    nothing_is_orphaned(&world.log, &world.memory).expect_err("missing");
}
