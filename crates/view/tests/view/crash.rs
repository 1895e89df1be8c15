//! Crashes: after every poll of a broker's tasks once, and at random.

use std::time::Duration;

use floe_env::Env;
use floe_log::topic::{self, Topic};
use tokio::time::sleep;

use crate::world::{Broker, Ground};

/// What a broker does in its life. Every value is different and some are bad.
async fn live(broker: &Broker, life: u32) -> Topic {
    let known = topic::by_name(&broker.log.meta().snapshot(), "t").expect("the metadata can be read");
    let topic = match known {
        Some(topic) => topic,
        None => broker.topic("t", 2).await,
    };
    for n in 0..4_u32 {
        let kind = if n == 1 { "bad" } else { "good" };
        let values = [format!("{kind} {}", "x".repeat(n as usize)), format!("life {life}")];
        broker.produce(&topic, n % 2, &values).await;
        sleep(Duration::from_millis(40)).await;
    }
    broker.settled(&topic).await;
    topic
}

/// Two brokers that crash after `poll` polls, then one that does not; all over the same ground.
async fn crash_and_go_on(seed: u64, poll: u64) -> u64 {
    let ground = Ground::default();
    let world = Env::simulated(seed);
    for life in 0..2 {
        let env = world.scope();
        env.crash_at_poll(poll);
        let broker = ground.broker(env.clone());
        let work = async {
            let broker = broker.await;
            live(&broker, life).await;
            broker
        };
        tokio::select! {
            biased;
            () = env.crashed() => {}
            _ = work => {}
            () = sleep(Duration::from_secs(600)) => {}
        }
        env.abort_all();
    }
    let env = world.scope();
    let broker = ground.broker(env.clone()).await;
    let topic = live(&broker, 2).await;
    broker.check_every_moment(&topic).await;
    broker.check_letters(&topic).await;
    env.polls()
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_poll_counts_nothing_twice_and_forgets_nothing() {
    let polls = crash_and_go_on(1, u64::MAX).await;
    assert!(polls > 20, "{polls} polls");
    for poll in 1..polls + polls / 4 {
        crash_and_go_on(1, poll).await;
    }
}

#[tokio::test(start_paused = true)]
async fn crashes_under_many_seeds() {
    for seed in 2..40 {
        crash_and_go_on(seed, 1 + seed * 37 % 80).await;
    }
}
