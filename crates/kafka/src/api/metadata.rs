//! Metadata and DescribeCluster: brokers, topics and partitions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use floe_env::LogLines;
use floe_log::topic::{self, NewTopic, Topic, TopicError};
use floe_wire::ErrorCode;
use floe_wire::metadata::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, MetadataRequest,
    MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};

use crate::api::call::Context;
use crate::api::errors;
use crate::api::operations;
use crate::api::topics::check_client_name;
use crate::directory::TopicRef;
use crate::limits;
use crate::shared::Shared;

/// The endpoint type of brokers, as opposed to controllers (KIP-919).
const ENDPOINT_BROKERS: i8 = 1;
const LEADER_EPOCH: i32 = 0;

/// Answers Metadata. Missing topics are created if both the request and the settings allow it.
pub(crate) async fn metadata(context: &Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let broker = context.broker;
    let config = &broker.config;
    let found = match request.topics {
        Some(topics) if context.version > 0 || !topics.is_empty() => {
            named(context, topics, request.allow_auto_topic_creation && config.auto_create_topics).await
        }
        _ => all(broker),
    };
    let partitions = |found: &Found| found.as_ref().map_or(1, |topic| topic.partitions as usize);
    let partitions: usize = found.iter().map(partitions).sum();
    context.reserve(partitions.saturating_mul(limits::PARTITION_ANSWER_BYTES)).await;
    let on_topic = operations::answer(request.include_topic_authorized_operations, operations::ON_TOPIC);
    let on_cluster =
        operations::answer(request.include_cluster_authorized_operations, operations::ON_CLUSTER);
    let shown = |found: Found| found.map_or_else(|failed| *failed, |topic| shown(broker, &topic, on_topic));
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: config.node_id,
            host: config.advertised_host.clone(),
            port: i32::from(config.advertised_port),
            rack: config.rack.clone(),
        }],
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: config.node_id,
        topics: found.into_iter().map(shown).collect(),
        cluster_authorized_operations: on_cluster,
        ..MetadataResponse::default()
    }
}

/// A topic, or the part of the answer that says why there is none.
type Found = Result<Arc<Topic>, Box<MetadataResponseTopic>>;

fn all(broker: &Shared) -> Vec<Found> {
    match topic::all(&broker.log.meta().snapshot()) {
        Ok(topics) => topics.into_iter().map(|topic| Ok(Arc::new(topic))).collect(),
        Err(error) => vec![Err(failed(errors::metadata(&error), Some(String::new()), uuid::Uuid::nil()))],
    }
}

/// The topics that are asked for by name or id, each once: a name takes a few bytes, the answer for its topic many.
async fn named(context: &Context<'_>, topics: Vec<MetadataRequestTopic>, create: bool) -> Vec<Found> {
    let mut creator = Creator {
        context,
        left: if create { limits::TOPICS_CREATED_BY_METADATA_MAX } else { 0 },
        allowed: create,
        failures: 0,
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(topics.len());
    for topic in topics {
        if seen.insert((topic.name.clone(), topic.topic_id)) {
            found.push(one(context, topic, &mut creator).await);
        }
    }
    if creator.failures > 1 {
        let (peer, failures) = (&*context.peer.name, creator.failures);
        tracing::warn!(peer, failures, "topics that a client asked for cannot be created");
    }
    found
}

fn failed(code: ErrorCode, name: Option<String>, topic_id: uuid::Uuid) -> Box<MetadataResponseTopic> {
    let error_code = code.number();
    Box::new(MetadataResponseTopic { error_code, name, topic_id, ..MetadataResponseTopic::default() })
}

async fn one(context: &Context<'_>, asked: MetadataRequestTopic, creator: &mut Creator<'_>) -> Found {
    let Some(name) = asked.name else {
        let by_id = context.broker.directory.topic(&TopicRef::Id(asked.topic_id.as_u128()));
        // Before version 12 the name cannot be null.
        let nameless = (context.version < 12).then(String::new);
        return by_id.map_err(|code| failed(code, nameless, asked.topic_id));
    };
    let found = match context.broker.directory.topic(&TopicRef::Name(name.as_str().into())) {
        Err(ErrorCode::UnknownTopicOrPartition) if check_client_name(&name).is_err() => {
            Err(ErrorCode::InvalidTopicException)
        }
        Err(ErrorCode::UnknownTopicOrPartition) if creator.allowed => creator.create(&name).await,
        found => found,
    };
    found.map_err(|code| failed(code, Some(name), uuid::Uuid::nil()))
}

/// Lines about topics that clients created by asking for them. A client may ask for thousands.
static CREATED_LINES: LogLines = LogLines::new(limits::CREATED_LINES_PER_MINUTE, Duration::from_secs(60));

/// Creates the missing topics of one request.
struct Creator<'a> {
    context: &'a Context<'a>,
    allowed: bool,
    /// How many more topics it may try to create.
    left: usize,
    failures: usize,
}

impl Creator<'_> {
    async fn create(&mut self, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        if self.left == 0 {
            // On this code the client asks again.
            return Err(ErrorCode::LeaderNotAvailable);
        }
        self.left -= 1;
        let context = self.context;
        let config = &context.broker.config;
        let new = NewTopic {
            name: name.to_owned(),
            partitions: config.default_partitions,
            configs: config.default_topic_configs.iter().cloned().collect(),
        };
        match context.broker.log.create_topic(&context.writer(), new, false).await {
            Ok(topic) => {
                let peer = &*context.peer.name;
                if let Some(left_out) = CREATED_LINES.next(context.broker.env.monotonic()) {
                    tracing::info!(
                        topic = name,
                        peer,
                        left_out,
                        "topic created because a client asked for it"
                    );
                }
                Ok(Arc::new(topic))
            }
            // Another client created it meanwhile.
            Err(TopicError::Exists(_)) => context.broker.directory.topic(&TopicRef::Name(name.into())),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Logs the first failure only. After a failure that is not this name's fault no further topic is tried.
    fn failed(&mut self, name: &str, error: &TopicError) -> ErrorCode {
        if self.failures == 0 {
            tracing::warn!(topic = name, %error, "a topic that a client asked for cannot be created");
        }
        self.failures += 1;
        if !matches!(error, TopicError::InvalidName { .. }) {
            self.left = 0;
        }
        match errors::topic(error) {
            code if code.retriable() => ErrorCode::LeaderNotAvailable,
            code => code,
        }
    }
}

fn shown(broker: &Shared, topic: &Topic, operations: i32) -> MetadataResponseTopic {
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
        topic_authorized_operations: operations,
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
        cluster_authorized_operations: operations::answer(
            request.include_cluster_authorized_operations,
            operations::ON_CLUSTER,
        ),
        ..DescribeClusterResponse::default()
    }
}
