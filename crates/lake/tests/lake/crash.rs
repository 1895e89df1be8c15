//! Crashes after every poll of a broker's tasks, and at random. What was committed is right, and the next broker goes
//! on from there.

use std::time::Duration;

use floe_env::Env;
use floe_lake::Config;
use floe_log::topic;

use crate::world::{Broker, Ground, JSON, config};

/// What a broker does in its life: some records, some of them bad, and a column that becomes double.
async fn live(broker: &Broker, life: u32) {
    let snapshot = broker.log.meta().snapshot();
    let topic = match topic::by_name(&snapshot, "t").expect("the metadata can be read") {
        Some(topic) => topic,
        None => broker.topic("t", 2, JSON).await,
    };
    for n in 0..4_u32 {
        let value = match (life, n) {
            (_, 1) => "bad".to_owned(),
            (1, 2) => "{\"n\":0.5}".to_owned(),
            _ => format!("{{\"n\":{n},\"life\":{life}}}"),
        };
        broker.produce(&topic, n % 2, &[value]).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    broker.settled("t").await;
}

/// A broker that crashes after `poll` polls, then one that does not; both over the same ground.
async fn crash_and_go_on(seed: u64, poll: u64) -> u64 {
    crash_and_go_on_with(seed, poll, config()).await
}

async fn crash_and_go_on_with(seed: u64, poll: u64, lake: Config) -> u64 {
    let ground = Ground::new();
    let world = Env::simulated(seed);
    for life in 0..2 {
        let env = world.scope();
        env.crash_at_poll(poll);
        let broker = ground.broker_with(env.clone(), lake);
        let work = async {
            let broker = broker.await;
            live(&broker, life).await;
            broker
        };
        tokio::select! {
            biased;
            () = env.crashed() => {}
            _ = work => {}
            () = tokio::time::sleep(Duration::from_secs(600)) => {}
        }
        env.abort_all();
    }
    let env = world.scope();
    let broker = ground.broker_with(env.clone(), lake).await;
    live(&broker, 2).await;
    broker.jobs_done().await;
    broker.check_every_snapshot("t").await;
    broker.check_no_orphans(&ground.store).await;
    check_letters(&broker).await;
    env.polls()
}

/// Each bad record is a dead letter, once.
async fn check_letters(broker: &Broker) {
    let table = broker.table("t");
    let records = broker.records(&table.topic).await;
    let bad = records.values().filter(|value| *value == "bad").count();
    let letters = topic::by_name(&broker.log.meta().snapshot(), "t.dead-letter").expect("it can be read");
    let letters = broker.records(&letters.expect("some record was bad")).await;
    assert_eq!((letters.len(), table.bad_records), (bad, bad as u64), "dead letters");
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_poll_loses_and_doubles_nothing() {
    let polls = crash_and_go_on(1, u64::MAX).await;
    assert!(polls > 20, "{polls} polls");
    for poll in 1..polls + polls / 4 {
        crash_and_go_on(1, poll).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_a_job_rewrites_the_table_loses_and_doubles_nothing() {
    let lake = Config { step_rewrite_bytes: 0, ..config() };
    let polls = crash_and_go_on_with(1, u64::MAX, lake).await;
    for poll in 1..polls + polls / 4 {
        crash_and_go_on_with(1, poll, lake).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_small_files_are_merged_loses_and_doubles_nothing() {
    let lake = Config { merge_files: 2, ..config() };
    let polls = crash_and_go_on_with(1, u64::MAX, lake).await;
    for poll in 1..polls + polls / 4 {
        crash_and_go_on_with(1, poll, lake).await;
    }
}

#[tokio::test(start_paused = true)]
async fn crashes_under_many_seeds() {
    for seed in 2..30 {
        crash_and_go_on(seed, 1 + seed * 37 % 80).await;
    }
}
