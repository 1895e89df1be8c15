//! A record that does not fit, under each rule.

use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, lock};
use floe_log::{
    Offset,
    codec::Compression,
    records::Builder,
    topic::{self, Topic},
};
use floe_view::BadRecordRule;
use tokio::time::sleep;

use crate::{
    counting::Counts,
    metrics::Metrics,
    world::{Broker, Ground},
};

/// A broker under a rule, and a topic with a bad record in the middle of a batch of its first partition.
async fn with_bad_record(rule: BadRecordRule) -> (Broker, Topic) {
    let broker = Ground::default().broker(Env::simulated(1)).await;
    *lock(&broker.knobs.rule) = rule;
    let topic = broker.topic("t", 2).await;
    broker.produce(&topic, 0, &["1", "22", "bad", "4444"]).await;
    broker.produce(&topic, 1, &["1"]).await;
    broker.produce(&topic, 0, &["55555"]).await;
    sleep(Duration::from_secs(10)).await;
    (broker, topic)
}

/// The dead letters of the topic `t`; none if the topic of dead letters was not made.
async fn letters(broker: &Broker) -> Option<Vec<Bytes>> {
    let letters = topic::by_name(&broker.log.meta().snapshot(), "t.dead-letter").expect("it can be read");
    Some(broker.values(&letters?).await.into_values().collect())
}

const ALL: Counts<200> = Counts { records: 4, bytes: 12 };

#[tokio::test(start_paused = true)]
async fn skip_counts_it_and_goes_on() {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let (broker, topic) = with_bad_record(BadRecordRule::Skip).await;
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0), ALL);
    assert_eq!(letters(&broker).await, None);
    assert_eq!(metrics.counter("test_bad_records_total", "t"), 1);
    broker.check_every_moment(&topic).await;
}

#[tokio::test(start_paused = true)]
async fn dead_letter_keeps_it_with_the_reason() {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let (broker, topic) = with_bad_record(BadRecordRule::DeadLetter).await;
    broker.settled(&topic).await;
    assert_eq!(broker.counts(&topic, 0), ALL);
    assert_eq!(metrics.counter("test_bad_records_total", "t"), 1);
    broker.check_every_moment(&topic).await;
    broker.check_letters(&topic).await;

    let snapshot = broker.log.meta().snapshot();
    let to = topic::by_name(&snapshot, "t.dead-letter").unwrap().expect("it was made");
    let partition = to.partition_ids().next().expect("it has one");
    let read = broker.log.read(&snapshot, partition, Offset::ZERO, 1 << 20).await.unwrap();
    let record = read.batches[0].records(1 << 20).unwrap().remove(0);
    let headers: Vec<(&[u8], &[u8])> =
        record.headers.iter().map(|(name, value)| (&name[..], value.as_deref().unwrap())).collect();
    let expected: [(&[u8], &[u8]); 4] = [
        (b"floe.reason", b"it says so itself"),
        (b"floe.topic", b"t"),
        (b"floe.partition", b"0"),
        (b"floe.offset", b"2"),
    ];
    assert_eq!(headers, expected);
    assert_eq!((record.key.as_deref(), record.timestamp), (Some(b"k".as_slice()), 1_002));
}

#[tokio::test(start_paused = true)]
async fn stop_commits_what_comes_before_it_and_waits_for_another_rule() {
    let (broker, topic) = with_bad_record(BadRecordRule::Stop).await;
    assert_eq!(broker.counts(&topic, 0), Counts { records: 2, bytes: 3 });
    assert_eq!(broker.progress(&topic)[&0], Offset(2), "it stands before the bad record");
    let status = broker.status(&topic).expect("the view runs");
    let (error, since) = status.error.expect("it says where it stops");
    assert!(error.contains("stops at offset 2") && error.contains("it says so itself"), "{error}");
    assert_eq!(status.lag, 3);

    // Other partitions go on, and it still says so.
    broker.produce(&topic, 1, &["22"]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(broker.counts(&topic, 1), Counts { records: 2, bytes: 3 });
    assert_eq!(broker.status(&topic).expect("the view runs").error, Some((error, since)));
    assert_eq!(letters(&broker).await, None);
    broker.check_every_moment(&topic).await;

    *lock(&broker.knobs.rule) = BadRecordRule::DeadLetter;
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.status(&topic).expect("the view runs").error, None);
    assert_eq!(broker.counts(&topic, 0), ALL);
    broker.check_every_moment(&topic).await;
    broker.check_letters(&topic).await;
}

/// The name of the dead-letter topic, `d_e.dead-letter`, collides with that of a topic of somebody else: `.` and `_`
/// are one character in names.
#[tokio::test(start_paused = true)]
async fn a_taken_name_for_dead_letters_does_not_stop_the_view() {
    let ground = Ground::default();
    let broker = ground.broker(Env::simulated(1)).await;
    let others = broker.topic("d_e_dead-letter", 1).await;
    let topic = broker.topic("d_e", 1).await;
    for _ in 0..2 {
        broker.produce(&topic, 0, &["1", "bad", "22"]).await;
        broker.settled(&topic).await;
    }
    assert_eq!(broker.counts(&topic, 0), Counts { records: 4, bytes: 6 });
    let letters = topic::by_name(&broker.log.meta().snapshot(), "d_e.dead-letter-2").expect("it can be read");
    assert_eq!(broker.values(&letters.expect("it was made")).await.len(), 2);
    assert_eq!(broker.values(&others).await.len(), 0, "the other topic is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_metric_says_since_when_and_why_a_view_stands_still() {
    let metrics = Metrics::default();
    let _recording = metrics.record();
    let (broker, topic) = with_bad_record(BadRecordRule::Stop).await;
    let (_, since) = broker.status(&topic).expect("the view runs").error.expect("it stands still");
    let name = "test_stands_still_since_seconds";
    assert_eq!(metrics.gauge(name, "t"), Some(since.0 as f64 / 1000.0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(metrics.gauge(name, "t"), Some(since.0 as f64 / 1000.0), "the first failure counts");
    *lock(&broker.knobs.rule) = BadRecordRule::Skip;
    broker.settled(&topic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(metrics.gauge(name, "t"), Some(0.0));
}

/// A batch of three records whose checksum is right and whose compressed data is not.
fn undecodable() -> Bytes {
    let mut builder = Builder::new(Compression::Zstd);
    for _ in 0..3 {
        builder.push(0, None, Some(b"value"), &[]);
    }
    let mut batch = builder.build().to_vec();
    let last = batch.len() - 1;
    batch[65..last].fill(0xff);
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(batch)
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_decoded_is_one_bad_record() {
    let batch = undecodable();
    for rule in [BadRecordRule::Stop, BadRecordRule::Skip, BadRecordRule::DeadLetter] {
        let broker = Ground::default().broker(Env::simulated(1)).await;
        *lock(&broker.knobs.rule) = rule;
        let topic = broker.topic("t", 1).await;
        broker.produce(&topic, 0, &["1"]).await;
        broker.append(&topic, 0, batch.clone()).await;
        broker.produce(&topic, 0, &["22"]).await;
        sleep(Duration::from_secs(10)).await;
        let stops = rule == BadRecordRule::Stop;
        let counts = if stops { Counts { records: 1, bytes: 1 } } else { Counts { records: 2, bytes: 3 } };
        let next = if stops { Offset(1) } else { Offset(5) };
        assert_eq!((broker.counts(&topic, 0), broker.progress(&topic)[&0]), (counts, next), "{rule:?}");
        let found = letters(&broker).await;
        let expected = (rule == BadRecordRule::DeadLetter).then(|| batch.slice(16..));
        // The letter has the batch as consumers get it: the log stamps the first 16 bytes.
        assert_eq!(found.map(|letters| letters[0].slice(16..)), expected, "{rule:?}");
    }
}
