//! CreateTopics and DeleteTopics.

use std::collections::{BTreeMap, BTreeSet};

use floe_log::topic::{self, NewTopic, PARTITIONS_MAX, Topic, TopicError};
use floe_wire::ErrorCode;
use floe_wire::admin::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};

use crate::api::call::Context;
use crate::api::configs;
use crate::api::errors;
use crate::directory::TopicRef;
use crate::limits;

/// Kafka's word for "the broker's default".
const DEFAULT: i32 = -1;
/// From this version on the answer describes the topic.
const DESCRIBED_FROM: i16 = 5;
/// Every topic has one replica: durability is the store's, not a second broker's.
const REPLICAS: i16 = 1;

/// Topics that Kafka's brokers keep for themselves. Nobody else makes them: tools would take a client's topic for the
/// broker's.
const INTERNAL_TOPICS: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

type TopicFailure = (ErrorCode, String);

/// Checks the name of a topic that a client wants to create.
///
/// # Errors
/// [`TopicError::InvalidName`] with the rule.
pub(crate) fn check_client_name(name: &str) -> Result<(), TopicError> {
    if INTERNAL_TOPICS.contains(&name) {
        let reason = "it is one of Kafka's internal topics, which no client creates".to_owned();
        return Err(TopicError::InvalidName { name: name.to_owned(), reason });
    }
    topic::check_name(name)
}

/// Answers CreateTopics, topic by topic.
pub(crate) async fn create_topics(
    context: &Context<'_>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut names = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        if !names.insert(topic.name.clone()) {
            twice.insert(topic.name.clone());
        }
    }
    let too_many = too_many(context, &request.topics);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let created = if let Some(message) = &too_many {
            Err((ErrorCode::PolicyViolation, message.clone()))
        } else if twice.contains(&name) {
            Err((ErrorCode::InvalidRequest, "the topic is named twice in the request".to_owned()))
        } else {
            create(context, topic, request.validate_only).await
        };
        topics.push(match created {
            Ok(topic) => created_result(context, &topic, request.validate_only),
            Err((code, message)) => CreatableTopicResult {
                name,
                error_code: code.number(),
                error_message: Some(message),
                configs: None,
                ..CreatableTopicResult::default()
            },
        });
    }
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

/// Why the request as a whole asks for too much; Kafka, too, then refuses it as a whole.
fn too_many(context: &Context<'_>, topics: &[CreatableTopic]) -> Option<String> {
    if topics.len() > limits::TOPICS_PER_REQUEST_MAX {
        return Some(format!("a request creates up to {} topics", limits::TOPICS_PER_REQUEST_MAX));
    }
    // A topic with a fault of its own counts as none here; its own answer names the fault.
    let partitions = topics.iter().map(|topic| u64::from(partitions(context, topic).unwrap_or(0)));
    let (asked, max) = (partitions.sum::<u64>(), limits::PARTITIONS_PER_REQUEST_MAX);
    (asked > max).then(|| format!("a request creates up to {max} partitions, this one asks for {asked}"))
}

async fn create(
    context: &Context<'_>,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<Topic, TopicFailure> {
    check_client_name(&topic.name).map_err(|error| (errors::topic(&error), message(&error)))?;
    let partitions = partitions(context, &topic)?;
    let mut configs = BTreeMap::new();
    for config in topic.configs {
        let missing = || (ErrorCode::InvalidConfig, format!("the setting {} has no value", config.name));
        configs.insert(config.name.clone(), config.value.clone().ok_or_else(missing)?);
    }
    let new = NewTopic { name: topic.name, partitions, configs };
    let created = context.broker.log.create_topic(&context.writer(), new, validate_only).await;
    created.map_err(|error| (errors::topic(&error), message(&error)))
}

/// The text of an error. It quotes the request, so it is cut to a length that old versions can carry.
fn message(error: &TopicError) -> String {
    let mut words = error.to_string();
    words.truncate(words.floor_char_boundary(limits::ERROR_MESSAGE_BYTES_MAX));
    words
}

/// The number of partitions, given as a number or by an assignment. The brokers of an assignment do not matter, because
/// every broker serves every partition. But it must be complete, so that tools count the partitions right.
fn partitions(context: &Context<'_>, topic: &CreatableTopic) -> Result<u32, TopicFailure> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != DEFAULT || i32::from(topic.replication_factor) != DEFAULT {
            let message = "a replica assignment goes with -1 as the number of partitions and replicas";
            return Err((ErrorCode::InvalidRequest, message.to_owned()));
        }
        let wrong = |message: &str| Err((ErrorCode::InvalidReplicaAssignment, message.to_owned()));
        let indexes: BTreeSet<i32> = topic.assignments.iter().map(|one| one.partition_index).collect();
        let count = i32::try_from(indexes.len()).expect("a request has fewer bytes");
        if indexes.len() != topic.assignments.len() || !indexes.iter().copied().eq(0..count) {
            return wrong("a replica assignment must name each partition from 0 on once");
        }
        let unique = |ids: &[i32]| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        if topic.assignments.iter().any(|one| one.broker_ids.is_empty() || !unique(&one.broker_ids)) {
            return wrong("each partition needs at least one broker, and each only once");
        }
        return checked_partitions(count);
    }
    if topic.replication_factor != -1 && topic.replication_factor < 1 {
        let message = "the replication factor must be -1 (default) or at least 1";
        return Err((ErrorCode::InvalidReplicationFactor, message.to_owned()));
    }
    match topic.num_partitions {
        DEFAULT => Ok(context.broker.config.default_partitions),
        count => checked_partitions(count),
    }
}

fn checked_partitions(count: i32) -> Result<u32, TopicFailure> {
    let max = PARTITIONS_MAX;
    match u32::try_from(count) {
        Ok(partitions) if (1..=max).contains(&partitions) => Ok(partitions),
        _ => Err((
            ErrorCode::InvalidPartitions,
            format!("a topic has between 1 and {max} partitions, not {count}"),
        )),
    }
}

fn created_result(context: &Context<'_>, topic: &Topic, validate_only: bool) -> CreatableTopicResult {
    let mut result = CreatableTopicResult { name: topic.name.clone(), ..CreatableTopicResult::default() };
    if !validate_only {
        result.topic_id = topic.uuid();
    }
    if context.version >= DESCRIBED_FROM {
        result.num_partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        result.replication_factor = REPLICAS;
        let config = |setting: configs::Setting| CreatableTopicConfigs {
            name: setting.name.to_owned(),
            value: Some(setting.value),
            read_only: false,
            config_source: setting.source,
            is_sensitive: false,
        };
        let described = configs::of_topic(topic, &context.broker.log);
        result.configs = Some(described.into_iter().map(config).collect());
    }
    result
}

/// Answers DeleteTopics, topic by topic.
pub(crate) async fn delete_topics(
    context: &Context<'_>,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter();
    let by_name = by_name.map(|name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() });
    let mut responses = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, topic) in request.topics.into_iter().chain(by_name).enumerate() {
        let fresh = seen.insert((topic.name.clone(), topic.topic_id));
        let deleted = if at >= limits::TOPICS_PER_REQUEST_MAX {
            Err((ErrorCode::PolicyViolation, "too many topics in one request".to_owned()))
        } else if !fresh {
            Err((ErrorCode::InvalidRequest, "the topic is named twice in the request".to_owned()))
        } else {
            delete(context, &topic).await
        };
        responses.push(deleted_result(context.version, topic, deleted));
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

async fn delete(
    context: &Context<'_>,
    topic: &DeleteTopicState,
) -> Result<(String, uuid::Uuid), TopicFailure> {
    let name = match &topic.name {
        Some(_) if !topic.topic_id.is_nil() => {
            return Err((
                ErrorCode::InvalidRequest,
                "name a topic by its name or by its id, not both".to_owned(),
            ));
        }
        Some(name) => TopicRef::Name(name.as_str().into()),
        None => TopicRef::Id(topic.topic_id.as_u128()),
    };
    let unknown = |code| (code, "there is no such topic".to_owned());
    let found = context.broker.directory.topic(&name).map_err(unknown)?;
    let deleted = context.broker.log.delete_topic(&context.writer(), found.id).await;
    deleted.map_err(|error| (errors::topic(&error), message(&error)))?;
    Ok((found.name.clone(), found.uuid()))
}

fn deleted_result(
    version: i16,
    asked: DeleteTopicState,
    deleted: Result<(String, uuid::Uuid), TopicFailure>,
) -> DeletableTopicResult {
    match deleted {
        Ok((name, topic_id)) => DeletableTopicResult {
            name: Some(name),
            topic_id,
            error_code: ErrorCode::None.number(),
            error_message: None,
        },
        Err((code, message)) => DeletableTopicResult {
            name: asked.name.or_else(|| (version < 6).then(String::new)),
            topic_id: asked.topic_id,
            error_code: code.number(),
            error_message: Some(message),
        },
    }
}
