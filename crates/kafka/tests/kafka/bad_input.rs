//! Hostile bytes, broken clients and wrong requests.

use std::time::Duration;

use bytes::Bytes;
use floe_client::ClientError;
use floe_kafka::Config;
use floe_wire::admin::*;
use floe_wire::fetch::*;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use floe_wire::metadata::*;
use floe_wire::offsets::*;
use floe_wire::produce::*;
use floe_wire::producer::*;
use floe_wire::sasl::*;
use floe_wire::{ApiKey, Decoder, ErrorCode, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use crate::harness::*;

/// All bytes that come until the broker closes the connection.
async fn last_words(mut pipe: DuplexStream) -> Vec<u8> {
    let mut words = Vec::new();
    pipe.read_to_end(&mut words).await.expect("the pipe does not fail");
    words
}

fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&i32::try_from(10 + body.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Each of these ends the connection without an answer, and at once, not only after the idle time.
#[tokio::test(start_paused = true)]
async fn frames_that_end_the_connection() {
    let world = world().await;
    let cases: &[(&str, Vec<u8>)] = &[
        ("a length of -1", (-1i32).to_be_bytes().to_vec()),
        ("a length of 7, less than a header", 7i32.to_be_bytes().to_vec()),
        ("a length above the limit", (200i32 << 20).to_be_bytes().to_vec()),
        ("a long frame of an api that needs none", {
            let mut bytes = request(ApiKey::Metadata.number(), 1, &[]);
            bytes[..4].copy_from_slice(&(20i32 << 20).to_be_bytes());
            bytes
        }),
        ("not Kafka at all", b"GET / HTTP/1.1\r\nHost: floe\r\n\r\n".to_vec()),
        ("an api that nobody knows", request(999, 0, &[])),
        ("an api that is not served", request(ApiKey::EndTxn.number(), 0, &[])),
        ("a negative api", request(-1, 0, &[])),
        ("a version that is too new", request(ApiKey::Metadata.number(), 99, &[])),
        ("a version that is too old", request(ApiKey::Produce.number(), 2, &[])),
        ("an array of two billion topics", request(ApiKey::Metadata.number(), 1, &[0x7f, 0xff, 0xff, 0xff])),
        ("a body that ends early", request(ApiKey::JoinGroup.number(), 0, &[0, 5, b'g'])),
        ("a produce body that ends early", request(ApiKey::Produce.number(), 3, &[0xff, 0xff, 0, 1])),
        ("a client id that is longer than the frame", {
            let mut bytes = request(ApiKey::Metadata.number(), 1, &[]);
            bytes[12] = 0x7f;
            bytes
        }),
    ];
    for (what, bytes) in cases {
        let mut pipe = world.pipe();
        let begun = Instant::now();
        pipe.write_all(bytes).await.expect("written");
        assert_eq!(last_words(pipe).await, b"", "{what}");
        assert!(begun.elapsed().as_secs() < 1, "{what}: after {:?}", begun.elapsed());
    }
}

/// A client commits its offsets and closes without waiting for the answer. The commit is carried out, and a fetch that
/// waits for records is dropped.
#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_end_is_done() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let (pipe, serving) = world.watched_pipe();
    let mut leaver = floe_client::Client::new(pipe, "leaver");
    let fetch = FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: "t".to_owned(),
            partitions: vec![Default::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let commit = |group: &str| OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: 5, ..Default::default() }],
        }],
        ..Default::default()
    };
    let _unread = leaver.send_at_most(&fetch, 12).await.expect("sent");
    for group in ["a", "b", "c"] {
        let _unread = leaver.send(&commit(group)).await.expect("sent");
    }
    let begun = Instant::now();
    drop(leaver);
    serving.await.expect("ends in order");
    assert!(begun.elapsed().as_secs() < 1, "after {:?}", begun.elapsed());
    for group in ["a", "b", "c"] {
        let topics = vec![OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![0] }];
        let groups = vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: Some(topics),
            ..Default::default()
        }];
        let fetched = call(&mut client, &OffsetFetchRequest { groups, ..Default::default() }).await;
        assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 5, "{group}");
    }
}

/// As by Kafka 4: librdkafka up to 2.11 compresses only for a broker that offers version 0 of Produce.
#[tokio::test(start_paused = true)]
async fn produce_is_offered_from_version_0_on() {
    let world = world().await;
    let request =
        ApiVersionsRequest { client_software_name: "c".to_owned(), client_software_version: "1".to_owned() };
    let offered = call(&mut world.client(), &request).await.api_keys;
    let produce = offered.iter().find(|api| api.api_key == ApiKey::Produce.number());
    assert_eq!(produce.map(|api| (api.min_version, api.max_version)), Some((0, 13)));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_a_mistake_is_answered() {
    let world = world().await;
    let mut pipe = world.pipe();
    let mut bytes = request(ApiKey::ApiVersions.number(), 0, &[]);
    bytes.extend(request(999, 0, &[]));
    pipe.write_all(&bytes).await.expect("written");
    let words = last_words(pipe).await;
    let (correlation_id, response) =
        frame::decode_response::<ApiVersionsRequest>(Bytes::from(words).slice(4..), 0)
            .expect("one whole answer");
    assert_eq!((correlation_id, response.error_code), (7, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let world = world().await;
    let mut pipe = world.pipe();
    pipe.write_all(&request(ApiKey::ApiVersions.number(), 99, &[1, 2, 3])).await.expect("written");
    let mut length = [0; 4];
    pipe.read_exact(&mut length).await.expect("answered");
    let mut body = vec![0; i32::from_be_bytes(length) as usize];
    pipe.read_exact(&mut body).await.expect("answered");
    let (correlation_id, response) =
        frame::decode_response::<ApiVersionsRequest>(body.into(), 0).expect("version 0");
    assert_eq!((correlation_id, response.error_code), (7, ErrorCode::UnsupportedVersion.number()));
    let own = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.number());
    assert_eq!(own.map(|api| (api.min_version, api.max_version)), Some((0, 4)));
    // The connection stays open, so that the client can ask again.
    pipe.write_all(&request(ApiKey::ApiVersions.number(), 0, &[])).await.expect("written");
    pipe.read_exact(&mut length).await.expect("answered");
}

#[tokio::test(start_paused = true)]
async fn slow_and_silent_connections_are_closed() {
    let world = world().await;
    let begun = Instant::now();
    // A frame of a megabyte that comes with a byte per second.
    let mut pipe = world.pipe();
    pipe.write_all(&(1i32 << 20).to_be_bytes()).await.expect("written");
    let mut written = 0;
    while pipe.write_all(&[0]).await.is_ok() {
        written += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((4..10).contains(&written), "closed after {written} bytes");
    assert!(begun.elapsed() < Duration::from_secs(10));

    // A frame at twice the least rate is read to its end. It is malformed, and the connection closes for that.
    let mut pipe = world.pipe();
    let body = vec![0x7f; 512 * 1024];
    let slow = request(ApiKey::Metadata.number(), 1, &body);
    for piece in slow.chunks(32 * 1024) {
        pipe.write_all(piece).await.expect("the broker still reads");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(last_words(pipe).await, b"");

    // A large frame at that rate would hold its memory for minutes.
    let begun = Instant::now();
    let mut pipe = world.pipe();
    let large = request(ApiKey::Produce.number(), 9, &vec![0; 30 << 20]);
    for piece in large.chunks(64 * 1024) {
        if pipe.write_all(piece).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10));

    let begun = Instant::now();
    assert_eq!(last_words(world.pipe()).await, b"");
    assert_eq!(begun.elapsed().as_secs(), 600, "idle");
}

/// A client that never reads its answers is closed when no byte moved for the idle time.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let large = "x".repeat(1_000_000);
    for _ in 0..3 {
        produce(&mut client, "t", &[&large]).await.expect("produced");
    }
    let (pipe, serving) = world.watched_pipe();
    let mut greedy = floe_client::Client::new(pipe, "greedy");
    let fetch = FetchRequest {
        topics: vec![FetchTopic {
            topic: "t".to_owned(),
            partitions: vec![FetchPartition { partition_max_bytes: 10_000_000, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let _unread = greedy.send_at_most(&fetch, 12).await.expect("sent");
    let begun = Instant::now();
    serving.await.expect("ends in order");
    assert_eq!(begun.elapsed().as_secs(), 600);
    assert_eq!(values(&mut world.client(), "t").await.len(), 1, "others are served");
}

/// The byte budget has room for three requests. Twenty are sent at once, and all are answered.
#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_byte_budget() {
    let log = floe_log::Config { bytes_in_flight_max: 6_000, ..Default::default() };
    let world = World::open_with(&disk(), Config::default(), log).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let value = "x".repeat(1_800);
    let produce = |value: &str| ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: "t".to_owned(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(batch(&[value])) }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(client.send_at_most(&produce(&value), 12).await.expect("sent"));
    }
    // A request beyond the whole budget gets all of it.
    sent.push(client.send_at_most(&produce(&"x".repeat(7_000)), 12).await.expect("sent"));
    for (at, sent) in sent.into_iter().enumerate() {
        let answer = client.receive(sent).await.expect("answered");
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, at as i64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_above_the_configured_limit_is_refused_and_one_below_is_not() {
    let config = Config { frame_bytes_max: 1_000, ..Config::default() };
    let world = World::open(&disk(), config).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let fits = "x".repeat(500);
    assert_eq!(produce(&mut client, "t", &[&fits]).await.ok(), Some(0));
    let large = "x".repeat(2_000);
    let refused = produce(&mut client, "t", &[&large]).await;
    assert!(matches!(refused, Err(ClientError::Closed | ClientError::Io(_))), "{refused:?}");
}

/// The code with which a batch is refused.
async fn produce_code(
    client: &mut TestClient,
    topic: &str,
    partition: i32,
    bytes: Bytes,
) -> Option<ErrorCode> {
    client.produce(topic, partition, bytes, -1).await.err().and_then(|error| error.code())
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_refused_leave_nothing_behind() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[("max.message.bytes", "1000")]).await.expect("created");
    let good = batch(&["a", "b", "c"]);
    let damaged = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let cases = [
        ("damaged payload", damaged(good.len() - 1), ErrorCode::CorruptMessage),
        ("damaged checksum", damaged(17), ErrorCode::CorruptMessage),
        ("damaged length", damaged(10), ErrorCode::InvalidRecord),
        ("damaged count", damaged(60), ErrorCode::CorruptMessage),
        ("another magic", damaged(16), ErrorCode::CorruptMessage),
        ("cut short", good.slice(..good.len() - 1), ErrorCode::InvalidRecord),
        ("a header alone", good.slice(..61), ErrorCode::InvalidRecord),
        ("nothing", Bytes::new(), ErrorCode::InvalidRecord),
        ("too large", batch(&["x".repeat(2_000).as_str()]), ErrorCode::MessageTooLarge),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(produce_code(&mut client, "t", 0, bytes).await, Some(code), "{what}");
    }
    assert_eq!(
        produce_code(&mut client, "t", 1, good.clone()).await,
        Some(ErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(
        produce_code(&mut client, "t", -1, good.clone()).await,
        Some(ErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(
        produce_code(&mut client, "nobody", 0, good.clone()).await,
        Some(ErrorCode::UnknownTopicOrPartition)
    );
    let acks = client.produce("t", 0, good.clone(), 2).await.err().and_then(|error| error.code());
    assert_eq!(acks, Some(ErrorCode::InvalidRequiredAcks));
    assert_eq!(values(&mut client, "t").await, Vec::<String>::new());
    assert_eq!(client.produce("t", 0, good, -1).await.expect("the connection was kept").base_offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_produce_without_acknowledgement_ends_the_connection() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    client.produce("t", 0, batch(&["a"]), 0).await.expect("sent");
    assert_eq!(
        produce(&mut client, "t", &["b"]).await.ok(),
        Some(1),
        "acks=0 has no answer and keeps its place"
    );
    client.produce("nobody", 0, batch(&["a"]), 0).await.expect("sent");
    let next = client.metadata(&[]).await;
    assert!(matches!(next, Err(ClientError::Closed | ClientError::Io(_))), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn transactions_are_refused_so_that_clients_give_up() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let id = Some("tx".to_owned());
    let init = InitProducerIdRequest { transactional_id: id.clone(), ..Default::default() };
    assert_eq!(
        call(&mut client, &init).await.error_code,
        ErrorCode::TransactionalIdAuthorizationFailed.number()
    );
    let find =
        FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["tx".to_owned()], ..Default::default() };
    let found = call(&mut client, &find).await.coordinators.remove(0);
    assert_eq!(
        (found.error_code, found.node_id),
        (ErrorCode::TransactionalIdAuthorizationFailed.number(), -1)
    );
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(batch(&["a"])) }];
    let topic_data = vec![TopicProduceData { name: "t".to_owned(), partition_data, ..Default::default() }];
    let produce = ProduceRequest { transactional_id: id, acks: -1, topic_data, ..Default::default() };
    let sent = client.send_at_most(&produce, 12).await.expect("sent");
    let answer = client.receive(sent).await.expect("answered");
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::TransactionalIdAuthorizationFailed.number());
}

/// Authentication is refused with an answer, and the connection stays open.
#[tokio::test(start_paused = true)]
async fn authentication_is_refused_so_that_clients_give_up() {
    let world = world().await;
    let mut client = world.client();
    for version in 0..=1 {
        let asked =
            call_at(&mut client, version, &SaslHandshakeRequest { mechanism: "PLAIN".to_owned() }).await;
        assert_eq!((asked.error_code, asked.mechanisms.len()), (ErrorCode::IllegalSaslState.number(), 0));
    }
    client.create_topic("t", 1, &[]).await.expect("the connection was kept");
}

async fn create_code(client: &mut TestClient, topic: CreatableTopic) -> (i16, String) {
    let result = client.create_topics(vec![topic]).await.expect("answered").topics.remove(0);
    (result.error_code, result.error_message.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn topics_that_are_refused_say_why() {
    let world = world().await;
    let mut client = world.client();
    let topic = |name: &str, num_partitions, replication_factor| CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor,
        ..Default::default()
    };
    let config = |name: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: name.to_owned(), value: value.map(str::to_owned) }],
        ..topic("t", 1, 1)
    };
    let assigned = |assignments: &[(i32, &[i32])]| CreatableTopic {
        assignments: assignments
            .iter()
            .map(|(index, ids)| CreatableReplicaAssignment {
                partition_index: *index,
                broker_ids: ids.to_vec(),
            })
            .collect(),
        ..topic("t", -1, -1)
    };
    let long = "x".repeat(250);
    let cases = [
        (topic("", 1, 1), ErrorCode::InvalidTopicException, "empty"),
        (topic("..", 1, 1), ErrorCode::InvalidTopicException, ".."),
        (topic("a b", 1, 1), ErrorCode::InvalidTopicException, "letters"),
        (topic(&long, 1, 1), ErrorCode::InvalidTopicException, "249"),
        (topic("t", 0, 1), ErrorCode::InvalidPartitions, "0"),
        (topic("t", i32::MAX, 1), ErrorCode::InvalidPartitions, "between 1 and 10000"),
        (topic("t", 10_001, 1), ErrorCode::InvalidPartitions, "between 1 and 10000"),
        (topic("t", 1, 0), ErrorCode::InvalidReplicationFactor, "at least 1"),
        (config("no.such.setting", Some("1")), ErrorCode::InvalidConfig, "no.such.setting"),
        (config("retention.ms", Some("soon")), ErrorCode::InvalidConfig, "soon"),
        (config("retention.ms", None), ErrorCode::InvalidConfig, "no value"),
        (assigned(&[(0, &[1]), (2, &[1])]), ErrorCode::InvalidReplicaAssignment, "each partition"),
        (assigned(&[(0, &[])]), ErrorCode::InvalidReplicaAssignment, "at least one"),
        (assigned(&[(0, &[1, 1])]), ErrorCode::InvalidReplicaAssignment, "only once"),
        (CreatableTopic { num_partitions: 1, ..assigned(&[(0, &[1])]) }, ErrorCode::InvalidRequest, "-1"),
    ];
    for (asked, code, word) in cases {
        let (got, message) = create_code(&mut client, asked.clone()).await;
        assert_eq!(got, code.number(), "{asked:?}: {message}");
        assert!(message.contains(word), "{asked:?}: {message}");
    }
    let twice = client.create_topics(vec![topic("t", 1, 1), topic("t", 2, 1)]).await.expect("answered");
    assert!(twice.topics.iter().all(|topic| topic.error_code == ErrorCode::InvalidRequest.number()));
    let together = vec![topic("t", 6_000, 1), topic("u", 4_001, 1)];
    let together = client.create_topics(together).await.expect("answered").topics;
    let policy = |topic: &CreatableTopicResult| topic.error_code == ErrorCode::PolicyViolation.number();
    assert!(together.iter().all(policy), "{together:?}");
    let validated =
        CreateTopicsRequest { topics: vec![topic("t", 3, -1)], validate_only: true, ..Default::default() };
    assert_eq!(call(&mut client, &validated).await.topics[0].error_code, 0);
    assert_eq!(client.metadata(&[]).await.expect("answered").topics.len(), 0, "nothing was created");
    let (code, message) = create_code(&mut client, assigned(&[(0, &[1]), (1, &[5])])).await;
    assert_eq!((code, message.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn questions_about_what_does_not_exist() {
    let world = world().await;
    let mut client = world.client();
    let ask = |name: &str, create| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }]),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    let code = |response: MetadataResponse| response.topics[0].error_code;
    assert_eq!(code(call(&mut client, &ask("t", false)).await), ErrorCode::UnknownTopicOrPartition.number());
    assert_eq!(code(call(&mut client, &ask("a b", true)).await), ErrorCode::InvalidTopicException.number());
    assert_eq!(code(call(&mut client, &ask("t", true)).await), 0, "created because it was asked for");
    let unknown = MetadataRequestTopic { topic_id: uuid::Uuid::from_u128(5), name: None };
    let by_id = MetadataRequest { topics: Some(vec![unknown]), ..Default::default() };
    assert_eq!(code(call(&mut client, &by_id).await), ErrorCode::UnknownTopicId.number());

    let asked = |timestamp, current_leader_epoch| ListOffsetsPartition {
        partition_index: 0,
        timestamp,
        current_leader_epoch,
    };
    let partitions = vec![asked(-9, -1), asked(-1, -1), asked(-1, 5)];
    let described = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configuration_keys: Some(Vec::new()),
        }],
        ..Default::default()
    };
    let described = call(&mut client, &described).await.results;
    assert!(described[0].configs.len() > 10, "no keys are all keys, as in Kafka");

    let topics = vec![
        ListOffsetsTopic { name: "nobody".to_owned(), partitions: vec![asked(-1, -1)] },
        ListOffsetsTopic { name: "t".to_owned(), partitions },
    ];
    let listed = call(&mut client, &ListOffsetsRequest { topics, ..Default::default() }).await;
    let codes: Vec<i16> =
        listed.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code).collect();
    let want = [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnsupportedVersion, ErrorCode::InvalidRequest];
    assert_eq!(codes[..3], want.map(ErrorCode::number), "the second question about one partition is refused");

    let heartbeat = |group: &str| HeartbeatRequest { group_id: group.to_owned(), ..Default::default() };
    assert_eq!(call(&mut client, &heartbeat("")).await.error_code, ErrorCode::InvalidGroupId.number());
    assert_eq!(call(&mut client, &heartbeat("g")).await.error_code, ErrorCode::UnknownMemberId.number());
    let delete = DeleteGroupsRequest { groups_names: vec!["g".to_owned()] };
    assert_eq!(call(&mut client, &delete).await.results[0].error_code, ErrorCode::GroupIdNotFound.number());
    let described = DescribeGroupsRequest { groups: vec!["g".to_owned()], ..Default::default() };
    let described = call(&mut client, &described).await.groups.remove(0);
    assert_eq!(
        (described.error_code, &*described.group_state),
        (ErrorCode::GroupIdNotFound.number(), "Dead")
    );
    let controllers = DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    assert_eq!(call(&mut client, &controllers).await.error_code, ErrorCode::MismatchedEndpointType.number());
}

/// A planted bug: a decoder that trusted lengths would ask for 2 GiB here. Ours refuses.
#[test]
fn the_codec_is_bounded() {
    let mut decoder = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]));
    let decoded = <MetadataRequest as floe_wire::Message>::decode(&mut decoder, 1);
    assert!(decoded.is_err());
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_the_internal_topics_of_kafka() {
    let world = world().await;
    let mut client = world.client();
    for name in ["__consumer_offsets", "__transaction_state"] {
        let refused = client.create_topic(name, 1, &[]).await.err().and_then(|error| error.code());
        assert_eq!(refused, Some(ErrorCode::InvalidTopicException), "{name}");
        let ask = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }]),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        let answer = call(&mut client, &ask).await;
        assert_eq!(answer.topics[0].error_code, ErrorCode::InvalidTopicException.number(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn operations_are_told_to_those_who_ask() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    for (asked, on_topic, on_cluster) in [(true, 0x0df8, 0x1fa0), (false, i32::MIN, i32::MIN)] {
        let ask = MetadataRequest {
            topics: None,
            include_topic_authorized_operations: asked,
            include_cluster_authorized_operations: asked,
            ..Default::default()
        };
        let answer = call_at(&mut client, 10, &ask).await;
        assert_eq!(answer.topics[0].topic_authorized_operations, on_topic);
        assert_eq!(answer.cluster_authorized_operations, on_cluster);
    }
}
