//! ApiVersions, Metadata, DescribeCluster: what a client learns first.

use std::sync::Arc;

use bytes::Bytes;
use floe_log::topic::{self, Topic};
use floe_log::topic::{NewTopic, TopicError};
use floe_wire::metadata::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, DescribeClusterBroker, DescribeClusterRequest,
    DescribeClusterResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use floe_wire::{ApiKey, ErrorCode, Message as _};

use crate::apis::{self, APIS, Api};
use crate::broker::Inner;
use crate::conn::Ending;
use crate::errors;
use crate::fetch::session::TopicRef;
use crate::request::{Call, Context};

/// The endpoint type of brokers, as opposed to controllers (KIP-919).
const ENDPOINT_BROKERS: i8 = 1;
const LEADER_EPOCH: i32 = 0;

/// Answers ApiVersions from the table. A version that is too new is answered in version 0 with
/// `UNSUPPORTED_VERSION` and the table, so that the client can ask again (KIP-511).
pub(crate) fn api_versions(api: &'static Api, call: &mut Call) -> Result<Vec<Bytes>, Ending> {
    let api_keys = APIS.iter().map(offered).collect();
    let mut response = ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() };
    if call.unsupported {
        response.error_code = ErrorCode::UnsupportedVersion.number();
        return apis::encode(api, call, &response);
    }
    let request: ApiVersionsRequest = apis::decode(api, call)?;
    let nameless = |text: &str| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic());
    if call.version >= 3
        && (nameless(&request.client_software_name) || nameless(&request.client_software_version))
    {
        response =
            ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.number(), ..Default::default() };
    }
    apis::encode(api, call, &response)
}

/// An API as it is offered. Produce is offered from version 0 on, as by Kafka 4 (KAFKA-18659), which answers none below
/// 3 either: librdkafka up to 2.11 takes a broker without version 0 for one that knows no gzip, snappy or lz4, and
/// sends without compression.
fn offered(api: &Api) -> ApiVersion {
    let min_version = if api.key == ApiKey::Produce { 0 } else { api.min };
    ApiVersion { api_key: api.key.number(), min_version, max_version: api.max }
}

impl Call {
    /// An ApiVersions request of a version that is not known: its body cannot be read and need not be.
    pub(crate) fn unsupported_api_versions(correlation_id: i32, arrived: tokio::time::Instant) -> Call {
        Call {
            version: ApiVersionsRequest::VERSION_MIN,
            correlation_id,
            client_id: String::new(),
            body: floe_wire::Reader::new(Bytes::new()),
            arrived,
            permit: None,
            unsupported: true,
        }
    }
}

/// Answers Metadata; creates topics that do not exist where request and settings allow it.
pub(crate) async fn metadata(context: &Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let broker = context.broker;
    let config = &broker.config;
    let topics = match request.topics {
        Some(topics) if context.version > 0 || !topics.is_empty() => {
            let create = request.allow_auto_topic_creation && config.auto_create_topics;
            let mut answers = Vec::with_capacity(topics.len());
            for topic in topics {
                answers.push(one(context, topic, create).await);
            }
            answers
        }
        _ => all(broker),
    };
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: config.node_id,
            host: config.advertised_host.clone(),
            port: i32::from(config.advertised_port),
            rack: config.rack.clone(),
        }],
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: config.node_id,
        topics,
        ..MetadataResponse::default()
    }
}

fn all(broker: &Inner) -> Vec<MetadataResponseTopic> {
    match topic::all(&broker.log.meta().snapshot()) {
        Ok(topics) => topics.iter().map(|topic| shown(broker, topic)).collect(),
        Err(error) => {
            let code = errors::metadata(&error);
            vec![MetadataResponseTopic {
                error_code: code.number(),
                name: Some(String::new()),
                ..Default::default()
            }]
        }
    }
}

async fn one(context: &Context<'_>, asked: MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let failed = |code: ErrorCode, name: Option<String>, id| MetadataResponseTopic {
        error_code: code.number(),
        // Before version 12 a name may not be missing.
        name: name.or_else(|| (context.version < 12).then(String::new)),
        topic_id: id,
        ..MetadataResponseTopic::default()
    };
    let Some(name) = asked.name else {
        let by_id = TopicRef::Id(asked.topic_id.as_u128());
        return match context.broker.directory.topic(&by_id) {
            Ok(topic) => shown(context.broker, &topic),
            Err(code) => failed(code, None, asked.topic_id),
        };
    };
    let found = match context.broker.directory.topic(&TopicRef::Name(name.as_str().into())) {
        Ok(topic) => Ok(topic),
        Err(ErrorCode::UnknownTopicOrPartition) if topic::check_name(&name).is_err() => {
            Err(ErrorCode::InvalidTopicException)
        }
        Err(ErrorCode::UnknownTopicOrPartition) if create => create_by_itself(context, &name).await,
        Err(code) => Err(code),
    };
    match found {
        Ok(topic) => shown(context.broker, &topic),
        Err(code) => failed(code, Some(name), uuid::Uuid::nil()),
    }
}

async fn create_by_itself(context: &Context<'_>, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    let config = &context.broker.config;
    let new = NewTopic {
        name: name.to_owned(),
        partitions: config.default_partitions,
        configs: config.default_topic_configs.iter().cloned().collect(),
    };
    match context.broker.log.create_topic(&context.writer(), new, false).await {
        Ok(topic) => {
            tracing::info!(
                topic = name,
                peer = &*context.peer.name,
                "topic created because a client asked for it"
            );
            Ok(Arc::new(topic))
        }
        // Another client was faster.
        Err(TopicError::Exists(_)) => context.broker.directory.topic(&TopicRef::Name(name.into())),
        Err(error) => {
            tracing::warn!(topic = name, %error, "a topic that a client asked for cannot be created");
            match errors::topic(&error) {
                code if code.retriable() => Err(ErrorCode::LeaderNotAvailable),
                code => Err(code),
            }
        }
    }
}

fn shown(broker: &Inner, topic: &Topic) -> MetadataResponseTopic {
    let node_id = broker.config.node_id;
    let partition = |index: u32| MetadataResponsePartition {
        error_code: ErrorCode::None.number(),
        partition_index: i32::try_from(index).expect("a topic has at most 2^31 partitions"),
        leader_id: node_id,
        leader_epoch: LEADER_EPOCH,
        replica_nodes: vec![node_id],
        isr_nodes: vec![node_id],
        offline_replicas: Vec::new(),
    };
    MetadataResponseTopic {
        error_code: ErrorCode::None.number(),
        name: Some(topic.name.clone()),
        topic_id: topic.uuid(),
        is_internal: false,
        partitions: (0..topic.partitions).map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}

/// Answers DescribeCluster.
pub(crate) async fn describe_cluster(
    context: &Context<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let config = &context.broker.config;
    if request.endpoint_type != ENDPOINT_BROKERS {
        return DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.number(),
            error_message: Some("this is a broker, its endpoint type is 1".to_owned()),
            ..DescribeClusterResponse::default()
        };
    }
    DescribeClusterResponse {
        cluster_id: context.broker.cluster_id.clone(),
        controller_id: config.node_id,
        brokers: vec![DescribeClusterBroker {
            broker_id: config.node_id,
            host: config.advertised_host.clone(),
            port: i32::from(config.advertised_port),
            rack: config.rack.clone(),
            is_fenced: false,
        }],
        ..DescribeClusterResponse::default()
    }
}
