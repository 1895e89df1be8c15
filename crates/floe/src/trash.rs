//! Deleted topics: the service behind HTTP, and the commands that ask it.

use anyhow::{Context, Result};
use floe_http::{DeletedTopic, RemovedRange, TrashFailure, TrashService, WhichDeleted};
use floe_log::deleted::{self, Deleted, Which};
use floe_log::removed;
use floe_log::topic::TopicError;
use floe_log::{Log, Writer};
use floe_meta::{DecodeError, Snapshot};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::client::HttpClient;
use crate::query::rfc3339;
use crate::term::{columns, say, things};

/// Partitions of a part of removed records whose offsets a list shows.
const REMOVED_RANGES_LISTED: usize = 16;

/// The deleted topics of the log behind HTTP.
pub(crate) struct Trash(pub(crate) Log);

impl TrashService for Trash {
    fn deleted(&self, count: usize) -> Result<(Vec<DeletedTopic>, usize), TrashFailure> {
        let (trash, snapshot) = (self.0.trash(), self.0.meta().snapshot());
        let told = |deleted: &Deleted| {
            Ok(DeletedTopic {
                topic: deleted.topic.name.clone(),
                id: deleted.topic.uuid().to_string(),
                partitions: deleted.removed.map_or(deleted.topic.partitions, |removed| removed.partitions),
                bytes: deleted.bytes,
                deleted: rfc3339(deleted.at),
                until: deleted.until(trash).map(rfc3339),
                removed: removed_ranges(&snapshot, deleted)?,
            })
        };
        let listed = deleted::all(&snapshot).and_then(|all| {
            let topics = all.iter().rev().take(count).map(told).collect::<Result<_, DecodeError>>()?;
            Ok((topics, all.len()))
        });
        listed.map_err(|error| TrashFailure::Unavailable(error.to_string()))
    }

    fn undelete(
        &self,
        which: WhichDeleted,
        new_name: Option<String>,
    ) -> BoxFuture<'_, Result<(String, String), TrashFailure>> {
        async move {
            let back = self.0.undelete_topic(&who(), meant(which)?, new_name).await.map_err(failure)?;
            let id = back.uuid().to_string();
            Ok((back.name, id))
        }
        .boxed()
    }

    fn purge(&self, which: Option<WhichDeleted>) -> BoxFuture<'_, Result<(u64, u64), TrashFailure>> {
        async move {
            let which = which.map_or(Ok(Which::All), meant)?;
            let purged = self.0.purge_topics(&who(), which).await.map_err(failure)?;
            Ok((purged.topics, purged.bytes))
        }
        .boxed()
    }
}

/// The offsets of removed records, of so many partitions as a list shows; none for a topic.
fn removed_ranges(snapshot: &Snapshot, deleted: &Deleted) -> Result<Option<Vec<RemovedRange>>, DecodeError> {
    if deleted.removed.is_none() {
        return Ok(None);
    }
    let ranges = removed::ranges(snapshot, deleted.topic.id, REMOVED_RANGES_LISTED)?;
    let told = |range: &removed::Range| RemovedRange {
        partition: range.partition,
        from: range.from.0,
        to: range.to.0,
    };
    Ok(Some(ranges.iter().map(told).collect()))
}

fn who() -> Writer {
    Writer::new("User:ANONYMOUS", "http")
}

fn meant(which: WhichDeleted) -> Result<Which, TrashFailure> {
    Which::told(which.topic, which.id.as_deref()).map_err(failure)
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failure(error: TopicError) -> TrashFailure {
    let words = error.to_string();
    match error {
        TopicError::NothingDeleted(_) | TopicError::NotFound => TrashFailure::Missing(words),
        TopicError::InvalidName { .. }
        | TopicError::InvalidConfig(_)
        | TopicError::InvalidPartitions(_)
        | TopicError::NeedsName(_)
        | TopicError::Several(_) => TrashFailure::Wrong(words),
        TopicError::Exists(_)
        | TopicError::NameTaken(_)
        | TopicError::TooMany
        | TopicError::TooManyPartitions(_) => TrashFailure::Refused(words),
        TopicError::Unavailable(_) | TopicError::Unknown(_) => TrashFailure::Unavailable(words),
    }
}

/// `floe topic list --deleted`.
pub(crate) async fn list(server: &HttpClient, as_json: bool) -> Result<()> {
    let answer = server.get(&["api", "v1", "trash"]).await.context("cannot list the deleted topics")?;
    let answer = answer.context("this broker is too old to keep deleted topics")?;
    let topics = answer["topics"].as_array().cloned().unwrap_or_default();
    if as_json {
        say(&Value::from(topics).to_string())?;
        return Ok(());
    }
    say(&table_of(&topics))?;
    let more = answer["count"].as_u64().unwrap_or_default().saturating_sub(topics.len() as u64);
    if more > 0 {
        say(&format!("and {more} that were deleted earlier"))?;
    }
    Ok(())
}

fn table_of(topics: &[Value]) -> String {
    let text = |topic: &Value, field: &str| match &topic[field] {
        Value::String(text) => text.clone(),
        Value::Null => "for ever".to_owned(),
        other => other.to_string(),
    };
    let row = |topic: &Value| {
        let first = ["topic"].iter().map(|field| text(topic, field));
        let rest = ["partitions", "bytes", "deleted", "until", "id"].iter().map(|field| text(topic, field));
        first.chain(std::iter::once(what_of(topic))).chain(rest).collect()
    };
    let rows: Vec<Vec<String>> = topics.iter().map(row).collect();
    columns(&["topic", "what", "partitions", "bytes", "deleted", "can come back until", "id"], &rows)
}

/// A whole topic, or records that were removed: of one partition with the first offset and the one after the last.
fn what_of(topic: &Value) -> String {
    let Some(ranges) = topic["removed"].as_array() else { return "topic".to_owned() };
    match ranges.as_slice() {
        [range] => format!("records {} to {}", range["from"], range["to"]),
        _ => "records".to_owned(),
    }
}

/// `floe topic undelete`.
pub(crate) async fn undelete(
    server: &HttpClient,
    name: &str,
    new_name: Option<&str>,
    id: Option<&str>,
    as_json: bool,
) -> Result<()> {
    let request = json!({ "topic": name, "as": new_name, "id": id });
    let back = server.post(&["api", "v1", "trash", "undelete"], &request).await;
    let back = back.with_context(|| format!("cannot bring {name} back"))?;
    let now = back["topic"].as_str().unwrap_or(name);
    say(&if as_json {
        json!({ "topic": now, "id": back["id"], "outcome": "undeleted" }).to_string()
    } else if now == name {
        format!("undeleted {name}")
    } else {
        format!("undeleted {name} as {now}")
    })?;
    Ok(())
}

/// `floe topic purge`.
pub(crate) async fn purge(
    server: &HttpClient,
    name: Option<&str>,
    id: Option<&str>,
    as_json: bool,
) -> Result<()> {
    let request = json!({ "topic": name, "id": id });
    let purged = server.post(&["api", "v1", "trash", "purge"], &request).await;
    let purged = purged.context("cannot purge deleted topics")?;
    say(&if as_json {
        purged.to_string()
    } else {
        let count = |field: &str| purged[field].as_u64().unwrap_or_default();
        let topics = things(count("topics"), "deleted topic");
        // Parts of removed records count as topics.
        format!("purged {topics} of {}", things(count("bytes"), "byte"))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_topics_are_told_in_columns() {
        let topic = |topic: &str, bytes: u64, until: Option<&str>| {
            let mut told = json!({ "topic": topic, "id": "1-2", "partitions": 3 });
            told["bytes"] = json!(bytes);
            told["deleted"] = json!("then");
            told["until"] = json!(until);
            told
        };
        let told = table_of(&[topic("orders", 12, Some("soon")), topic("t", 12_345, None)]);
        let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("topic") && lines[0].ends_with("id"), "{told}");
        assert!(lines[1].contains("soon") && lines[2].contains("for ever"), "{told}");
        let mut part = topic("orders", 12, Some("soon"));
        part["removed"] = json!([{ "partition": 0, "from": 3, "to": 7 }]);
        assert!(table_of(&[part.clone()]).contains("records 3 to 7"));
        part["removed"] =
            json!([{ "partition": 0, "from": 3, "to": 7 }, { "partition": 1, "from": 0, "to": 1 }]);
        let told = table_of(&[part]);
        assert!(told.contains("records ") && !told.contains(" to "), "{told}");
    }
}
