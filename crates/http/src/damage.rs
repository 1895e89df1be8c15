//! `/api/v1/topics/{topic}/damage`: records that the broker could not read, whoever tried.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::limits;

/// Answers for the records of this broker's topics. The binary implements it with the log.
pub trait DamageService: Send + Sync + 'static {
    /// The damaged records of a topic, at most `count` entries, and how many entries there are in all. None if there is
    /// no such topic.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn damage(&self, topic: &str, count: usize) -> Result<Option<(Vec<Damaged>, usize)>, String>;
}

/// Records that cannot be read. They stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Their partition.
    pub partition: u32,
    /// The first offset that cannot be read.
    pub first_offset: i64,
    /// The offset after the last.
    pub next_offset: i64,
    /// The object, or the commit of the journal, that holds them.
    pub place: String,
    /// What is wrong.
    pub why: String,
    /// When this process met it first, as RFC 3339.
    pub since: String,
    /// Who has met it: `start`, `client`, `statement`, `view`, `merging`, `compaction`, `reader`.
    pub found_by: Vec<&'static str>,
}

impl Damaged {
    fn json(&self) -> Value {
        json!({
            "partition": self.partition,
            "first_offset": self.first_offset,
            "next_offset": self.next_offset,
            "place": self.place,
            "why": self.why,
            "since": self.since,
            "found_by": self.found_by,
        })
    }
}

/// Handles `GET /api/v1/topics/{topic}/damage`.
pub(crate) fn get(service: &dyn DamageService, topic: &str) -> Response {
    match service.damage(topic, limits::DAMAGE_LISTED) {
        Ok(Some((damaged, count))) => {
            let damaged: Vec<Value> = damaged.iter().map(Damaged::json).collect();
            Json(json!({ "topic": topic, "damaged": damaged, "count": count })).into_response()
        }
        Ok(None) => {
            let reason = format!("there is no topic {topic}; `floe topic list` has all");
            Failure::new(StatusCode::NOT_FOUND, "NoSuchTopic", reason).into_response()
        }
        Err(reason) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", reason).into_response(),
    }
}
