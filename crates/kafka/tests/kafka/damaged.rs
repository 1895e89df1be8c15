//! Damaged requests. Each is answered or ends its connection, and nothing panics.

use std::time::Duration;

use bytes::Bytes;
use floe_kafka::APIS;
use floe_wire::admin::*;
use floe_wire::fetch::*;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use floe_wire::metadata::*;
use floe_wire::offsets::*;
use floe_wire::produce::*;
use floe_wire::producer::*;
use floe_wire::{Request, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::*;

/// Key, version, correlation id: without damage here a request reaches its handler.
const HEAD_BYTES: usize = 4 + 8;
const DAMAGES: usize = 24;

fn encoded<R: Request>(requests: &mut Vec<(i16, Vec<u8>)>, request: impl Fn(i16) -> R) {
    let api = APIS.iter().find(|api| api.key == R::API).expect("served");
    for version in api.min..=api.max {
        let whole = frame::encode_request(&request(version), version, 1, "c").expect("encodes");
        requests.push((version, whole.concat()));
    }
}

/// A request of every API in every version, with enough content to damage.
fn requests() -> Vec<(i16, Vec<u8>)> {
    let mut all = Vec::new();
    let topic = || "t".to_owned();
    let group = || "g".to_owned();
    encoded(&mut all, |_| ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: topic(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(batch(&["a", "b"])) }],
            ..Default::default()
        }],
        ..Default::default()
    });
    encoded(&mut all, |_| FetchRequest {
        max_bytes: 100,
        session_epoch: 0,
        topics: vec![FetchTopic {
            topic: topic(),
            partitions: vec![Default::default(); 2],
            ..Default::default()
        }],
        ..Default::default()
    });
    encoded(&mut all, |_| ListOffsetsRequest {
        topics: vec![ListOffsetsTopic { name: topic(), partitions: vec![Default::default(); 2] }],
        ..Default::default()
    });
    encoded(&mut all, |_| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(topic()), ..Default::default() }]),
        ..Default::default()
    });
    encoded(&mut all, |_| OffsetCommitRequest {
        group_id: group(),
        topics: vec![OffsetCommitRequestTopic { name: topic(), partitions: vec![Default::default(); 2] }],
        ..Default::default()
    });
    encoded(&mut all, |version| OffsetFetchRequest {
        topics: (version < 8)
            .then(|| vec![OffsetFetchRequestTopic { name: topic(), partition_indexes: vec![0, 1] }]),
        groups: if version < 8 { Vec::new() } else { vec![Default::default(); 2] },
        ..Default::default()
    });
    encoded(&mut all, |version| FindCoordinatorRequest {
        coordinator_keys: if version < 4 { Vec::new() } else { vec![group()] },
        ..Default::default()
    });
    encoded(&mut all, |_| JoinGroupRequest {
        group_id: group(),
        session_timeout_ms: 6_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: "m".into() }],
        ..Default::default()
    });
    encoded(&mut all, |_| HeartbeatRequest { group_id: group(), ..Default::default() });
    encoded(&mut all, |version| LeaveGroupRequest {
        group_id: group(),
        members: if version < 3 { Vec::new() } else { vec![Default::default()] },
        ..Default::default()
    });
    encoded(&mut all, |_| SyncGroupRequest {
        group_id: group(),
        assignments: vec![SyncGroupRequestAssignment { member_id: "m".to_owned(), assignment: "a".into() }],
        ..Default::default()
    });
    encoded(&mut all, |_| DescribeGroupsRequest { groups: vec![group()], ..Default::default() });
    encoded(&mut all, |_| ListGroupsRequest::default());
    encoded(&mut all, |_| ApiVersionsRequest {
        client_software_name: "c".to_owned(),
        client_software_version: "1".to_owned(),
    });
    encoded(&mut all, |_| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "u".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: "retention.ms".to_owned(),
                value: Some("1".to_owned()),
            }],
            ..Default::default()
        }],
        ..Default::default()
    });
    encoded(&mut all, |version| DeleteTopicsRequest {
        topics: if version < 6 { Vec::new() } else { vec![Default::default()] },
        topic_names: if version < 6 { vec!["u".to_owned()] } else { Vec::new() },
        ..Default::default()
    });
    encoded(&mut all, |_| InitProducerIdRequest::default());
    encoded(&mut all, |_| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: topic(),
            configuration_keys: Some(vec!["retention.ms".to_owned()]),
        }],
        ..Default::default()
    });
    encoded(&mut all, |_| DeleteGroupsRequest { groups_names: vec![group()] });
    encoded(&mut all, |_| DescribeClusterRequest::default());
    all
}

#[tokio::test(start_paused = true)]
async fn damaged_requests_are_answered_or_closed() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 2, &[]).await.expect("created");
    produce(&mut client, "t", &["a"]).await.expect("produced");
    let requests = requests();
    assert!(requests.len() > 120, "every api in every version");
    let mut answered = 0;
    for (version, whole) in requests {
        for _ in 0..DAMAGES {
            let random = |n: usize| (world.env.random_u64() % n as u64) as usize;
            let mut bytes = whole.clone();
            for _ in 0..random(4) {
                let at = HEAD_BYTES + random(bytes.len() - HEAD_BYTES);
                bytes[at] = match random(4) {
                    0 => 0xff,
                    1 => 0x7f,
                    2 => 0,
                    _ => bytes[at] ^ (1 << random(8)),
                };
            }
            let (mut pipe, serving) = world.watched_pipe();
            pipe.write_all(&bytes).await.expect("written");
            let mut word = [0; 4];
            // Joins, syncs and fetches may wait, but not for ever.
            let first = tokio::time::timeout(Duration::from_secs(700), pipe.read(&mut word)).await;
            answered += usize::from(first.is_ok_and(|read| read.is_ok_and(|bytes| bytes > 0)));
            drop(pipe);
            let ended = serving.await;
            let key = i16::from_be_bytes([bytes[4], bytes[5]]);
            assert!(ended.is_ok(), "api {key} version {version}: {ended:?} on {:?}", Bytes::from(bytes));
        }
    }
    assert!(answered > 1_000, "most damage still makes sense to somebody: {answered}");
    assert_eq!(values(&mut client, "t").await.first().map(String::as_str), Some("a"), "the broker lives");
}
