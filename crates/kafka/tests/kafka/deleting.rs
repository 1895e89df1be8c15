//! DeleteRecords, and what other requests say afterwards.

use floe_client::{EARLIEST, LATEST};
use floe_kafka::Config;
use floe_log::RetentionDefaults;
use floe_wire::ErrorCode;
use floe_wire::admin::{DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult};
use floe_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use floe_wire::offsets::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};

use crate::harness::*;

/// The partitions of a request by topic, each with the offset below which records are deleted.
fn request(topics: &[(&str, &[(i32, i64)])]) -> DeleteRecordsRequest {
    let partition = |(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
        partition_index: *partition_index,
        offset: *offset,
    };
    let topic = |(name, partitions): &(&str, &[(i32, i64)])| DeleteRecordsTopic {
        name: (*name).to_owned(),
        partitions: partitions.iter().map(partition).collect(),
    };
    DeleteRecordsRequest { topics: topics.iter().map(topic).collect(), timeout_ms: 1_000 }
}

/// Topic, partition, error and low watermark of each answer.
async fn delete(
    client: &mut TestClient,
    topics: &[(&str, &[(i32, i64)])],
) -> Vec<(String, i32, ErrorCode, i64)> {
    let answer = call(client, &request(topics)).await;
    let of = |topic: &floe_wire::offsets::DeleteRecordsTopicResult| {
        let name = topic.name.clone();
        let partitions = topic.partitions.clone().into_iter();
        let told = partitions.map(move |one| {
            let code = ErrorCode::from_number(one.error_code);
            (name.clone(), one.partition_index, code, one.low_watermark)
        });
        told.collect::<Vec<_>>()
    };
    answer.topics.iter().flat_map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_its_own_answer() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 3, &[]).await.expect("created");
    client.create_topic("kept", 1, &[("cleanup.policy", "compact")]).await.expect("created");
    client.create_topic("both", 1, &[("cleanup.policy", "compact,delete")]).await.expect("created");
    for partition in [0, 2] {
        client.produce("t", partition, batch(&["a", "b", "c"]), -1).await.expect("produced");
    }
    let asked = [
        ("t", &[(0, 2), (1, 0), (2, -1), (3, 0), (0, 4)][..]),
        ("nobody", &[(0, 0)]),
        ("kept", &[(0, -1)]),
        ("both", &[(0, -1)]),
    ];
    let own = |topic: &str, partition, code, low| (topic.to_owned(), partition, code, low);
    let wanted = [
        own("t", 0, ErrorCode::None, 2),
        own("t", 1, ErrorCode::None, 0),
        own("t", 2, ErrorCode::None, 3),
        own("t", 3, ErrorCode::UnknownTopicOrPartition, -1),
        own("t", 0, ErrorCode::OffsetOutOfRange, -1),
        own("nobody", 0, ErrorCode::UnknownTopicOrPartition, -1),
        own("kept", 0, ErrorCode::PolicyViolation, -1),
        own("both", 0, ErrorCode::None, 0),
    ];
    assert_eq!(delete(&mut client, &asked).await, wanted);
    assert_eq!(delete(&mut client, &[]).await, []);
}

#[tokio::test(start_paused = true)]
async fn readers_are_told_where_the_partition_begins() {
    let world = world().await;
    let mut client = world.client();
    client.create_topic("t", 1, &[]).await.expect("created");
    produce(&mut client, "t", &["a", "b"]).await.expect("produced");
    produce(&mut client, "t", &["c"]).await.expect("produced");
    let deleted = delete(&mut client, &[("t", &[(0, 1)])]).await;
    assert_eq!(deleted, [("t".to_owned(), 0, ErrorCode::None, 1)]);
    assert_eq!(client.list_offsets("t", 0, EARLIEST).await.expect("listed").offset, 1);
    assert_eq!(client.list_offsets("t", 0, LATEST).await.expect("listed").offset, 3);

    let ask = |fetch_offset| FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: "t".to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut fetch = async |offset| {
        let answer = call_at(&mut client, 12, &ask(offset)).await.responses.remove(0).partitions.remove(0);
        let bytes = answer.records.as_ref().map_or(0, floe_wire::Rope::len);
        (ErrorCode::from_number(answer.error_code), answer.log_start_offset, answer.high_watermark, bytes > 0)
    };
    assert_eq!(fetch(0).await, (ErrorCode::OffsetOutOfRange, 1, 3, false));
    assert_eq!(fetch(1).await, (ErrorCode::None, 1, 3, true), "the batch around the log start");
    assert_eq!(fetch(2).await, (ErrorCode::None, 1, 3, true));
    delete(&mut client, &[("t", &[(0, -1)])]).await;
    assert_eq!(produce(&mut client, "t", &["d"]).await.expect("produced"), 3, "the log goes on");
}

/// The settings of retention, and where they come from.
async fn described(client: &mut TestClient, topic: &str) -> Vec<DescribeConfigsResourceResult> {
    let keys = vec!["retention.bytes".to_owned(), "retention.ms".to_owned()];
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic.to_owned(),
        configuration_keys: Some(keys),
    };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, ..Default::default() };
    call(client, &request).await.results.remove(0).configs
}

#[tokio::test(start_paused = true)]
async fn topics_show_the_retention_of_the_broker() {
    let log = floe_log::Config {
        retention: RetentionDefaults { ms: 1_000, bytes: -1 },
        ..floe_log::Config::default()
    };
    let world = World::open_with(&disk(), Config::default(), log).await;
    let mut client = world.client();
    client.create_topic("plain", 1, &[]).await.expect("created");
    client.create_topic("own", 1, &[("retention.ms", "5")]).await.expect("created");
    let show = |configs: Vec<DescribeConfigsResourceResult>| {
        let own = |config: DescribeConfigsResourceResult| {
            let chain =
                config.synonyms.into_iter().map(|one| (one.name, one.value.unwrap_or_default(), one.source));
            (config.value.unwrap_or_default(), config.config_source, chain.collect::<Vec<_>>())
        };
        configs.into_iter().map(own).collect::<Vec<_>>()
    };
    let link = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    let bytes = ("-1".to_owned(), 5, vec![link("log.retention.bytes", "-1", 5)]);
    let of_broker = [link("log.retention.ms", "1000", 4), link("log.retention.ms", "604800000", 5)];
    let plain = show(described(&mut client, "plain").await);
    assert_eq!(plain, [bytes.clone(), ("1000".to_owned(), 4, of_broker.to_vec())]);
    let chain = [vec![link("retention.ms", "5", 1)], of_broker.to_vec()].concat();
    assert_eq!(show(described(&mut client, "own").await), [bytes, ("5".to_owned(), 1, chain)]);
}
