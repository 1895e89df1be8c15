//! `/api/v1/trash…`: the topics that were deleted and can come back, and the records that were removed from topics.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::limits;
use crate::query::parsed;

/// Answers for the deleted topics of this broker. The binary implements it with the log.
pub trait TrashService: Send + Sync + 'static {
    /// The topics that were deleted last, at most `count` of them, and how many there are in all.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn deleted(&self, count: usize) -> Result<(Vec<DeletedTopic>, usize), TrashFailure>;

    /// Brings a topic back, as `new_name` if there is one. Returns its name and id.
    fn undelete(
        &self,
        which: WhichDeleted,
        new_name: Option<String>,
    ) -> BoxFuture<'_, Result<(String, String), TrashFailure>>;

    /// Lets deleted topics go for good: those that are meant, or all. Returns how many, and their bytes.
    fn purge(&self, which: Option<WhichDeleted>) -> BoxFuture<'_, Result<(u64, u64), TrashFailure>>;
}

/// A deleted topic that can come back, or records that were removed from a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub topic: String,
    /// Its id in Kafka's protocol, which tells topics with one name apart.
    pub id: String,
    /// How many partitions it has, or lost records.
    pub partitions: u32,
    /// Bytes of its records.
    pub bytes: u64,
    /// When it was deleted, or lost the last of the records, as RFC 3339.
    pub deleted: String,
    /// When it goes for good, as RFC 3339; none if never.
    pub until: Option<String>,
    /// The offsets of removed records, of the first partitions; none for a whole topic.
    pub removed: Option<Vec<RemovedRange>>,
}

/// Offsets of a partition that were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedRange {
    /// The number of the partition.
    pub partition: u32,
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
}

/// Which deleted topics a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhichDeleted {
    /// Their name.
    pub topic: String,
    /// The id of one of them.
    pub id: Option<String>,
}

/// Why a question about deleted topics has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrashFailure {
    /// No deleted topic is meant; the words say what to do.
    Missing(String),
    /// The request is wrong; the words say what to do.
    Wrong(String),
    /// The name is taken, or there is no room; the words say what to do.
    Refused(String),
    /// It may work later.
    Unavailable(String),
}

impl DeletedTopic {
    fn json(&self) -> Value {
        let range = |range: &RemovedRange| json!({ "partition": range.partition, "from": range.from, "to": range.to });
        json!({
            "topic": self.topic,
            "id": self.id,
            "partitions": self.partitions,
            "bytes": self.bytes,
            "deleted": self.deleted,
            "until": self.until,
            "removed": self.removed.as_ref().map(|ranges| ranges.iter().map(range).collect::<Vec<_>>()),
        })
    }
}

impl From<TrashFailure> for Failure {
    fn from(failure: TrashFailure) -> Failure {
        match failure {
            TrashFailure::Missing(reason) => Failure::new(StatusCode::NOT_FOUND, "NoSuchTopic", reason),
            TrashFailure::Wrong(reason) => Failure::new(StatusCode::BAD_REQUEST, "InvalidRequest", reason),
            TrashFailure::Refused(reason) => Failure::new(StatusCode::CONFLICT, "Refused", reason),
            TrashFailure::Unavailable(reason) => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", reason)
            }
        }
    }
}

/// Handles `GET /api/v1/trash`.
pub(crate) fn get(service: &dyn TrashService) -> Response {
    match service.deleted(limits::DELETED_TOPICS_LISTED) {
        Ok((topics, count)) => {
            let topics: Vec<Value> = topics.iter().map(DeletedTopic::json).collect();
            Json(json!({ "topics": topics, "count": count })).into_response()
        }
        Err(failure) => Failure::from(failure).into_response(),
    }
}

/// The body of a request to bring a topic back.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UndeleteBody {
    topic: String,
    id: Option<String>,
    #[serde(rename = "as")]
    new_name: Option<String>,
}

/// Handles `POST /api/v1/trash/undelete`.
pub(crate) async fn undelete(service: &dyn TrashService, headers: &HeaderMap, body: Body) -> Response {
    match undeleted(service, headers, body).await {
        Ok((topic, id)) => Json(json!({ "topic": topic, "id": id })).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn undeleted(
    service: &dyn TrashService,
    headers: &HeaderMap,
    body: Body,
) -> Result<(String, String), Failure> {
    let example = r#"{"topic": "orders"} or {"topic": "orders", "as": "orders-2"}"#;
    let UndeleteBody { topic, id, new_name } = parsed(headers, body, example).await?;
    Ok(service.undelete(WhichDeleted { topic, id }, new_name).await?)
}

/// The body of a request to let topics go for good. Nothing named means all.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeBody {
    topic: Option<String>,
    id: Option<String>,
}

/// Handles `POST /api/v1/trash/purge`.
pub(crate) async fn purge(service: &dyn TrashService, headers: &HeaderMap, body: Body) -> Response {
    match purged(service, headers, body).await {
        Ok((topics, bytes)) => Json(json!({ "topics": topics, "bytes": bytes })).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn purged(service: &dyn TrashService, headers: &HeaderMap, body: Body) -> Result<(u64, u64), Failure> {
    let PurgeBody { topic, id } = parsed(headers, body, r#"{} or {"topic": "orders"}"#).await?;
    if topic.is_none() && id.is_some() {
        let reason = "an id needs the name of its topic: {\"topic\": \"orders\", \"id\": …}".to_owned();
        return Err(TrashFailure::Wrong(reason).into());
    }
    Ok(service.purge(topic.map(|topic| WhichDeleted { topic, id })).await?)
}
