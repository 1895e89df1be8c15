//! Several produces under way, and the guarantees for producers.

use floe_kafka::Config;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_wire::ErrorCode;
use floe_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use floe_wire::metadata::MetadataRequest;
use floe_wire::produce::*;

use crate::harness::*;

fn produce_request(topic: &str, value: &str) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(batch(&[value])) }];
    let topic_data = vec![TopicProduceData { name: topic.to_owned(), partition_data, ..Default::default() }];
    ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data, ..Default::default() }
}

/// Five requests in flight share an upload. Answers come in order, also of a call between two produces.
#[tokio::test(start_paused = true)]
async fn requests_of_one_connection_are_taken_in_together_and_answered_in_order() {
    let disk = disk();
    let world = World::open(&disk, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let before = world.log.meta().snapshot().lsn();
    let mut sent = Vec::new();
    for value in ["0", "1", "2", "3", "4"] {
        sent.push(client.send_at_most(&produce_request("t", value), 12).await.expect("sent"));
    }
    for (at, sent) in sent.into_iter().enumerate() {
        let answer = client.receive(sent).await.expect("answered in order");
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, at as i64));
    }
    let commits = world.log.meta().snapshot().lsn().0 - before.0;
    assert!(commits < 5, "five requests in flight made {commits} commits");
    assert_eq!(values(&mut client, "t").await, ["0", "1", "2", "3", "4"]);

    // Metadata creates the topic. The produce right behind it waits for that call.
    let ask = MetadataRequest {
        topics: Some(vec![floe_wire::metadata::MetadataRequestTopic {
            name: Some("late".to_owned()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let asked = client.send(&ask).await.expect("sent");
    let produced = client.send_at_most(&produce_request("late", "x"), 12).await.expect("sent");
    let fetch = FetchRequest {
        topics: vec![FetchTopic {
            topic: "late".to_owned(),
            partitions: vec![FetchPartition { partition_max_bytes: 1_000, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let fetched = client.send_at_most(&fetch, 12).await.expect("sent");
    assert_eq!(client.receive(asked).await.expect("answered").topics[0].error_code, 0);
    let answer = client.receive(produced).await.expect("answered");
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let answer = client.receive(fetched).await.expect("answered");
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 1, "a fetch sees the produce before it");
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_batch_is_appended_once_and_gaps_are_refused() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let (id, epoch) = {
        let request = floe_wire::producer::InitProducerIdRequest::default();
        let given = call(&mut client, &request).await;
        (given.producer_id, given.producer_epoch)
    };
    let batch = |sequence: i32| {
        let mut builder = Builder::new(Compression::Lz4).producer(id, epoch, sequence);
        builder.push(1, Some(b"k"), Some(b"v"), &[]);
        builder.build()
    };
    let first = client.produce("t", 0, batch(0), -1).await.expect("produced");
    let second = client.produce("t", 0, batch(1), -1).await.expect("produced");
    let again = client.produce("t", 0, batch(0), -1).await.expect("a duplicate is a success");
    assert_eq!((first.base_offset, second.base_offset, again.base_offset), (0, 1, 0));
    let gap = client.produce("t", 0, batch(5), -1).await.expect_err("a gap");
    assert_eq!(gap.code(), Some(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(values(&mut client, "t").await, ["v", "v"]);
}

/// With LogAppendTime the answer has the time of the records, else none.
#[tokio::test(start_paused = true)]
async fn the_time_that_the_broker_gives_is_answered() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await.expect("created");
    client.create_topic("plain", 1, &[]).await.expect("created");
    for (topic, stamped) in [("stamped", true), ("plain", false)] {
        let answer = call_at(&mut client, 12, &produce_request(topic, "x")).await;
        let answered = answer.responses[0].partition_responses[0].log_append_time_ms;
        let want = if stamped { world.env.now().0 } else { -1 };
        assert_eq!(answered, want, "{topic}");
        let wait = floe_client::Wait { max_ms: 0, min_bytes: 0, max_bytes: 1_000 };
        let fetched = client.fetch(topic, 0, 0, wait).await.expect("fetched");
        let record = fetched.records(1_000).expect("whole").remove(0);
        assert_eq!(record.timestamp, if stamped { answered } else { 1_000 }, "{topic}");
    }
}

/// A topic is deleted and created again under a live producer, which goes on counting where it was.
#[tokio::test(start_paused = true)]
async fn a_producer_that_is_not_known_may_begin_at_any_number() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let given = call(&mut client, &floe_wire::producer::InitProducerIdRequest::default()).await;
    let request = |sequence: i32| {
        let mut builder =
            Builder::new(Compression::None).producer(given.producer_id, given.producer_epoch, sequence);
        builder.push(1, None, Some(b"v"), &[]);
        let mut request = produce_request("t", "");
        request.topic_data[0].partition_data[0].records = Some(builder.build());
        request
    };
    let first = call_at(&mut client, 12, &request(0)).await;
    assert_eq!(first.responses[0].partition_responses[0].error_code, 0);
    let delete = floe_wire::admin::DeleteTopicsRequest {
        topics: vec![floe_wire::admin::DeleteTopicState { name: Some("t".to_owned()), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(call(&mut client, &delete).await.responses[0].error_code, 0);
    client.create_topic("t", 1, &[]).await.expect("created again");
    let stranger = call_at(&mut client, 12, &request(1)).await;
    let answer = &stranger.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    for (sequence, code, offset) in
        [(1, 0, 0), (3, ErrorCode::OutOfOrderSequenceNumber.number(), -1), (2, 0, 1)]
    {
        let answer = call_at(&mut client, 12, &request(sequence)).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (code, offset), "sequence {sequence}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_topic_id_and_under_a_limit_of_requests_in_flight() {
    let config = Config { requests_in_flight_max: 2, ..Config::default() };
    let world = World::open(&disk(), config).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let topic_id = client.metadata(&["t"]).await.expect("answered").topics[0].topic_id;
    let mut sent = Vec::new();
    for value in 0..20 {
        let mut request = produce_request("", &value.to_string());
        request.topic_data[0].topic_id = topic_id;
        sent.push(client.send(&request).await.expect("sent"));
    }
    for (at, sent) in sent.into_iter().enumerate() {
        let answer = client.receive(sent).await.expect("answered");
        assert_eq!(answer.responses[0].topic_id, topic_id);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, at as i64);
    }
    let mut unknown = produce_request("", "x");
    unknown.topic_data[0].topic_id = uuid::Uuid::from_u128(3);
    let answer = call(&mut client, &unknown).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::UnknownTopicId.number());
}

/// The answer to one batch of one record.
async fn code_of(
    client: &mut TestClient,
    topic: &str,
    mut builder: Builder,
    key: Option<&[u8]>,
    time: i64,
) -> i16 {
    builder.push(time, key, Some(b"v"), &[]);
    let mut request = produce_request(topic, "");
    request.topic_data[0].partition_data[0].records = Some(builder.build());
    call_at(client, 12, &request).await.responses[0].partition_responses[0].error_code
}

/// The largest timestamp of such a batch would be the time of all its records, and a client would get around every
/// bound with it. So the records have their own times, as in Kafka.
#[tokio::test(start_paused = true)]
async fn no_client_says_that_its_times_are_the_brokers() {
    let world = world().await;
    let mut client = world.client();
    let now = world.env.now().0;
    let far = now + 10_000_000_000;
    client.create_topic("t", 1, &[]).await.expect("created");
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await.expect("created");
    for (topic, own, code) in
        [("t", now, 0), ("t", far, ErrorCode::InvalidTimestamp.number()), ("stamped", far, 0)]
    {
        for codec in [Compression::None, Compression::Gzip] {
            for claimed in [now, far, 5] {
                let mut builder = Builder::new(codec);
                builder.push(own, None, Some(b"v"), &[]);
                let mut request = produce_request(topic, "");
                let stamped = floe_log::header::with_append_time(&builder.build(), claimed);
                request.topic_data[0].partition_data[0].records = Some(stamped);
                let answer = call_at(&mut client, 12, &request).await;
                let found = &answer.responses[0].partition_responses[0];
                assert_eq!(found.error_code, code, "{topic}, {codec:?}, {own}, {claimed}");
                let is_stamped = found.log_append_time_ms >= 0;
                assert_eq!(is_stamped, topic == "stamped", "the topic decides");
            }
        }
    }
}

/// Clients that are not idempotent write 0 as well as -1 where there is nothing to say.
#[tokio::test(start_paused = true)]
async fn without_a_producer_id_epoch_and_sequence_mean_nothing() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    for (id, epoch, sequence, code) in [
        (-1, -1, -1, 0),
        (-1, 0, 0, 0),
        (-1, -1, 0, 0),
        (-1, 5, 17, 0),
        (-2, 0, 0, 0),
        (7, 0, -1, ErrorCode::InvalidRecord.number()),
    ] {
        let builder = Builder::new(Compression::None).producer(id, epoch, sequence);
        assert_eq!(code_of(&mut client, "t", builder, None, 1).await, code, "{id}, {epoch}, {sequence}");
    }
}

#[tokio::test(start_paused = true)]
async fn far_timestamps_and_keyless_records_of_compacted_topics_are_refused() {
    let world = world().await;
    let mut client = world.client();
    let now = world.env.now().0;
    let hour = 3_600_000;
    let near = [("message.timestamp.before.max.ms", "3600000")];
    client.create_topic("t", 1, &[]).await.expect("created");
    client.create_topic("near", 1, &near).await.expect("created");
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await.expect("created");
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await.expect("created");
    let (late, keyless) = (ErrorCode::InvalidTimestamp.number(), ErrorCode::InvalidRecord.number());
    for (topic, key, time, code) in [
        ("t", None, now + hour, 0),
        ("t", None, now + hour + 1_000, late),
        ("t", None, now * 1_000, late),
        ("t", None, 0, 0),
        ("t", None, -1, 0),
        ("near", None, now - 2 * hour, late),
        ("near", None, -1, 0),
        ("stamped", None, now * 1_000, 0),
        ("compacted", Some(&b"k"[..]), now, 0),
        ("compacted", None, now, keyless),
    ] {
        let builder = Builder::new(Compression::Gzip);
        assert_eq!(code_of(&mut client, topic, builder, key, time).await, code, "{topic}, {time}");
    }
}
