//! A full journal as the only fault: writers are refused and may retry, readers go on, and when there is room again
//! everything goes on.

use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_wire::ErrorCode;
use floe_wire::admin::{CreatableTopic, CreateTopicsRequest};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::journal::SimJournal;
use super::log_front::LogFront;
use super::plan::{Options, Plan};
use super::store::SimStore;
use super::weather::Weather;
use super::world::create_topics;
use crate::client::values::batch;
use crate::client::{Front, Harness, KafkaFront, Place, Sent};
use crate::trace::Trace;

const FROM: Duration = Duration::from_secs(5);
const TO: Duration = Duration::from_secs(25);

/// One broker that lives, over a store without faults.
fn cluster(env: &Env) -> Cluster {
    let plan = Plan {
        brokers: 1,
        crash_polls_max: None,
        harm: false,
        cuts: false,
        kafka: 1_000,
        table: false,
        retention: None,
        ..Plan::draw(env)
    };
    let trace = Trace::new(env, false);
    let store = SimStore::new(env, Weather::draw(env, TO, false), &trace, None);
    let journal = SimJournal::new(env, Weather::full_once(env, FROM, TO), &trace, None);
    Cluster::new(env, Options::seed(0), plan, store, journal, &trace)
}

/// Sends one record either way.
async fn send(
    cluster: &Cluster,
    env: &Env,
    ways: &mut (KafkaFront, LogFront),
    place: Place,
    value: &str,
) -> (Sent, Sent) {
    // Records of 1970 would be too old to be kept.
    let batch = |value: String| -> Bytes { batch(&cluster.dice(), env.now().0, &[value], None) };
    let (one, two) = (batch(format!("{value}-kafka")), batch(format!("{value}-log")));
    let one = ways.0.produce(vec![(place, one)]).await.pop().expect("an answer");
    let two = ways.1.produce(vec![(place, two)]).await.pop().expect("an answer");
    (one, two)
}

async fn create(way: &mut KafkaFront, name: &str) -> ErrorCode {
    let topic = CreatableTopic { name: name.to_owned(), num_partitions: 1, ..CreatableTopic::default() };
    let topic = CreatableTopic { replication_factor: -1, ..topic };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..CreateTopicsRequest::default() };
    let created = way.call(&request).await.expect("an answer");
    ErrorCode::from_number(created.topics[0].error_code)
}

async fn world(seed: u64) {
    let env = Env::simulated(seed);
    let begin = Instant::now();
    let cluster = cluster(&env);
    env.spawn("keeper", cluster.clone().keep());
    create_topics(&cluster).await;
    let place = Plan::places()[3];
    let mut ways = (cluster.dial(1).await, LogFront::new(&cluster, cluster.broker().await, 2));
    let sent = send(&cluster, &env, &mut ways, place, "before").await;
    assert_eq!(sent, (Sent::Appended(0), Sent::Appended(1)), "seed {seed}");
    assert!(begin.elapsed() < FROM, "seed {seed}: it began too late");

    for second in 1..10 {
        sleep_until(begin + FROM + Duration::from_secs(second)).await;
        let (kafka, log) = send(&cluster, &env, &mut ways, place, "none").await;
        let refused = |sent: &Sent| matches!(sent, Sent::NotApplied(_));
        assert!(refused(&kafka) && refused(&log), "seed {seed}: {kafka:?} {log:?}");
        assert!(create(&mut ways.0, "another").await.retriable(), "seed {seed}");
        for way in [&mut ways.0 as &mut dyn Front, &mut ways.1] {
            let read = way.fetch(place, 0).await.expect("reads go on");
            let values: Vec<&str> = read.records.iter().map(|(_, value)| value.as_str()).collect();
            assert_eq!((values, read.high_watermark), (vec!["before-kafka", "before-log"], 2), "seed {seed}");
        }
    }
    assert!(begin.elapsed() < TO, "seed {seed}: it took too long");

    sleep_until(begin + TO).await;
    let sent = send(&cluster, &env, &mut ways, place, "after").await;
    assert_eq!(sent, (Sent::Appended(2), Sent::Appended(3)), "seed {seed}");
    assert_eq!(create(&mut ways.0, "another").await, ErrorCode::None, "seed {seed}");
}

#[test]
fn a_full_journal_refuses_writes_and_nothing_else() {
    for seed in 0..10 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(world(seed));
    }
}
