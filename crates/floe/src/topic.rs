//! `floe topic`: topics on a running broker, through the Kafka protocol.

use anyhow::{Context, Result, bail, ensure};
use floe_client::{Client, EARLIEST, LATEST};
use floe_wire::ErrorCode;
use floe_wire::admin::{DescribeConfigsRequest, DescribeConfigsResource};
use floe_wire::metadata::MetadataResponseTopic;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::bootstrap::bootstrap;
use crate::cli::{ServerArgs, TopicAction, TopicArgs};
use crate::client::HttpClient;
use crate::term::{columns, say, things};
use crate::trash;

/// The resource type of topics in `DescribeConfigs` (KIP-133).
const TOPIC_RESOURCE: i8 = 2;
/// The source of a setting that was made on the topic itself (KIP-226).
const SET_ON_TOPIC: i8 = 1;

/// Runs the command.
pub(crate) async fn run(args: TopicArgs) -> Result<()> {
    let http = |server: &ServerArgs| HttpClient::new(&server.url(&args.bootstrap)?);
    match &args.action {
        TopicAction::DropColumns { name, keys, server } => {
            return drop_columns(&http(server)?, name, keys, args.json).await;
        }
        TopicAction::List { deleted: true, server } => {
            return trash::list(&http(server)?, args.json).await;
        }
        TopicAction::Undelete { name, new_name, id, server } => {
            let server = http(server)?;
            return trash::undelete(&server, name, new_name.as_deref(), id.as_deref(), args.json).await;
        }
        TopicAction::Purge { name, id, server, all: _ } => {
            return trash::purge(&http(server)?, name.as_deref(), id.as_deref(), args.json).await;
        }
        _ => {}
    }
    let mut client = bootstrap(&args.bootstrap, "floe").await?;
    match &args.action {
        TopicAction::List { .. } => list(&mut client, args.json).await,
        TopicAction::Create { name, partitions, configs } => {
            create(&mut client, name, *partitions, configs).await?;
            say(&told(args.json, name, "created"))?;
            Ok(())
        }
        TopicAction::Describe { name, server } => {
            let server = http(server).map_err(|error| format!("{error:#}"));
            describe(&mut client, server.as_ref(), name, args.json).await
        }
        TopicAction::DropColumns { .. } | TopicAction::Undelete { .. } | TopicAction::Purge { .. } => {
            unreachable!("it needs no Kafka client")
        }
        TopicAction::Delete { name } => {
            client.delete_topic(name).await.with_context(|| format!("cannot delete {name}"))?;
            say(&told(args.json, name, "deleted"))?;
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

async fn drop_columns(server: &HttpClient, name: &str, keys: &[String], as_json: bool) -> Result<()> {
    let path = ["api", "v1", "tables", name, "drop-columns"];
    let dropped = server.post(&path, &json!({ "keys": keys })).await;
    let dropped = dropped.with_context(|| format!("cannot drop columns of {name}"))?;
    if as_json {
        say(&dropped.to_string())?;
    } else {
        let count = dropped["columns_dropped"].as_u64().unwrap_or_default();
        ensure!(
            count > 0,
            "no column of {name} has such a name: `floe sql 'DESCRIBE \"{name}\"'` lists them, and those that begin with _ stay"
        );
        say(&format!("dropped {} of {name}", things(count, "column")))?;
    }
    Ok(())
}

/// How the table of a topic is doing: the broker's answer, or why it is not known.
async fn table_of(server: Result<&HttpClient, &String>, name: &str) -> Option<Result<Value, String>> {
    ask(server, &["api", "v1", "tables", name]).await
}

/// The broker's answer over HTTP, or why it is not known. None if it knows no such thing.
async fn ask(server: Result<&HttpClient, &String>, path: &[&str]) -> Option<Result<Value, String>> {
    match server {
        Ok(server) => server.get(path).await.map_err(|error| format!("{error:#}")).transpose(),
        Err(why) => Some(Err(why.clone())),
    }
}

/// The table in lines for people.
fn table_lines(table: &Result<Value, String>) -> Vec<String> {
    let table = match table {
        Ok(table) => table,
        Err(error) => return vec![format!("table: not known, {error}")],
    };
    let count = |name: &str, thing: &str| things(table[name].as_u64().unwrap_or_default(), thing);
    let mut lines = vec![format!(
        "table: {} in {}, {} behind, {}, {} of {}",
        count("rows", "row"),
        count("files", "file"),
        count("lag", "record"),
        count("bad_records", "bad record"),
        table["columns"],
        count("columns_max", "column"),
    )];
    if let Some(lost) = table["lost_records"].as_u64().filter(|lost| *lost > 0) {
        lines.push(format!("table: {lost} records were deleted from the log before they were read"));
    }
    let since_and_why = |name: &str| {
        let still = table[name].as_object()?;
        let text = |name: &str| still.get(name).and_then(Value::as_str).unwrap_or_default();
        Some(format!("since {}: {}", text("since"), text("why")))
    };
    if let Some(job) = table["job"].as_str() {
        let what = match job {
            "merge" => "small files are merged",
            "widen" => "files are rewritten for a wider column",
            other => other,
        };
        let fails = since_and_why("job_fails").map(|why| format!(", which FAILS {why}"));
        lines.push(format!("table: {what}{}", fails.unwrap_or_default()));
    }
    if let Some(why) = since_and_why("stands_still") {
        lines.push(format!("table: STANDS STILL {why}"));
    }
    lines
}

/// The damaged records of a topic: the broker's answer, or why it is not known. None if the broker is too old to say.
async fn damage_of(server: Result<&HttpClient, &String>, name: &str) -> Option<Result<Value, String>> {
    ask(server, &["api", "v1", "topics", name, "damage"]).await
}

/// The damage in lines for people; none if there is none.
fn damage_lines(damage: &Result<Value, String>) -> Vec<String> {
    let damage = match damage {
        Ok(damage) => damage,
        Err(error) => return vec![format!("damage: not known, {error}")],
    };
    let told = damage["damaged"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap_or_default();
        let met_by: Vec<&str> =
            one["found_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!(
            "DAMAGED: partition {}, offsets {} to {}, in {}: {} (since {}, met by {}, left as it is)",
            one["partition"],
            one["first_offset"],
            one["next_offset"].as_i64().unwrap_or_default() - 1,
            text("place"),
            text("why"),
            text("since"),
            met_by.join(", "),
        )
    };
    let mut lines: Vec<String> = told.iter().map(line).collect();
    let more = damage["count"].as_u64().unwrap_or_default().saturating_sub(told.len() as u64);
    if more > 0 {
        lines.push(format!("DAMAGED: and {more} more"));
    }
    lines
}

async fn describe(
    client: &mut Client<TcpStream>,
    server: Result<&HttpClient, &String>,
    name: &str,
    as_json: bool,
) -> Result<()> {
    let topic = known(client, name).await?;
    let mut partitions = Vec::new();
    for partition in 0..topic.partitions.len() {
        let partition = i32::try_from(partition)?;
        let first = client.list_offsets(name, partition, EARLIEST).await?.offset;
        let next = client.list_offsets(name, partition, LATEST).await?.offset;
        partitions.push((partition, first, next));
    }
    let configs = configs(client, name).await?;
    let has_table = configs.iter().any(|(key, value)| key == "floe.table" && value != "off");
    let table = if has_table { table_of(server, name).await } else { None };
    let damage = damage_of(server, name).await;
    if as_json {
        let partitions: Vec<Value> = partitions
            .iter()
            .map(|(p, first, next)| json!({ "partition": p, "first_offset": first, "next_offset": next }))
            .collect();
        let configs: serde_json::Map<String, Value> =
            configs.into_iter().map(|(k, v)| (k, Value::from(v))).collect();
        let id = topic.topic_id.to_string();
        let table = table.map(|table| table.unwrap_or_else(|error| json!({ "error": error })));
        let damage = damage.map(|damage| match damage {
            Ok(mut damage) => damage["damaged"].take(),
            Err(error) => json!({ "error": error }),
        });
        let topic = json!({
            "topic": name, "id": id, "partitions": partitions, "configs": configs, "table": table,
            "damaged": damage,
        });
        say(&topic.to_string())?;
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
    for line in table.iter().flat_map(table_lines).chain(damage.iter().flat_map(damage_lines)) {
        say(&line)?;
    }
    Ok(())
}

/// The topic, or an error if there is none of this name.
async fn known(client: &mut Client<TcpStream>, name: &str) -> Result<MetadataResponseTopic> {
    let topic =
        client.metadata(&[name]).await?.topics.into_iter().next().context("the broker names no topic")?;
    if topic.error_code == ErrorCode::UnknownTopicOrPartition.number() {
        bail!("there is no topic {name}; `floe topic list` has all");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_in_lines() {
        let one = json!({
            "partition": 1, "first_offset": 10, "next_offset": 20, "place": "object 7", "why": "it is cut off",
            "since": "2026-01-01T00:00:00.000Z", "found_by": ["start", "merging"],
        });
        let lines = damage_lines(&Ok(json!({ "damaged": [one], "count": 3 })));
        let first = "DAMAGED: partition 1, offsets 10 to 19, in object 7: it is cut off (since 2026-01-01T00:00:00.000Z, \
                     met by start, merging, left as it is)";
        assert_eq!(lines, [first, "DAMAGED: and 2 more"]);
        assert!(damage_lines(&Ok(json!({ "damaged": [], "count": 0 }))).is_empty());
        assert_eq!(damage_lines(&Err("no broker".to_owned())), ["damage: not known, no broker"]);
    }

    #[test]
    fn a_table_is_told_in_lines() {
        let mut table = json!({
            "table": "t", "rows": 3, "files": 1, "bytes": 1, "bad_records": 4, "lag": 5, "columns": 6,
            "columns_max": 2000, "stands_still": null, "lost_records": 0,
        });
        let first = "table: 3 rows in 1 file, 5 records behind, 4 bad records, 6 of 2000 columns";
        assert_eq!(table_lines(&Ok(table.clone())), [first]);
        table["lost_records"] = json!(8);
        let lost = "table: 8 records were deleted from the log before they were read";
        assert_eq!(table_lines(&Ok(table.clone())), [first, lost]);
        table["lost_records"] = json!(0);
        table["stands_still"] =
            json!({ "table": "t", "since": "2026-01-01T00:00:00.000Z", "why": "it says so" });
        let second = "table: STANDS STILL since 2026-01-01T00:00:00.000Z: it says so";
        assert_eq!(table_lines(&Ok(table.clone())), [first, second]);
        table["job"] = json!("merge");
        assert_eq!(table_lines(&Ok(table.clone())), [first, "table: small files are merged", second]);
        table["job_fails"] = table["stands_still"].take();
        let third = "table: small files are merged, which FAILS since 2026-01-01T00:00:00.000Z: it says so";
        assert_eq!(table_lines(&Ok(table)), [first, third]);
        assert_eq!(table_lines(&Err("no broker".to_owned())), ["table: not known, no broker"]);
    }
}
