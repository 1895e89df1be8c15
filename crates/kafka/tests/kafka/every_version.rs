//! Every API in every version of the table.

use floe_kafka::APIS;
use floe_wire::ErrorCode;
use floe_wire::admin::*;
use floe_wire::fetch::*;
use floe_wire::group_offsets::*;
use floe_wire::groups::*;
use floe_wire::metadata::*;
use floe_wire::offsets::*;
use floe_wire::produce::*;
use floe_wire::producer::*;
use uuid::Uuid;

use crate::harness::*;

/// All APIs in each version of the protocol, in an order in which each finds what it needs.
#[tokio::test(start_paused = true)]
async fn every_api_answers_in_every_version() {
    let world = world().await;
    let last = APIS.iter().map(|api| api.max).max().expect("apis");
    for version in 0..=last {
        let mut client = world.client();
        let topic = format!("topic-{version}");
        cluster(&mut client, version).await;
        let id = create(&mut client, version, &topic).await;
        produce_and_fetch(&mut client, version, &topic, id).await;
        list_offsets(&mut client, version, &topic).await;
        group(&mut client, version, &topic).await;
        configs(&mut client, version, &topic).await;
        delete_records(&mut client, version, &topic).await;
        delete(&mut client, version, &topic, id).await;
    }
}

async fn cluster(client: &mut TestClient, version: i16) {
    let request = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
    };
    let response = call_at(client, version, &request).await;
    assert_eq!((response.error_code, response.api_keys.len()), (0, APIS.len()));
    if version <= 2 {
        let described = call_at(client, version, &DescribeClusterRequest::default()).await;
        assert_eq!((described.error_code, described.brokers.len(), described.controller_id), (0, 1, 1));
        assert_eq!(described.cluster_id.len(), 22);
    }
    let request = InitProducerIdRequest { transaction_timeout_ms: 1, ..Default::default() };
    let given = call_at(client, version, &request).await;
    assert_eq!((given.error_code, given.producer_epoch), (0, 0));
    assert!(given.producer_id >= 0);
}

async fn create(client: &mut TestClient, version: i16, topic: &str) -> Uuid {
    let topics = vec![CreatableTopic {
        name: topic.to_owned(),
        num_partitions: 2,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: "retention.ms".to_owned(),
            value: Some("1000".to_owned()),
        }],
        ..Default::default()
    }];
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let created = call_at(client, version, &request).await.topics.remove(0);
    assert_eq!((created.error_code, created.error_message), (0, None));
    if version >= 5 {
        assert_eq!((created.num_partitions, created.replication_factor), (2, 1));
        let configs = created.configs.expect("described");
        assert!(configs.iter().any(|config| config.name == "retention.ms" && config.config_source == 1));
    }
    let twice = call_at(client, version, &request).await.topics.remove(0);
    assert_eq!(twice.error_code, 36, "TOPIC_ALREADY_EXISTS");

    let named = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![named]), ..Default::default() };
    let metadata = call_at(client, version, &request).await;
    assert_eq!(metadata.brokers[0].host, "localhost");
    let shown = &metadata.topics[0];
    assert_eq!((shown.error_code, shown.name.as_deref(), shown.partitions.len()), (0, Some(topic), 2));
    assert_eq!((shown.partitions[1].partition_index, shown.partitions[1].leader_id), (1, 1));
    let all =
        MetadataRequest { topics: if version == 0 { Some(Vec::new()) } else { None }, ..Default::default() };
    assert_eq!(call_at(client, version, &all).await.topics.len(), 1);

    let newest = client.metadata(&[topic]).await.expect("answered");
    let id = newest.topics[0].topic_id;
    if version >= 12 {
        let by_id = vec![MetadataRequestTopic { topic_id: id, name: None }];
        let found =
            call_at(client, version, &MetadataRequest { topics: Some(by_id), ..Default::default() }).await;
        assert_eq!(found.topics[0].name.as_deref(), Some(topic));
    }
    id
}

async fn produce_and_fetch(client: &mut TestClient, version: i16, topic: &str, id: Uuid) {
    let records = Some(batch(&["a", "b"]));
    let data = TopicProduceData {
        name: if version < 13 { topic.to_owned() } else { String::new() },
        topic_id: if version < 13 { Uuid::nil() } else { id },
        partition_data: vec![PartitionProduceData { index: 1, records }],
    };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data: vec![data], ..Default::default() };
    let produced = call_at(client, version, &request).await;
    let answer = &produced.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset, answer.log_append_time_ms), (0, 0, -1));

    let wanted =
        FetchPartition { partition: 1, fetch_offset: 1, partition_max_bytes: 1 << 20, ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: if version < 13 { topic.to_owned() } else { String::new() },
            topic_id: if version < 13 { Uuid::nil() } else { id },
            partitions: vec![wanted],
        }],
        ..Default::default()
    };
    let fetched = call_at(client, version, &request).await;
    let answer = &fetched.responses[0].partitions[0];
    assert_eq!((fetched.error_code, answer.error_code, answer.partition_index), (0, 0, 1));
    assert_eq!((answer.high_watermark, answer.last_stable_offset), (2, 2));
    assert_eq!(answer.records.as_ref().map(floe_wire::Rope::len), Some(batch(&["a", "b"]).len()));
}

async fn list_offsets(client: &mut TestClient, version: i16, topic: &str) {
    for (timestamp, want) in
        [(-1, (2, -1)), (-2, (0, -1)), (-3, (1, 1_001)), (1_001, (1, 1_001)), (9_999, (-1, -1))]
    {
        let asked = ListOffsetsPartition { partition_index: 1, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![asked] }];
        let response = call_at(client, version, &ListOffsetsRequest { topics, ..Default::default() }).await;
        let answer = &response.topics[0].partitions[0];
        assert_eq!(
            (answer.error_code, (answer.offset, answer.timestamp)),
            (0, want),
            "timestamp {timestamp}"
        );
        let epoch = if version.min(10) >= 4 && want.0 >= 0 { 0 } else { -1 };
        assert_eq!(answer.leader_epoch, epoch);
    }
}

async fn group(client: &mut TestClient, version: i16, topic: &str) {
    let group = format!("group-{version}");
    let found = if version >= 4 {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group.clone()], ..Default::default() };
        call_at(client, version, &request).await.coordinators.remove(0).error_code
    } else {
        call_at(client, version, &FindCoordinatorRequest { key: group.clone(), ..Default::default() })
            .await
            .error_code
    };
    assert_eq!(found, 0);
    let member_id = join_and_sync(client, version, &group).await;
    let heartbeat = HeartbeatRequest {
        group_id: group.clone(),
        generation_id: 1,
        member_id: member_id.clone(),
        ..Default::default()
    };
    assert_eq!(call_at(client, version, &heartbeat).await.error_code, 0);
    offsets(client, version, topic, &group, &member_id).await;

    let request = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
    let described = call_at(client, version, &request).await.groups.remove(0);
    assert_eq!(
        (described.error_code, &*described.group_state, &*described.protocol_data),
        (0, "Stable", "range")
    );
    assert_eq!(&*described.members[0].member_assignment, b"mine");
    assert_eq!(described.members[0].client_id, "test-client");
    let listed = call_at(client, version, &ListGroupsRequest::default()).await;
    assert!(
        listed.groups.iter().any(|listed| listed.group_id == group && listed.protocol_type == "consumer")
    );

    let leave = if version >= 3 {
        let members = vec![MemberIdentity { member_id, ..Default::default() }];
        LeaveGroupRequest { group_id: group.clone(), members, ..Default::default() }
    } else {
        LeaveGroupRequest { group_id: group.clone(), member_id, ..Default::default() }
    };
    let left = call_at(client, version, &leave).await;
    assert!(left.error_code == 0 && left.members.iter().all(|member| member.error_code == 0));
    let deleted = call_at(client, version, &DeleteGroupsRequest { groups_names: vec![group] }).await;
    assert_eq!(deleted.results[0].error_code, 0);
}

async fn join_and_sync(client: &mut TestClient, version: i16, group: &str) -> String {
    let mut join = JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: "mine".into() }],
        ..Default::default()
    };
    let mut joined = call_at(client, version, &join).await;
    if version >= 4 {
        assert_eq!(joined.error_code, 79, "MEMBER_ID_REQUIRED");
        join.member_id.clone_from(&joined.member_id);
        joined = call_at(client, version, &join).await;
    }
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
    let assignments =
        vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: "mine".into() }];
    let sync = SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: 1,
        member_id: joined.member_id.clone(),
        protocol_type: (version >= 5).then(|| "consumer".to_owned()),
        protocol_name: (version >= 5).then(|| "range".to_owned()),
        assignments,
        ..Default::default()
    };
    let synced = call_at(client, version, &sync).await;
    assert_eq!((synced.error_code, &*synced.assignment), (0, &b"mine"[..]));
    joined.member_id
}

async fn offsets(client: &mut TestClient, version: i16, topic: &str, group: &str, member_id: &str) {
    let commit = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: 1,
        member_id: member_id.to_owned(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: [0, 9]
                .map(|partition_index| OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: 42,
                    committed_leader_epoch: if version >= 6 { 0 } else { -1 },
                    committed_metadata: Some("note".to_owned()),
                })
                .to_vec(),
        }],
        ..Default::default()
    };
    let committed = call_at(client, version, &commit).await;
    let codes: Vec<i16> = committed.topics[0].partitions.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [0, 3], "the partition that is unknown is refused alone");

    let fetch = |all: bool| {
        let partition_indexes = vec![0, 1];
        if version >= 8 {
            let topics = vec![OffsetFetchRequestTopics { name: topic.to_owned(), partition_indexes }];
            let topics = (!all).then_some(topics);
            let groups =
                vec![OffsetFetchRequestGroup { group_id: group.to_owned(), topics, ..Default::default() }];
            return OffsetFetchRequest { groups, ..Default::default() };
        }
        let topics = vec![OffsetFetchRequestTopic { name: topic.to_owned(), partition_indexes }];
        OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: (!all).then_some(topics),
            ..Default::default()
        }
    };
    let show = |response: OffsetFetchResponse| -> Vec<(i32, i64, String)> {
        let text = |metadata: Option<String>| metadata.unwrap_or_default();
        if let Some(group) = response.groups.into_iter().next() {
            let all = group.topics.into_iter().flat_map(|topic| topic.partitions);
            return all.map(|one| (one.partition_index, one.committed_offset, text(one.metadata))).collect();
        }
        let all = response.topics.into_iter().flat_map(|topic| topic.partitions);
        all.map(|one| (one.partition_index, one.committed_offset, text(one.metadata))).collect()
    };
    let named = show(call_at(client, version, &fetch(false)).await);
    assert_eq!(named, [(0, 42, "note".to_owned()), (1, -1, String::new())]);
    if version >= 2 {
        let all = show(call_at(client, version, &fetch(true)).await);
        assert_eq!(all, [(0, 42, "note".to_owned())]);
    }
}

async fn configs(client: &mut TestClient, version: i16, topic: &str) {
    let resource = |resource_type, name: &str, keys: Option<Vec<String>>| DescribeConfigsResource {
        resource_type,
        resource_name: name.to_owned(),
        configuration_keys: keys,
    };
    let request = DescribeConfigsRequest {
        resources: vec![
            resource(2, topic, Some(vec!["retention.ms".to_owned(), "cleanup.policy".to_owned()])),
            resource(4, "1", None),
            resource(4, "7", None),
            resource(2, "nobody", None),
        ],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    let results = call_at(client, version, &request).await.results;
    let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 0, 42, 3]);
    let shown: Vec<(&str, Option<&str>, i8)> = results[0]
        .configs
        .iter()
        .map(|config| (&*config.name, config.value.as_deref(), config.config_source))
        .collect();
    assert_eq!(shown, [("cleanup.policy", Some("delete"), 5), ("retention.ms", Some("1000"), 1)]);
    assert_eq!(results[0].configs[1].synonyms.len(), 2);
    assert!(results[1].configs.iter().any(|config| config.name == "num.partitions" && config.read_only));
}

async fn delete_records(client: &mut TestClient, version: i16, topic: &str) {
    let mut ask = async |topic: &str, partition_index, offset| {
        let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
        let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 1_000 };
        let answer = call_at(client, version, &request).await.topics.remove(0);
        assert_eq!(answer.name, topic);
        (answer.partitions[0].error_code, answer.partitions[0].low_watermark)
    };
    for (partition, offset, want) in [
        (1, 3, (ErrorCode::OffsetOutOfRange.number(), -1)),
        (1, -2, (ErrorCode::OffsetOutOfRange.number(), -1)),
        (9, 0, (ErrorCode::UnknownTopicOrPartition.number(), -1)),
        (1, 1, (0, 1)),
        (1, 0, (0, 1)),
        (1, -1, (0, 2)),
        (0, -1, (0, 0)),
    ] {
        assert_eq!(ask(topic, partition, offset).await, want, "partition {partition} below {offset}");
    }
    assert_eq!(ask("nobody", 0, 0).await, (ErrorCode::UnknownTopicOrPartition.number(), -1));
}

async fn delete(client: &mut TestClient, version: i16, topic: &str, id: Uuid) {
    let request = if version >= 6 {
        let topics = vec![DeleteTopicState { name: None, topic_id: id }];
        DeleteTopicsRequest { topics, ..Default::default() }
    } else {
        DeleteTopicsRequest { topic_names: vec![topic.to_owned()], ..Default::default() }
    };
    let deleted = call_at(client, version, &request).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.name.as_deref()), (0, Some(topic)));
    let again = call_at(client, version, &request).await.responses.remove(0);
    assert_eq!(again.error_code, if version >= 6 { 100 } else { 3 });
}
