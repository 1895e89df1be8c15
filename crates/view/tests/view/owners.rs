//! Two processes that want the same view.

use std::{sync::atomic::Ordering, time::Duration};

use floe_env::{Env, lock};
use floe_view::limits::LEASE_TTL;
use tokio::time::{Instant, sleep};

use crate::world::Ground;

#[tokio::test(start_paused = true)]
async fn a_second_process_takes_over_when_the_first_is_dead() {
    let (ground, world) = (Ground::default(), Env::simulated(1));
    let (first_env, second_env) = (world.scope(), world.scope());
    let first = ground.broker(first_env.clone()).await;
    let topic = first.topic("t", 2).await;
    first.produce(&topic, 0, &["value 0"]).await;
    first.settled(&topic).await;
    let commits = |broker: &crate::world::Broker| broker.knobs.commits.load(Ordering::SeqCst);
    let before = commits(&first);
    let second = ground.broker(second_env).await;
    for n in 1..10_u32 {
        first.produce(&topic, n % 2, &[format!("value {n}")]).await;
        sleep(Duration::from_millis(100)).await;
    }
    first.settled(&topic).await;
    assert!(commits(&first) > before && commits(&second) == 0, "the first one owns the view");
    first_env.abort_all();
    let before = commits(&first);
    for n in 10..20_u32 {
        second.produce(&topic, n % 2, &[format!("value {n}")]).await;
    }
    second.settled(&topic).await;
    assert!(commits(&first) == before && commits(&second) > 0, "the other took it over");
    second.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_for_dead_commits_nothing() {
    let (ground, world) = (Ground::default(), Env::simulated(2));
    let first = ground.broker(world.scope()).await;
    let second = ground.broker(world.scope()).await;
    // The first to run takes the lease and needs longer than it lasts. The second has it, but has not committed yet,
    // when the first comes with its commit.
    *lock(&first.knobs.prepare_time) = LEASE_TTL * 3 / 2;
    *lock(&second.knobs.prepare_time) = LEASE_TTL * 4 / 5;
    let topic = first.topic("t", 2).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(first.lease(&topic).expect("it is held").owner.as_deref(), Some(first.views.owner()));
    for n in 0..40_u32 {
        second.produce(&topic, n % 2, &[format!("value {n}")]).await;
        sleep(Duration::from_secs(1)).await;
    }
    second.settled(&topic).await;
    assert_eq!(first.knobs.commits.load(Ordering::SeqCst), 0, "the first is fenced");
    let lease = second.lease(&topic).expect("it is held");
    assert_eq!((lease.owner.as_deref(), lease.epoch), (Some(second.views.owner()), 2));
    second.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn leases_that_are_given_back_are_taken_at_once() {
    let (ground, world) = (Ground::default(), Env::simulated(3));
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1).await;
    first.produce(&topic, 0, &["one"]).await;
    first.settled(&topic).await;
    first.task.abort();
    first.views.release().await;
    assert_eq!(first.lease(&topic).expect("the record stays").owner, None);
    let second = ground.broker(world.scope()).await;
    second.produce(&topic, 0, &["two"]).await;
    let begun = Instant::now();
    second.settled(&topic).await;
    assert!(begun.elapsed() < LEASE_TTL / 2, "no lease had to expire: {:?}", begun.elapsed());
    second.check_every_moment(&topic).await;
}

/// The owner dies while the clock is a year ahead, and then the clock is put right. The lease is free all the same when
/// the other has seen no renewal for its time to live.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_right_freezes_no_lease() {
    const YEAR_MS: i64 = 365 * 86_400_000;
    let (ground, world) = (Ground::default(), Env::simulated(4));
    let (first_env, second_env) = (world.scope(), world.scope());
    world.set_wall_clock_ahead(YEAR_MS);
    let first = ground.broker(first_env.clone()).await;
    let topic = first.topic("t", 1).await;
    first.produce(&topic, 0, &["one"]).await;
    first.settled(&topic).await;
    first_env.abort_all();
    world.set_wall_clock_ahead(0);
    let second = ground.broker(second_env).await;
    second.produce(&topic, 0, &["two"]).await;
    let begun = Instant::now();
    second.settled(&topic).await;
    assert!(begun.elapsed() < LEASE_TTL * 2, "the lease was free after {:?}", begun.elapsed());
    // Its own renewals are seen while the time of commits stands still, so nobody takes it for dead.
    let third = ground.broker(world.scope()).await;
    for n in 0..100 {
        second.produce(&topic, 0, &[format!("value {n}")]).await;
        sleep(LEASE_TTL / 5).await;
    }
    second.settled(&topic).await;
    assert_eq!(third.knobs.commits.load(Ordering::SeqCst), 0, "the owner lives");
    second.check_every_moment(&topic).await;
}

/// A clock that jumps ahead takes no lease from its owner.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_takes_no_lease() {
    let (ground, world) = (Ground::default(), Env::simulated(5));
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1).await;
    first.produce(&topic, 0, &["one"]).await;
    first.settled(&topic).await;
    let second = ground.broker(world.scope()).await;
    for n in 1..20 {
        world.set_wall_clock_ahead(n * 3_600_000);
        first.produce(&topic, 0, &[format!("value {n}")]).await;
        sleep(Duration::from_secs(1)).await;
    }
    first.settled(&topic).await;
    assert_eq!(second.knobs.commits.load(Ordering::SeqCst), 0, "the owner lives");
}
