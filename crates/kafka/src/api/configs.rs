//! DescribeConfigs: the settings of topics and of this broker.

use std::collections::BTreeSet;

use floe_log::topic::Topic;
use floe_log::topic_config::{self, TOPIC_CONFIGS};
use floe_log::{Log, RetentionDefaults};
use floe_wire::ErrorCode;
use floe_wire::admin::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use crate::api::call::Context;
use crate::config::Config;
use crate::directory::TopicRef;
use crate::limits;

/// Resource types of the protocol.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Where a value comes from, in the protocol's numbers.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// Types of values, in the protocol's numbers.
const KIND_BOOLEAN: i8 = 1;
const KIND_STRING: i8 = 2;
const KIND_INT: i8 = 3;
const KIND_LONG: i8 = 5;

const TOO_MANY: &str = "too many topics and brokers in one request, ask for 1000 at a time";

/// From this version on the answer carries types and documentation.
const TYPES_FROM: i16 = 3;

/// One setting as the protocol shows it.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: i8,
    kind: i8,
    read_only: bool,
    documentation: &'static str,
    /// What this broker has instead of the default.
    broker: Option<String>,
    default: &'static str,
    default_name: &'static str,
}

/// All settings of a topic, in the order of their names. `log` knows the defaults of this broker.
pub(crate) fn of_topic(topic: &Topic, log: &Log) -> Vec<Setting> {
    let (defaults, trash) = (log.retention_defaults(), log.trash());
    let shown = |row: &'static topic_config::Setting| {
        let broker = match row.name {
            "retention.ms" => Some(defaults.ms.to_string()),
            "retention.bytes" => Some(defaults.bytes.to_string()),
            "floe.trash.ms" => Some(trash.ms.to_string()),
            _ => None,
        };
        let broker = broker.filter(|value| value != row.default);
        let (value, source) = match (topic.configs.get(row.name), &broker) {
            (Some(value), _) => (value.clone(), SOURCE_TOPIC),
            (None, Some(value)) => (value.clone(), SOURCE_BROKER),
            (None, None) => (row.default.to_owned(), SOURCE_DEFAULT),
        };
        Setting {
            name: row.name,
            value,
            source,
            kind: row.kind as i8,
            read_only: false,
            documentation: row.doc,
            broker,
            default: row.default,
            default_name: if row.broker_name.is_empty() { row.name } else { row.broker_name },
        }
    };
    TOPIC_CONFIGS.iter().map(shown).collect()
}

/// The settings of this broker that have a name in Kafka.
fn of_broker(config: &Config, retention: RetentionDefaults) -> Vec<Setting> {
    let setting = |name, kind, value: String| Setting {
        name,
        value,
        source: SOURCE_BROKER,
        kind,
        read_only: true,
        documentation: "Given when the broker starts.",
        broker: None,
        default: "",
        default_name: "",
    };
    let ms = |duration: std::time::Duration| duration.as_millis().to_string();
    let sessions = floe_group::limits::GROUP_SESSION_TIMEOUT_MS;
    vec![
        setting("auto.create.topics.enable", KIND_BOOLEAN, config.auto_create_topics.to_string()),
        setting("broker.id", KIND_INT, config.node_id.to_string()),
        setting("broker.rack", KIND_STRING, config.rack.clone().unwrap_or_default()),
        setting("connections.max.idle.ms", KIND_LONG, ms(config.idle)),
        setting("default.replication.factor", KIND_INT, "1".to_owned()),
        setting("fetch.max.bytes", KIND_INT, config.fetch_bytes_max.to_string()),
        setting("group.initial.rebalance.delay.ms", KIND_INT, ms(config.group_initial_delay)),
        setting("group.max.session.timeout.ms", KIND_INT, sessions.end().to_string()),
        setting("group.max.size", KIND_INT, config.group_members_max.to_string()),
        setting("group.min.session.timeout.ms", KIND_INT, sessions.start().to_string()),
        setting("log.retention.bytes", KIND_LONG, retention.bytes.to_string()),
        setting("log.retention.ms", KIND_LONG, retention.ms.to_string()),
        setting("max.connections", KIND_INT, config.connections_max.to_string()),
        setting("max.connections.per.ip", KIND_INT, config.connections_per_ip_max.to_string()),
        setting("max.incremental.fetch.session.cache.slots", KIND_INT, config.fetch_sessions_max.to_string()),
        setting("node.id", KIND_INT, config.node_id.to_string()),
        setting("num.partitions", KIND_INT, config.default_partitions.to_string()),
        setting(
            "offset.metadata.max.bytes",
            KIND_INT,
            floe_group::limits::OFFSET_METADATA_BYTES_MAX.to_string(),
        ),
        setting("offsets.retention.minutes", KIND_INT, (config.offsets_retention.as_secs() / 60).to_string()),
        setting("socket.request.max.bytes", KIND_INT, config.frame_bytes_max.to_string()),
    ]
}

/// Answers DescribeConfigs.
pub(crate) async fn describe_configs(
    context: &Context<'_>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let resources = each_once(request.resources);
    let described = resources.len().min(limits::CONFIG_RESOURCES_PER_REQUEST_MAX);
    context.reserve(described * limits::CONFIG_RESOURCE_ANSWER_BYTES).await;
    let mut results = Vec::with_capacity(resources.len());
    for (at, resource) in resources.into_iter().enumerate() {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResult::default()
        };
        let found = match at < described {
            true => settings(context, &resource),
            false => Err((ErrorCode::PolicyViolation, TOO_MANY)),
        };
        match found {
            Ok(settings) => {
                let settings = settings.into_iter().filter(|setting| wanted(&resource, setting));
                result.configs = settings
                    .map(|setting| shown(context.version, &setting, synonyms, documentation))
                    .collect();
            }
            Err((code, message)) => {
                result.error_code = code.number();
                result.error_message = Some(message.to_owned());
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

/// The resources without repetitions: a name takes a few bytes, its description many.
fn each_once(resources: Vec<DescribeConfigsResource>) -> Vec<DescribeConfigsResource> {
    let mut seen = BTreeSet::new();
    let mut once = resources;
    once.retain(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())));
    once
}

/// Whether the setting was asked for; without keys all are.
fn wanted(resource: &DescribeConfigsResource, setting: &Setting) -> bool {
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    keys.is_empty() || keys.iter().any(|key| key == setting.name)
}

fn settings(
    context: &Context<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Setting>, (ErrorCode, &'static str)> {
    match resource.resource_type {
        TOPIC => {
            let name = TopicRef::Name(resource.resource_name.as_str().into());
            let topic = context.broker.directory.topic(&name);
            let topic = topic.map_err(|code| (code, "there is no such topic"))?;
            Ok(of_topic(&topic, &context.broker.log))
        }
        BROKER => {
            let config = &context.broker.config;
            // An empty name asks for settings of the whole cluster that were changed at run time: there are none.
            if resource.resource_name.is_empty() {
                return Ok(Vec::new());
            }
            if resource.resource_name != config.node_id.to_string() {
                return Err((ErrorCode::InvalidRequest, "this broker knows only its own settings"));
            }
            Ok(of_broker(config, context.broker.log.retention_defaults()))
        }
        BROKER_LOGGER if resource.resource_name != context.broker.config.node_id.to_string() => {
            Err((ErrorCode::InvalidRequest, "this broker knows only its own loggers"))
        }
        CLIENT_METRICS | GROUP if resource.resource_name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "the name of the group or subscription must not be empty"))
        }
        // Log levels are set when the broker starts. No client subscribes to metrics. Groups have no settings.
        BROKER_LOGGER | CLIENT_METRICS | GROUP => Ok(Vec::new()),
        _ => Err((ErrorCode::InvalidRequest, "there are no settings of this type of resource")),
    }
}

fn shown(
    version: i16,
    setting: &Setting,
    synonyms: bool,
    documentation: bool,
) -> DescribeConfigsResourceResult {
    let mut result = DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(setting.value.clone()),
        read_only: setting.read_only,
        config_source: setting.source,
        ..DescribeConfigsResourceResult::default()
    };
    if synonyms {
        result.synonyms = chain(setting);
    }
    if version >= TYPES_FROM {
        result.config_type = setting.kind;
        result.documentation = documentation.then(|| setting.documentation.to_owned());
    }
    result
}

/// The source of the value, and the defaults that it hides.
fn chain(setting: &Setting) -> Vec<DescribeConfigsSynonym> {
    let synonym = |name: &str, value: &str, source| DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source,
    };
    let mut chain = Vec::new();
    let is_own = setting.source == SOURCE_TOPIC || setting.broker.is_none();
    if setting.source != SOURCE_DEFAULT && is_own {
        chain.push(synonym(setting.name, &setting.value, setting.source));
    }
    if let Some(value) = &setting.broker {
        chain.push(synonym(setting.default_name, value, SOURCE_BROKER));
    }
    if !setting.default_name.is_empty() {
        chain.push(synonym(setting.default_name, setting.default, SOURCE_DEFAULT));
    }
    chain
}
