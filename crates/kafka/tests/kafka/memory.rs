//! Who holds which memory, and whom that holds up.

use std::time::Duration;

use floe_kafka::Config;
use floe_wire::fetch::*;
use floe_wire::groups::*;
use floe_wire::produce::*;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::harness::*;

/// A broker whose log has room for requests of `bytes` at a time.
async fn narrow(bytes_in_flight_max: usize, config: Config) -> World {
    let log = floe_log::log::Config { bytes_in_flight_max, ..Default::default() };
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

/// Each join takes nearly all of the memory for requests, and none is answered before all have come.
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
    let mut members: Vec<Peer> = (0..3).map(|_| world.client()).collect();
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
