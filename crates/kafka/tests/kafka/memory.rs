//! The memory that requests and answers hold, and who waits for it.

use std::time::Duration;

use floe_kafka::Config;
use floe_wire::ErrorCode;
use floe_wire::admin::*;
use floe_wire::fetch::*;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use floe_wire::metadata::*;
use floe_wire::produce::*;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::harness::*;

/// A broker whose log has room for produces of `bytes_in_flight_max` at a time.
async fn narrow(bytes_in_flight_max: usize, config: Config) -> World {
    let log = floe_log::Config { bytes_in_flight_max, ..Default::default() };
    World::open_with(&disk(), config, log).await
}

fn produce_request(value: &str) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(batch(&[value])) }];
    let topic_data = vec![TopicProduceData { name: "t".to_owned(), partition_data, ..Default::default() }];
    ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data, ..Default::default() }
}

fn waiting_fetch() -> FetchRequest {
    let partitions = vec![FetchPartition { partition_max_bytes: 1_000, ..Default::default() }];
    let topics = vec![FetchTopic { topic: "t".to_owned(), partitions, ..Default::default() }];
    FetchRequest { max_wait_ms: 30_000, min_bytes: 1_000_000, topics, ..Default::default() }
}

fn join(group: &str, subscription_bytes: usize) -> JoinGroupRequest {
    let metadata = vec![b'x'; subscription_bytes].into();
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata }],
        ..Default::default()
    }
}

/// Each join takes nearly all the memory for requests, and none is answered before all have come.
#[tokio::test(start_paused = true)]
async fn large_joins_wait_for_each_other_without_holding_memory() {
    let config = Config {
        request_bytes_max: 1_000_000,
        group_initial_delay: Duration::from_secs(10),
        ..Config::default()
    };
    let world = narrow(100_000, config).await;
    let mut producer = world.client();
    producer.create_topic("t", 1, &[]).await.expect("created");
    let mut members: Vec<TestClient> = (0..3).map(|_| world.client()).collect();
    let mut sent = Vec::new();
    for member in &mut members {
        sent.push(member.send_at_most(&join("g", 200_000), 0).await.expect("sent"));
    }
    let begun = Instant::now();
    assert_eq!(produce(&mut producer, "t", &["a"]).await.ok(), Some(0));
    assert_eq!(begun.elapsed().as_secs(), 0, "producers do not wait for members");
    let mut seen = 0;
    for (member, sent) in members.iter_mut().zip(sent) {
        let joined = member.receive(sent).await.expect("answered");
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        seen += joined.members.len();
    }
    assert_eq!(seen, 3, "the leader sees all three");
}

#[tokio::test(start_paused = true)]
async fn a_produce_behind_a_waiting_fetch_takes_no_memory_yet() {
    let world = narrow(6_000, Config::default()).await;
    let (mut waiting, mut other) = (world.client(), world.client());
    waiting.create_topic("t", 1, &[]).await.expect("created");
    let begun = Instant::now();
    let fetch = waiting.send_at_most(&waiting_fetch(), 12).await.expect("sent");
    let behind = waiting.send_at_most(&produce_request(&"x".repeat(5_000)), 12).await.expect("sent");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(produce(&mut other, "t", &[&"y".repeat(3_000)]).await.ok(), Some(0));
    assert_eq!(begun.elapsed().as_secs(), 1, "the other producer does not wait");
    waiting.receive(fetch).await.expect("answered");
    let behind = waiting.receive(behind).await.expect("answered");
    assert_eq!(behind.responses[0].partition_responses[0].base_offset, 1);
}

#[tokio::test(start_paused = true)]
async fn six_bytes_of_a_stranger_take_no_memory() {
    let world = narrow(100_000, Config::default()).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut pipe = world.pipe();
        pipe.write_all(&90_000i32.to_be_bytes()).await.expect("written");
        pipe.write_all(&0i16.to_be_bytes()).await.expect("written");
        strangers.push(pipe);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(produce(&mut client, "t", &[&"y".repeat(50_000)]).await.ok(), Some(0));
    assert_eq!(begun.elapsed().as_secs(), 0);
}

/// Clients that fetch much and read nothing hold the memory for answers. They lose it when others wait for it.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_make_room() {
    let config = Config { answer_bytes_max: 4 << 20, ..Config::default() };
    let world = World::open(&disk(), config).await;
    let mut client = world.client();
    client.create_topic("t", 1, &[("max.message.bytes", "2000000")]).await.expect("created");
    // More than the pipe has room for.
    produce(&mut client, "t", &[&"x".repeat(1_100_000)]).await.expect("produced");
    let mut fetch = waiting_fetch();
    fetch.min_bytes = 1;
    fetch.topics[0].partitions[0].partition_max_bytes = 10_000_000;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let (pipe, serving) = world.watched_pipe();
        let mut client = floe_client::Client::new(pipe, "greedy");
        let _unread = client.send_at_most(&fetch, 12).await.expect("sent");
        greedy.push((client, serving));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let fetched = call_at(&mut world.client(), 12, &fetch).await;
    let records = fetched.responses[0].partitions[0].records.as_ref();
    assert!(records.is_some_and(|records| records.len() > 1_100_000));
    assert!((20..40).contains(&begun.elapsed().as_secs()), "after {:?}", begun.elapsed());
    assert!(greedy.iter().any(|(_, serving)| serving.is_finished()), "some are closed");
}

fn describe(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true }
}

fn topic_resource(name: &str, keys: Option<Vec<String>>) -> DescribeConfigsResource {
    DescribeConfigsResource { resource_type: 2, resource_name: name.to_owned(), configuration_keys: keys }
}

/// A name with a large answer is answered once, however often a request repeats it.
#[tokio::test(start_paused = true)]
async fn what_is_named_again_and_again_is_answered_once() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 100, &[]).await.expect("created");
    let named = MetadataRequestTopic { name: Some("t".to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![named; 10_000]), ..Default::default() };
    let topics = call(&mut client, &request).await.topics;
    assert_eq!((topics.len(), topics[0].partitions.len()), (1, 100));

    let described = call(&mut client, &describe(vec![topic_resource("t", None); 5_000])).await.results;
    assert_eq!(described.len(), 1);
    assert!(described[0].configs.len() > 10);

    let committed = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![OffsetCommitRequestPartition { partition_index: 7, ..Default::default() }],
        }],
        ..Default::default()
    };
    assert_eq!(call(&mut client, &committed).await.topics[0].partitions[0].error_code, 0);
    let topic = OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![7; 9_000] };
    let group = |topics| OffsetFetchRequestGroup { group_id: "g".to_owned(), topics, ..Default::default() };
    let groups = vec![group(Some(vec![topic.clone(), topic]))];
    let fetched = call(&mut client, &OffsetFetchRequest { groups, ..Default::default() }).await.groups;
    let indexes = |topic: &OffsetFetchResponseTopics| topic.partitions.len();
    assert_eq!(fetched[0].topics.iter().map(indexes).collect::<Vec<_>>(), [1, 0]);
    let groups = vec![group(None); 9_000];
    let fetched = call(&mut client, &OffsetFetchRequest { groups, ..Default::default() }).await.groups;
    assert_eq!(fetched.len(), 1);
    let request = DescribeGroupsRequest { groups: vec!["g".to_owned(); 9_000], ..Default::default() };
    assert_eq!(call(&mut client, &request).await.groups.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_request_creates_and_describes_so_much_and_not_more() {
    let world = world().await;
    let mut client = world.client();
    let named = |at: usize| MetadataRequestTopic { name: Some(format!("t{at}")), ..Default::default() };
    let request = MetadataRequest {
        topics: Some((0..1_001).map(named).collect()),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let codes: Vec<i16> = call(&mut client, &request).await.topics.iter().map(|one| one.error_code).collect();
    assert!(codes[..1_000].iter().all(|code| *code == 0));
    assert_eq!(codes[1_000], ErrorCode::LeaderNotAvailable.number());
    let again = call(&mut client, &request).await.topics;
    assert!(again.iter().all(|topic| topic.error_code == 0), "a client that asks again gets on");

    let resources =
        (0..1_001).map(|at| topic_resource(&format!("t{at}"), Some(vec!["retention.ms".to_owned()])));
    let described = call(&mut client, &describe(resources.collect())).await.results;
    assert!(described[..1_000].iter().all(|one| one.error_code == 0 && one.configs.len() == 1));
    assert_eq!(described[1_000].error_code, ErrorCode::PolicyViolation.number());
}

/// A partition without a batch takes 8 bytes on the wire and several hundred in memory and in the answer.
#[tokio::test(start_paused = true)]
async fn a_produce_of_very_many_partitions_is_not_decoded() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    let request = |partitions: usize| {
        let nothing = PartitionProduceData { index: 0, records: None };
        let partition_data = vec![nothing; partitions];
        let topic_data =
            vec![TopicProduceData { name: "t".to_owned(), partition_data, ..Default::default() }];
        ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data, ..Default::default() }
    };
    let sent = client.send_at_most(&request(20_000), 12).await.expect("sent");
    let answered = client.receive(sent).await.expect("answered");
    assert_eq!(answered.responses[0].partition_responses.len(), 20_000);
    let sent = client.send_at_most(&request(300_000), 12).await.expect("sent");
    assert!(client.receive(sent).await.is_err(), "the connection is closed");
    assert_eq!(produce(&mut world.client(), "t", &["a"]).await.ok(), Some(0), "and others are served");
}
