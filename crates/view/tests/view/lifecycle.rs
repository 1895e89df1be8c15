//! Topics that come, change and go, and views that end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use floe_env::{Env, lock};
use floe_meta::lease::Lease;
use floe_view::{Config, Progress, Views, limits::SUPERVISE_INTERVAL, progress_of};
use tokio::time::sleep;

use crate::{
    counting::{Counting, Counts, Knobs},
    world::{COUNTED, Ground, writer},
};

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_takes_its_view_along() {
    let broker = Ground::default().broker(Env::simulated(1)).await;
    let topic = broker.topic("t", 2).await;
    broker.produce(&topic, 0, &["one"]).await;
    broker.produce(&topic, 1, &["two"]).await;
    broker.settled(&topic).await;
    broker.log.delete_topic(&writer(), topic.id).await.expect("it is deleted");
    let again = broker.topic("t", 2).await;
    broker.produce(&again, 0, &["three"]).await;
    broker.settled(&again).await;
    assert_eq!(broker.counts(&again, 0), Counts { records: 1, bytes: 5 }, "it begins anew");

    let snapshot = broker.log.meta().snapshot();
    let of = |topic: &floe_log::topic::Topic| {
        let counts = topic.partition_ids().filter(|p| snapshot.get::<Counts<200>>(p).unwrap().is_some());
        (counts.count(), broker.progress(topic).len(), broker.lease(topic).is_some())
    };
    assert_eq!((of(&topic), of(&again)), ((0, 0, false), (1, 1, true)));
    assert_eq!(broker.status(&topic), None);
    assert!(broker.status(&again).is_some());
    broker.check_every_moment(&again).await;
}

/// The view of a topic that comes back goes on from its progress, whoever owned it, and under whatever name.
#[tokio::test(start_paused = true)]
async fn a_topic_that_comes_back_has_its_view_as_it_was() {
    let (ground, world) = (Ground::default(), Env::simulated(12));
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1).await;
    first.configure(&topic, &[COUNTED, ("floe.trash.ms", "3600000")]).await;
    let which = || floe_log::deleted::Which::Name("t".to_owned());
    for round in 1..4 {
        first.produce(&topic, 0, &["one"]).await;
        if round != 2 {
            first.settled(&topic).await;
        }
        first.log.delete_topic(&writer(), topic.id).await.expect("it is deleted");
        if round != 3 {
            // Long enough for the supervisor to see it. In the last round it sees nothing.
            sleep(SUPERVISE_INTERVAL * 3).await;
            assert_eq!(first.status(&topic), None);
        }
        assert!(first.lease(&topic).is_some(), "its view stays");
        first.log.undelete_topic(&writer(), which(), None).await.expect("it is there");
        first.settled(&topic).await;
        assert_eq!(first.counts(&topic, 0), Counts { records: round, bytes: 3 * round });
    }
    first.produce(&topic, 0, &["one"]).await;
    first.log.delete_topic(&writer(), topic.id).await.expect("it is deleted");
    first.task.abort();
    let second = ground.broker(world.scope()).await;
    let again = second.topic("t", 1).await;
    second.produce(&again, 0, &["other"]).await;
    second.settled(&again).await;
    let back =
        second.log.undelete_topic(&writer(), which(), Some("u".to_owned())).await.expect("it is there");
    second.settled(&back).await;
    assert_eq!(second.counts(&back, 0), Counts { records: 4, bytes: 12 });
    assert_eq!(second.counts(&again, 0), Counts { records: 1, bytes: 5 });
    second.check_every_moment(&back).await;

    second.log.delete_topic(&writer(), back.id).await.expect("it is deleted");
    second.log.purge_topics(&writer(), floe_log::deleted::Which::All).await.expect("it is purged");
    sleep(SUPERVISE_INTERVAL * 3).await;
    assert_eq!((second.lease(&back), second.progress(&back).len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_while_nobody_runs_views_is_forgotten_by_the_next() {
    let (ground, world) = (Ground::default(), Env::simulated(2));
    let first = ground.broker(world.scope()).await;
    let topic = first.topic("t", 1).await;
    first.produce(&topic, 0, &["one"]).await;
    first.settled(&topic).await;
    first.task.abort();
    sleep(Duration::from_secs(1)).await;
    first.log.delete_topic(&writer(), topic.id).await.expect("it is deleted");
    sleep(Duration::from_secs(60)).await;
    assert!(first.lease(&topic).is_some(), "nobody cares for it");
    let second = ground.broker(world.scope()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((second.lease(&topic), second.progress(&topic).len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_switched_off_and_on_goes_on_where_it_was() {
    let broker = Ground::default().broker(Env::simulated(3)).await;
    let topic = broker.topic("t", 1).await;
    broker.produce(&topic, 0, &["one"]).await;
    broker.settled(&topic).await;
    broker.configure(&topic, &[]).await;
    broker.produce(&topic, 0, &["two"]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(broker.status(&topic), None);
    assert_eq!(broker.counts(&topic, 0), Counts { records: 1, bytes: 3 });
    broker.configure(&topic, &[COUNTED]).await;
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0), Counts { records: 2, bytes: 6 });
    broker.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn a_view_that_panics_is_started_again_and_says_so() {
    let env = Env::simulated(4);
    let broker = Ground::default().broker(env.clone()).await;
    let topic = broker.topic("t", 1).await;
    broker.produce(&topic, 0, &["one"]).await;
    broker.settled(&topic).await;
    // So that the status can be seen before the next step reports.
    *lock(&broker.knobs.freshness) = Duration::from_secs(60);
    broker.knobs.panics.store(true, Ordering::SeqCst);
    broker.produce(&topic, 0, &["two"]).await;
    sleep(Duration::from_secs(60) + SUPERVISE_INTERVAL * 2).await;
    assert_eq!(env.panics().len(), 1);
    let status = broker.status(&topic).expect("the view runs");
    let (error, _) = status.error.expect("it says what happened");
    assert!(error.contains("ended unexpectedly"), "{error}");
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.status(&topic).expect("the view runs").error, None);
    broker.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn two_views_of_one_topic_keep_apart() {
    let env = Env::simulated(5);
    let broker = Ground::default().broker(env.clone()).await;
    let topic = broker.topic("t", 1).await;
    broker.produce(&topic, 0, &["one"]).await;
    broker.settled(&topic).await;
    let view = Counting::<202, 203> { knobs: Arc::<Knobs>::default() };
    let views = Views::new(env.clone(), broker.log.clone(), view, Config::default());
    drop(env.spawn("more views", views.run()));
    broker.produce(&topic, 0, &["two"]).await;
    sleep(Duration::from_secs(5)).await;
    let snapshot = broker.log.meta().snapshot();
    let partition = topic.partition_ids().next().expect("it has one");
    let other = snapshot.get::<Counts<202>>(&partition).unwrap();
    assert_eq!(other, Some(Counts { records: 2, bytes: 6 }));
    assert_eq!(progress_of::<Progress<203>>(&snapshot, topic.id).unwrap(), broker.progress(&topic));
    assert_eq!(broker.counts(&topic, 0), Counts { records: 2, bytes: 6 });
    let leases: Vec<String> = snapshot.range::<Lease>(..).map(|pair| pair.unwrap().0).collect();
    let of_views: Vec<&String> = leases.iter().filter(|name| name.starts_with("view/")).collect();
    assert_eq!(of_views, [&format!("view/counter/{}", topic.id), &format!("view/recounter/{}", topic.id)]);
    broker.check_every_moment(&topic).await;
}

/// The turn to compute bounds processors. A view that waits for the store does not have it.
#[tokio::test(start_paused = true)]
async fn views_that_wait_for_the_store_do_not_wait_for_each_other() {
    let broker = Ground::default().broker(Env::simulated(8)).await;
    *lock(&broker.knobs.prepare_time) = Duration::from_secs(60);
    let mut topics = Vec::new();
    for n in 0..6 {
        topics.push(broker.topic(&format!("t{n}"), 1).await);
    }
    for topic in &topics {
        broker.produce(topic, 0, &["one"]).await;
    }
    sleep(Duration::from_secs(70)).await;
    for topic in &topics {
        assert_eq!(broker.counts(topic, 0), Counts { records: 1, bytes: 3 }, "{}", topic.name);
    }
}
