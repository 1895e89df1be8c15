//! Background work: pieces beside the steps, adopted between them.

use std::{sync::atomic::Ordering, time::Duration};

use floe_env::{Env, lock};
use floe_view::limits::LEASE_TTL;
use tokio::time::sleep;

use crate::{
    counting::Counts,
    world::{Broker, Ground},
};

/// Says that there are pieces, and wakes the runner.
async fn give_work(broker: &Broker, topic: &floe_log::topic::Topic, pieces: u64, each: Duration) {
    *lock(&broker.knobs.piece_time) = each;
    broker.knobs.pieces_left.store(pieces, Ordering::SeqCst);
    broker.produce(topic, 0, &["work"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_view_stays_fresh_while_a_job_works() {
    let broker = Ground::default().broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 1).await;
    broker.settled(&topic).await;
    give_work(&broker, &topic, 3, Duration::from_secs(20)).await;
    for second in 1..=90 {
        sleep(Duration::from_secs(1)).await;
        let counted = broker.counts(&topic, 0).records;
        assert_eq!(counted, second, "after {second} seconds of work");
        let left = broker.knobs.pieces_left.load(Ordering::SeqCst);
        assert_eq!(broker.status(&topic).expect("it runs").job, (left > 0).then_some("count down"));
        broker.produce(&topic, 0, &["more"]).await;
    }
    assert_eq!(broker.knobs.pieces_left.load(Ordering::SeqCst), 0);
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0), Counts { records: 91, bytes: 91 * 4 });
    broker.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_is_done_does_not_wait_for_the_records_that_gather() {
    let broker = Ground::default().broker(Env::simulated(2)).await;
    let topic = broker.topic("t", 1).await;
    broker.settled(&topic).await;
    *lock(&broker.knobs.freshness) = Duration::from_secs(3_600);
    give_work(&broker, &topic, 3, Duration::from_secs(20)).await;
    sleep(Duration::from_secs(70)).await;
    assert_eq!(broker.counts(&topic, 0).records, 0, "the records gather");
    assert_eq!(broker.knobs.pieces_left.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_fails_holds_up_nothing_and_begins_anew() {
    let broker = Ground::default().broker(Env::simulated(3)).await;
    let topic = broker.topic("t", 1).await;
    broker.settled(&topic).await;
    broker.knobs.piece_fails.store(true, Ordering::SeqCst);
    give_work(&broker, &topic, 2, Duration::from_secs(1)).await;
    let mut failed = 0;
    for _ in 0..100 {
        broker.settled(&topic).await;
        let status = broker.status(&topic).expect("it runs");
        assert_eq!(status.error, None);
        failed += u32::from(status.job_error.is_some_and(|(why, _)| why.contains("planted")));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(failed > 0, "the status says why the piece failed");
    assert_eq!(broker.status(&topic).expect("it runs").job_error, None, "and only while it does");
    assert_eq!(broker.knobs.pieces_left.load(Ordering::SeqCst), 0);
}

/// A runner that is woken for nothing, again and again, keeps the clock of this test from going on.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_wanted_no_more_after_a_failure_wakes_nobody() {
    let broker = Ground::default().broker(Env::simulated(6)).await;
    let topic = broker.topic("t", 1).await;
    broker.settled(&topic).await;
    broker.knobs.piece_fails.store(true, Ordering::SeqCst);
    give_work(&broker, &topic, 1, Duration::from_secs(1)).await;
    while broker.status(&topic).expect("it runs").job_error.is_none() {
        sleep(Duration::from_millis(10)).await;
    }
    broker.knobs.pieces_left.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(3_600)).await;
    broker.produce(&topic, 0, &["more"]).await;
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0).records, 2);
}

#[tokio::test(start_paused = true)]
async fn a_piece_without_a_command_makes_no_commit() {
    let broker = Ground::default().broker(Env::simulated(5)).await;
    let topic = broker.topic("t", 1).await;
    broker.settled(&topic).await;
    broker.knobs.pieces_publish_nothing.store(true, Ordering::SeqCst);
    give_work(&broker, &topic, 5, Duration::from_millis(1)).await;
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.knobs.pieces_left.load(Ordering::SeqCst), 0, "each was adopted");
    assert_eq!(broker.knobs.commits.load(Ordering::SeqCst), 1, "that of the record");
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_a_piece_works() {
    let (ground, world) = (Ground::default(), Env::simulated(4));
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1).await;
    first.settled(&topic).await;
    give_work(&first, &topic, 1, LEASE_TTL * 5).await;
    first.settled(&topic).await;
    let owner = first.lease(&topic).expect("it is owned").owner;
    let second = ground.broker(world.scope()).await;
    sleep(LEASE_TTL * 4).await;
    assert_eq!(second.lease(&topic).expect("it is owned").owner, owner, "no other began the piece anew");
    sleep(LEASE_TTL * 2).await;
    assert_eq!(first.knobs.pieces_left.load(Ordering::SeqCst), 0);
}
