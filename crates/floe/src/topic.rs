//! `floe topic`: topics on a running broker, through the Kafka protocol.

use anyhow::{Context, Result};
use floe_client::{Client, EARLIEST, LATEST};
use floe_wire::ErrorCode;
use floe_wire::admin::{DescribeConfigsRequest, DescribeConfigsResource};
use floe_wire::metadata::MetadataResponseTopic;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::cli::{TopicAction, TopicArgs};
use crate::term::{columns, say};

/// The resource type of topics in `DescribeConfigs` (KIP-133).
const TOPIC_RESOURCE: i8 = 2;
/// The source of a setting that was made on the topic itself (KIP-226).
const SET_ON_TOPIC: i8 = 1;

/// Runs the command.
pub(crate) async fn run(args: TopicArgs) -> Result<()> {
    let client = Client::connect(&args.bootstrap, "floe").await;
    let mut client = client.with_context(|| {
        format!(
            "no broker answers at {}: start one with `floe serve`, or name it with --bootstrap",
            args.bootstrap
        )
    })?;
    match args.action {
        TopicAction::List => list(&mut client, args.json).await,
        TopicAction::Create { name, partitions, configs } => {
            create(&mut client, &name, partitions, &configs).await?;
            say(&told(args.json, &name, "created"))?;
            Ok(())
        }
        TopicAction::Describe { name } => describe(&mut client, &name, args.json).await,
        TopicAction::Delete { name } => {
            client.delete_topic(&name).await.with_context(|| format!("cannot delete {name}"))?;
            say(&told(args.json, &name, "deleted"))?;
            Ok(())
        }
    }
}

fn told(as_json: bool, name: &str, what: &str) -> String {
    if as_json { json!({ "topic": name, "outcome": what }).to_string() } else { format!("{what} {name}") }
}

async fn create(
    client: &mut Client<TcpStream>,
    name: &str,
    partitions: u32,
    configs: &[String],
) -> Result<()> {
    let partitions = i32::try_from(partitions).context("too many partitions")?;
    let mut pairs = Vec::with_capacity(configs.len());
    for config in configs {
        pairs.push(config.split_once('=').with_context(|| format!("`{config}` is not KEY=VALUE"))?);
    }
    client.create_topic(name, partitions, &pairs).await.with_context(|| format!("cannot create {name}"))
}

async fn list(client: &mut Client<TcpStream>, as_json: bool) -> Result<()> {
    let topics = client.metadata(&[]).await?.topics;
    if as_json {
        let topics: Vec<Value> = topics
            .iter()
            .map(|t| json!({ "topic": t.name, "id": t.topic_id.to_string(), "partitions": t.partitions.len() }))
            .collect();
        say(&Value::from(topics).to_string())?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = topics
        .iter()
        .map(|t| vec![t.name.clone().unwrap_or_default(), t.partitions.len().to_string()])
        .collect();
    say(&columns(&["topic", "partitions"], &rows))?;
    Ok(())
}

async fn describe(client: &mut Client<TcpStream>, name: &str, as_json: bool) -> Result<()> {
    let topic = known(client, name).await?;
    let mut partitions = Vec::new();
    for partition in 0..topic.partitions.len() {
        let partition = i32::try_from(partition)?;
        let first = client.list_offsets(name, partition, EARLIEST).await?.offset;
        let next = client.list_offsets(name, partition, LATEST).await?.offset;
        partitions.push((partition, first, next));
    }
    let configs = configs(client, name).await?;
    if as_json {
        let partitions: Vec<Value> = partitions
            .iter()
            .map(|(p, first, next)| json!({ "partition": p, "first_offset": first, "next_offset": next }))
            .collect();
        let configs: serde_json::Map<String, Value> =
            configs.into_iter().map(|(k, v)| (k, Value::from(v))).collect();
        let id = topic.topic_id.to_string();
        say(&json!({ "topic": name, "id": id, "partitions": partitions, "configs": configs }).to_string())?;
        return Ok(());
    }
    say(&format!("{name}  (id {})", topic.topic_id))?;
    let rows: Vec<Vec<String>> = partitions
        .iter()
        .map(|(p, first, next)| vec![p.to_string(), first.to_string(), next.to_string()])
        .collect();
    say(&columns(&["partition", "first offset", "next offset"], &rows))?;
    for (key, value) in configs {
        say(&format!("{key}={value}"))?;
    }
    Ok(())
}

/// The topic, or an error if there is none of this name.
async fn known(client: &mut Client<TcpStream>, name: &str) -> Result<MetadataResponseTopic> {
    let topic =
        client.metadata(&[name]).await?.topics.into_iter().next().context("the broker names no topic")?;
    ErrorCode::check(topic.error_code).with_context(|| format!("cannot describe {name}"))?;
    Ok(topic)
}

/// The settings that were made on the topic.
async fn configs(client: &mut Client<TcpStream>, name: &str) -> Result<Vec<(String, String)>> {
    let resource = DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: name.to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let results = client.call(&request).await?.results;
    let configs = results.into_iter().flat_map(|result| result.configs);
    let set = configs.filter(|config| config.config_source == SET_ON_TOPIC);
    Ok(set.map(|config| (config.name, config.value.unwrap_or_default())).collect())
}
