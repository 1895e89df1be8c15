//! How far a view is behind, and why.

use std::{sync::atomic::Ordering, time::Duration};

use floe_env::{Env, lock};
use floe_log::{Below, Offset, PartitionId};
use tokio::time::sleep;

use crate::{
    counting::Counts,
    metrics::Metrics,
    world::{Ground, writer},
};

#[tokio::test(start_paused = true)]
async fn lag_is_what_gathers_and_is_gone_with_the_commit() {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let broker = Ground::default().broker(Env::simulated(1)).await;
    *lock(&broker.knobs.freshness) = Duration::from_secs(60);
    let topic = broker.topic("t", 2).await;
    broker.produce(&topic, 0, &["a", "b", "c"]).await;
    broker.produce(&topic, 1, &["d", "e"]).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(broker.status(&topic).expect("the view runs").lag, 5);
    assert_eq!(metrics.gauge("test_lag_records", "t"), Some(5.0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(broker.counts(&topic, 0), Counts { records: 3, bytes: 3 });
    let status = broker.status(&topic).expect("the view runs");
    assert_eq!((status.name.as_str(), status.lag, status.error), ("t", 0, None));
    assert_eq!(metrics.gauge("test_lag_records", "t"), Some(0.0));
    assert_eq!(metrics.counter("test_commits_total", "t"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_shows_since_when_until_it_is_over() {
    let env = Env::simulated(2);
    let broker = Ground::default().broker(env.clone()).await;
    let topic = broker.topic("t", 1).await;
    broker.knobs.fails.store(true, Ordering::SeqCst);
    let begun = env.now();
    broker.produce(&topic, 0, &["a"]).await;
    sleep(Duration::from_secs(60)).await;
    let status = broker.status(&topic).expect("the view runs");
    let (error, since) = status.error.expect("it fails");
    assert_eq!((error.as_str(), status.lag), ("planted", 1));
    assert!(since.since(begun) < Duration::from_secs(1), "the first failure counts: {since} after {begun}");
    sleep(Duration::from_secs(60)).await;
    let still = broker.status(&topic).expect("the view runs").error.expect("it fails");
    assert_eq!(still, (error, since));
    broker.knobs.fails.store(false, Ordering::SeqCst);
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    let status = broker.status(&topic).expect("the view runs");
    assert_eq!((status.lag, status.error), (0, None));
    broker.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_were_deleted_unread_are_counted() {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let broker = Ground::default().broker(Env::simulated(3)).await;
    *lock(&broker.knobs.freshness) = Duration::from_secs(60);
    let topic = broker.topic("t", 1).await;
    broker.produce(&topic, 0, &["a"]).await;
    broker.produce(&topic, 0, &["b"]).await;
    broker.produce(&topic, 0, &["cc"]).await;
    let below = Below { partition: PartitionId::new(topic.id, 0), offset: Some(Offset(2)) };
    assert_eq!(broker.log.delete_records(&writer(), &[below]).await, [Ok(Offset(2))]);
    broker.knobs.fails.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    let status = broker.status(&topic).expect("the view runs");
    assert_eq!((status.lag, status.lost), (1, 0), "steps that fail lose nothing");
    broker.knobs.fails.store(false, Ordering::SeqCst);
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0), Counts { records: 1, bytes: 2 });
    assert_eq!(metrics.counter("test_lost_records_total", "t"), 2);
    assert_eq!(broker.status(&topic).expect("the view runs").lost, 2);
    // Everything that there is.
    broker.produce(&topic, 0, &["d"]).await;
    let all = Below { offset: None, ..below };
    assert_eq!(broker.log.delete_records(&writer(), &[all]).await, [Ok(Offset(4))]);
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    let status = broker.status(&topic).expect("the view runs");
    assert_eq!((status.lag, status.lost, status.error), (0, 3, None));
}
