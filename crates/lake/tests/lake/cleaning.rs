//! The cleaner when its broker crashes at any moment and its deletions fail. It never deletes a file that a table
//! needs, and leaves no other file behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use floe_env::Env;
use floe_lake::{Config, map::Garbage};
use floe_store::faulty::{Fault, FaultyStore, Operation};

use crate::world::{Broker, Ground, JSON, config, writer};

const GRACE: Duration = Duration::from_secs(30);
/// Until nobody waits for readers of a broker that is dead, and the living one has told which snapshots it uses.
const SESSIONS: Duration = Duration::from_secs(120);

/// Cleans only when a test says so.
fn told() -> Config {
    let never = Duration::from_secs(1_000_000);
    Config { snapshots_kept: 2, garbage_grace: GRACE, clean_interval: never, ..config() }
}

/// Leaves what a crashed broker leaves: a table with expired snapshots and replaced files, reserved file numbers, and
/// the table of a deleted topic.
async fn leave(ground: &Ground, env: Env) {
    let (store, journal) = (Arc::new(ground.store.clone()), Arc::new(ground.journal.clone()));
    let broker = Broker::open_with(env.clone(), store, journal, told()).await;
    let (kept, gone) = (broker.topic("kept", 1, JSON).await, broker.topic("gone", 1, JSON).await);
    for value in ["{\"n\":1}", "{\"n\":0.5}", "{\"n\":2}"] {
        broker.produce(&kept, 0, &[value]).await;
        broker.produce(&gone, 0, &[value]).await;
        broker.settled("kept").await;
        broker.settled("gone").await;
    }
    broker.log.delete_topic(&writer(), gone.id).await.expect("deleted");
    // The supervisor drops the table.
    tokio::time::sleep(Duration::from_secs(20)).await;
    env.abort_all();
}

/// A cleaner that crashes at its poll number `crash`, and whose deletions end as `plan` says. Returns its polls.
async fn clean(
    seed: u64,
    crash: Option<u64>,
    plan: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static,
) -> u64 {
    let (ground, world) = (Ground::new(), Env::simulated(seed));
    leave(&ground, world.scope()).await;
    tokio::time::sleep(GRACE * 2).await;

    let broker_env = world.scope();
    let store = FaultyStore::new(ground.store.clone(), plan).with_latency(Duration::from_millis(1));
    let resting = Config { views: false, ..told() };
    let journal = Arc::new(ground.journal.clone());
    let broker = Broker::open_with(broker_env.clone(), Arc::new(store), journal, resting).await;
    let before = broker_env.polls();
    broker_env.crash_at_poll(before + crash.unwrap_or(u64::MAX - before));
    let lake = broker.lake.clone();
    let rounds = broker_env.spawn("rounds", async move {
        for _ in 0..4 {
            let _ = lake.clean().await;
            // The grace of what a round finds begins with it.
            tokio::time::sleep(GRACE * 2).await;
        }
    });
    tokio::select! {
        biased;
        () = broker_env.crashed() => {}
        ended = rounds => ended.expect("the cleaner does not panic"),
    }
    let polls = broker_env.polls() - before;
    broker_env.abort_all();

    let eager = Config { clean_interval: Duration::from_secs(5), ..told() };
    let (store, journal) = (Arc::new(ground.store.clone()), Arc::new(ground.journal.clone()));
    let last = Broker::open_with(world.scope(), store, journal, eager).await;
    // The lease of the crashed cleaner, the grace of the garbage that the new owner finds, and a few rounds.
    tokio::time::sleep(GRACE * 4 + SESSIONS).await;
    let snapshot = last.log.meta().snapshot();
    let garbage: Vec<_> = snapshot.range::<Garbage>(..).map(|found| found.expect("readable").1).collect();
    assert!(garbage.is_empty(), "crash {crash:?}: {garbage:?}");
    last.check_no_orphans(&ground.store).await;
    let needed = last.lake.everything(&last.table("kept")).await.expect("all documents are there");
    let mut stored = ground.store.keys();
    stored.retain(|key| key.starts_with("lake/"));
    assert!(stored.iter().all(|key| needed.contains(key)), "crash {crash:?}: {stored:?}, needed {needed:?}");
    assert!(needed.iter().all(|key| stored.contains(key)), "crash {crash:?}: {stored:?}, needed {needed:?}");
    last.check_every_snapshot("kept").await;
    polls
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_polls_of_the_cleaner_leaves_nothing_behind() {
    let polls = clean(1, None, |_, _| Fault::None).await;
    assert!(polls > 20, "only {polls} polls");
    for crash in (1..polls).step_by(20) {
        clean(1, Some(crash), |_, _| Fault::None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_that_fail_are_made_again() {
    for fault in [Fault::Refused, Fault::LostRequest, Fault::LostAnswer] {
        for failing in (0..40).step_by(5) {
            // One deletion fails, at a different place in each run.
            let deletions = AtomicU64::new(0);
            let plan = move |operation, _: &str| match operation {
                Operation::Delete if deletions.fetch_add(1, Ordering::SeqCst) == failing => fault,
                _ => Fault::None,
            };
            clean(2, None, plan).await;
        }
    }
}

/// A clock that jumps ahead does not end the grace of files that a reader may still need.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_ends_no_grace() {
    let (ground, world) = (Ground::new(), Env::simulated(3));
    leave(&ground, world.scope()).await;
    let resting = Config { views: false, ..told() };
    let (store, journal) = (Arc::new(ground.store.clone()), Arc::new(ground.journal.clone()));
    let broker = Broker::open_with(world.scope(), store, journal, resting).await;
    let files = || ground.store.keys().into_iter().filter(|key| key.starts_with("lake/")).collect::<Vec<_>>();
    let before = files();
    assert_eq!(broker.lake.clean().await.expect("cleaned"), 0);
    world.set_wall_clock_ahead(365 * 86_400_000);
    tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
    assert_eq!(broker.lake.clean().await.expect("cleaned"), 0);
    assert_eq!(files(), before);
    tokio::time::sleep(Duration::from_secs(1) + SESSIONS).await;
    assert!(
        broker.lake.clean().await.expect("cleaned") > 0,
        "the grace ends by the clock that does not jump"
    );
    assert!(files().len() < before.len());
}
