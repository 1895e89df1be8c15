//! `/health`: the process answers. `/ready`: the broker can serve.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::failure::Failure;
use crate::hosts::Name;
use crate::limits::STANDING_STILL_MAX;
use crate::tables::{StandsStill, TableService};

/// Tells whether the broker can serve, or why it cannot (for example "the store refuses writes: disk full").
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Whether a request is a probe: those of orchestrators and of monitoring. They are answered when nothing else is.
pub(crate) fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/ready" | "/metrics")
}

/// Liveness: restart the process when this stops answering.
pub(crate) fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

/// Readiness: send no traffic while this is 503. A table that stands still is named, and the broker is ready all the
/// same: clients can produce, fetch and query, and one topic must not take the broker from all others. Details are for
/// clients that ask by a known name.
pub(crate) fn ready(ready: &Ready, tables: &dyn TableService, name: Name) -> Response {
    match ready() {
        Ok(()) if name == Name::Foreign => Json(json!({ "status": "ready" })).into_response(),
        Ok(()) => {
            let (tables, count) = tables.standing_still(STANDING_STILL_MAX);
            let tables: Vec<_> = tables.iter().map(StandsStill::json).collect();
            Json(json!({ "status": "ready", "tables_standing_still": count, "standing_still": tables }))
                .into_response()
        }
        Err(reason) => {
            let reason = match name {
                Name::Ours => reason,
                Name::Foreign => "ask by IP address or as localhost for the reason".to_owned(),
            };
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", reason).into_response()
        }
    }
}
