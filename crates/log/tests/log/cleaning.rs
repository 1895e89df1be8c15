//! The cleaner when its broker dies at any moment and its deletions fail. It deletes nothing that is needed, and
//! leaves nothing useless behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floe_env::Env;
use floe_log::Times;
use floe_log::leases::end_former_leases;
use floe_log::object::{ObjectLease, Trash, object_key};
use floe_log::{Append, Config};
use floe_log::{ObjectId, PartitionId};
use floe_meta::lease::Lease;
use floe_meta::{Envelope, Journal, Lsn, MemoryJournal, Meta, Options, Tx};
use floe_store::MemoryStore;
use floe_store::Store;
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::faults::{long_after, nothing_is_orphaned};
use crate::world::{append, batch, config, open, request, topic, values, writer};

/// A log that cleans only when told to.
fn told() -> Config {
    Config { times: Times { cleaner_pause: Duration::from_secs(1_000_000), ..config().times }, ..config() }
}

/// Leaves the objects of a killed broker: one shared by a deleted and a living topic, one of the deleted topic
/// alone, one that nobody committed, and leased ids. Returns the partition that stays.
async fn leave(env: &Env, journal: &Arc<dyn Journal>, memory: &MemoryStore) -> PartitionId {
    let log = open(env, journal, Arc::new(memory.clone()), told()).await;
    let partition = |topic: floe_log::topic::Topic| PartitionId::new(topic.id, 0);
    let (kept, gone) = (partition(topic(&log, "kept", 1).await), partition(topic(&log, "gone", 1).await));
    let both = vec![(kept, batch(&["kept"])), (gone, batch(&["gone"]))];
    for answer in log.append(Append { writer: writer(), batches: both }).await {
        answer.expect("appended");
    }
    append(&log, gone, &["gone"]).await.expect("appended");
    log.upload(request(kept, &["never committed"])).await.expect("uploaded");
    log.delete_topic(&writer(), gone.topic).await.expect("deleted");
    env.abort_all();
    kept
}

/// The broker dies while the clock is years ahead, and then the clock is put right. Its leases end and its trash is
/// deleted as if nothing had been wrong with the clock.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_right_keeps_no_lease_and_no_trash() {
    let env = Env::simulated(3);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    env.set_wall_clock_ahead(10 * 365 * 86_400_000);
    let kept = leave(&env.scope(), &journal, &memory).await;
    env.set_wall_clock_ahead(0);
    let last = open(&env.scope(), &journal, Arc::new(memory.clone()), config()).await;
    long_after().await;
    nothing_is_orphaned(&last, &memory).expect("all is cleaned");
    assert_eq!(values(&last, kept).await, [(0, "kept".into())]);
}

/// A clock that jumps ahead ends no lease of a living process.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_ends_no_lease() {
    let env = Env::simulated(4);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let first = open(&env.scope(), &journal, Arc::new(memory.clone()), config()).await;
    let second = open(&env.scope(), &journal, Arc::new(memory), config()).await;
    let partition = PartitionId::new(topic(&first, "t", 1).await.id, 0);
    append(&first, partition, &["before"]).await.expect("appended");
    let leases = || {
        first
            .meta()
            .snapshot()
            .range::<ObjectLease>(..)
            .map(|pair| pair.expect("readable").0)
            .collect::<Vec<_>>()
    };
    let before = leases();
    for hours in 1..20 {
        env.set_wall_clock_ahead(hours * 3_600_000);
        tokio::time::sleep(config().times.cleaner_pause).await;
    }
    assert!(
        !before.is_empty() && before.iter().all(|first| leases().contains(first)),
        "{before:?} {:?}",
        leases()
    );
    append(&first, partition, &["after"]).await.expect("appended");
    drop(second);
}

/// The one process of a data directory ends the leases of the process before at its start.
#[tokio::test(start_paused = true)]
async fn leases_of_the_former_process_end_at_once_where_no_other_can_live() {
    let env = Env::simulated(5);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let kept = leave(&env.scope(), &journal, &memory).await;
    let meta = Meta::open(env.scope(), Arc::clone(&journal), Options::default()).await.expect("it opens");
    assert!(end_former_leases(&meta).await.expect("ended") >= 2, "of the cleaner, and of object ids");
    let snapshot = meta.snapshot();
    assert_eq!(snapshot.range::<ObjectLease>(..).count(), 0);
    let held = snapshot.range::<Lease>(..).filter(|pair| pair.as_ref().expect("readable").1.owner.is_some());
    assert_eq!(held.count(), 0);
    assert_eq!(end_former_leases(&meta).await.expect("ended"), 0);
    let last = open(&env.scope(), &journal, Arc::new(memory.clone()), config()).await;
    long_after().await;
    nothing_is_orphaned(&last, &memory).expect("all is cleaned");
    assert_eq!(values(&last, kept).await, [(0, "kept".into())]);
}

/// Runs three rounds of a cleaner that dies at its `crash`th poll. `plan` decides how its deletions end. Returns
/// the number of polls.
async fn clean(
    seed: u64,
    crash: Option<u64>,
    plan: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static,
) -> u64 {
    let env = Env::simulated(seed);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let kept = leave(&env.scope(), &journal, &memory).await;
    let times = told().times;
    // Long enough for the leases of the dead broker to expire.
    tokio::time::sleep(times.lease_ttl * 2).await;

    let broker = env.scope();
    let store: Arc<dyn Store> =
        Arc::new(FaultyStore::new(memory.clone(), plan).with_latency(Duration::from_millis(1)));
    let log = open(&broker, &journal, store, told()).await;
    let before = broker.polls();
    broker.crash_at_poll(before + crash.unwrap_or(u64::MAX - before));
    let cleaner = log.clone();
    let rounds = broker.spawn("rounds", async move {
        // The first round ends the leases, which makes trash. The others find it old enough.
        for _ in 0..3 {
            let _ = cleaner.clean().await;
            tokio::time::sleep(times.trash_grace * 2).await;
        }
    });
    tokio::select! {
        biased;
        () = broker.crashed() => {}
        ended = rounds => ended.expect("the cleaner does not panic"),
    }
    let polls = broker.polls() - before;
    broker.abort_all();

    let last = open(&env.scope(), &journal, Arc::new(memory.clone()), config()).await;
    long_after().await;
    if let Err(orphans) = nothing_is_orphaned(&last, &memory) {
        panic!("crash {crash:?}: {orphans}");
    }
    assert_eq!(values(&last, kept).await, [(0, "kept".into())], "crash {crash:?}");
    polls
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_poll_of_the_cleaner_leaves_nothing_behind() {
    let polls = clean(1, None, |_, _| Fault::None).await;
    assert!(polls > 20, "only {polls} polls");
    for crash in 1..polls {
        clean(1, Some(crash), |_, _| Fault::None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_that_fail_are_made_again() {
    for fault in
        [Fault::Refused, Fault::LostRequest, Fault::LostAnswer, Fault::Slow(Duration::from_secs(300))]
    {
        for good in 0..4 {
            // One deletion succeeds; all others fail while this broker lives.
            let deletions = AtomicUsize::new(0);
            let plan = move |operation, _: &str| match operation {
                Operation::Delete if deletions.fetch_add(1, Ordering::SeqCst) != good => fault,
                _ => Fault::None,
            };
            clean(2, None, plan).await;
        }
    }
}

/// A clock that jumps ahead does not end the grace of objects that a reader may still need.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_ends_no_grace() {
    let env = Env::simulated(6);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let log = open(&env, &journal, Arc::new(memory.clone()), config()).await;
    let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
    append(&log, partition, &["read by somebody"]).await.expect("appended");
    log.delete_topic(&writer(), partition.topic).await.expect("deleted");
    let times = config().times;
    tokio::time::sleep(times.cleaner_pause * 2).await;
    env.set_wall_clock_ahead(365 * 86_400_000);
    tokio::time::sleep(times.trash_grace - times.cleaner_pause * 4).await;
    assert_eq!(memory.keys().len(), 1, "its grace is not over");
    tokio::time::sleep(times.trash_grace).await;
    assert_eq!(memory.keys(), Vec::<String>::new());
}

/// A broker that is killed again and again within the grace period deletes what fell before its start.
#[tokio::test(start_paused = true)]
async fn what_fell_before_the_start_of_the_only_broker_needs_no_grace() {
    let env = Env::simulated(8);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let life = env.scope();
    let log = open(&life, &journal, Arc::new(memory.clone()), config()).await;
    let partition = PartitionId::new(topic(&log, "t", 1).await.id, 0);
    append(&log, partition, &["read by somebody"]).await.expect("appended");
    log.delete_topic(&writer(), partition.topic).await.expect("deleted");
    let times = config().times;
    tokio::time::sleep(times.cleaner_pause * 4).await;
    assert_eq!(memory.keys().len(), 1, "a reader of this process may need it");
    life.abort_all();
    for sole in [false, true] {
        let life = env.scope();
        let config = floe_log::Config { sole, ..config() };
        let _log = open(&life, &journal, Arc::new(memory.clone()), config).await;
        tokio::time::sleep(times.cleaner_lease + times.cleaner_pause * 4).await;
        // Beside other brokers, whose readers may live on, it stays.
        assert_eq!(memory.keys().is_empty(), sole, "{:?}", memory.keys());
        life.abort_all();
    }
}

/// Objects that cannot be deleted do not keep a round from the others.
#[tokio::test(start_paused = true)]
async fn trash_that_stays_does_not_keep_the_rest() {
    let (per_round, first) = (floe_log::limits::TRASH_PER_ROUND as u64, 1_000_000);
    let env = Env::simulated(7);
    let (journal, memory): (Arc<dyn Journal>, _) = (Arc::new(MemoryJournal::new()), MemoryStore::new());
    let stuck = first + per_round;
    let plan = move |operation, key: &str| match operation {
        Operation::Delete if *key < *object_key(ObjectId(stuck)) => Fault::Refused,
        _ => Fault::None,
    };
    let log = open(&env, &journal, Arc::new(FaultyStore::new(memory.clone(), plan)), told()).await;
    for chunk in 0..12 {
        let trash = move |tx: &mut Tx<'_>| {
            for id in 0..per_round / 10 {
                let trash = Trash { since: tx.now(), size: 1, lsn: Lsn(0) };
                tx.put(&ObjectId(first + chunk * (per_round / 10) + id), &trash);
            }
            Ok::<_, std::convert::Infallible>(())
        };
        log.meta().commit(Envelope::broker("test"), trash).await.expect("committed");
    }
    for _ in 0..3 {
        log.clean().await.expect("cleaned");
        tokio::time::sleep(told().times.trash_grace * 2).await;
    }
    let left =
        log.meta().snapshot().range::<Trash>(..).map(|pair| pair.expect("readable").0).collect::<Vec<_>>();
    assert_eq!((left.len() as u64, left.last()), (per_round, Some(&ObjectId(stuck - 1))));
}
