//! Deleted topics: the service behind HTTP, and the commands that ask it.

use anyhow::{Context, Result};
use floe_http::{DeletedTopic, TrashFailure, TrashService, WhichDeleted};
use floe_log::deleted::{self, Which};
use floe_log::topic::TopicError;
use floe_log::{Log, Writer};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::client::HttpClient;
use crate::query::rfc3339;
use crate::term::{columns, say, things};

/// The deleted topics of the log behind HTTP.
pub(crate) struct Trash(pub(crate) Log);

impl TrashService for Trash {
    fn deleted(&self, count: usize) -> Result<(Vec<DeletedTopic>, usize), TrashFailure> {
        let trash = self.0.trash();
        let all = deleted::all(&self.0.meta().snapshot());
        let all = all.map_err(|error| TrashFailure::Unavailable(error.to_string()))?;
        let told = all.iter().rev().take(count).map(|deleted| DeletedTopic {
            topic: deleted.topic.name.clone(),
            id: deleted.topic.uuid().to_string(),
            partitions: deleted.topic.partitions,
            bytes: deleted.bytes,
            deleted: rfc3339(deleted.at),
            until: deleted.until(trash).map(rfc3339),
        });
        Ok((told.collect(), all.len()))
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
        TopicError::InvalidName { .. } | TopicError::InvalidConfig(_) | TopicError::InvalidPartitions(_) => {
            TrashFailure::Wrong(words)
        }
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
    let fields = ["topic", "partitions", "bytes", "deleted", "until", "id"];
    let row = |topic| fields.iter().map(|field| text(topic, field)).collect();
    let rows: Vec<Vec<String>> = topics.iter().map(row).collect();
    columns(&["topic", "partitions", "bytes", "deleted", "can come back until", "id"], &rows)
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
    }
}
