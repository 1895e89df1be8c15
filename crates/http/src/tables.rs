//! `/api/v1/tables/…` and the tables that stand still, for `/ready`: how the tables of this broker are doing.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::query::parsed;

/// Answers for the tables of this broker. The binary implements it with the lake.
pub trait TableService: Send + Sync + 'static {
    /// The tables that stand still, at most `count` of them, and how many there are in all.
    fn standing_still(&self, count: usize) -> (Vec<StandsStill>, usize);

    /// How a table is doing; none if there is no such table.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn table(&self, name: &str) -> Result<Option<TableStatus>, TableFailure>;

    /// Drops the columns of the top-level keys that match one of the patterns. Returns how many columns went.
    fn drop_columns(&self, name: String, keys: Vec<String>) -> BoxFuture<'_, Result<u64, TableFailure>>;

    /// Begins to make a table anew from the log. Returns how many rows that loses at most, which `lose` allows.
    fn rebuild(&self, name: String, lose: bool) -> BoxFuture<'_, Result<u64, TableFailure>>;
}

/// A table whose last step failed. It takes no rows until a step succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandsStill {
    /// Its name.
    pub table: String,
    /// Since when, as RFC 3339.
    pub since: String,
    /// The reason, for people.
    pub why: String,
}

/// How a table is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// Its name.
    pub table: String,
    /// Rows in its files.
    pub rows: u64,
    /// Data files.
    pub files: u64,
    /// Bytes of the data files.
    pub bytes: u64,
    /// Records so far that did not fit.
    pub bad_records: u64,
    /// Records in the log that are not in its files yet.
    pub lag: u64,
    /// Records that were deleted from the log before it read them, since the broker started.
    pub lost_records: u64,
    /// Columns in use, nested ones and elements of lists included.
    pub columns: usize,
    /// The most columns that a table can have.
    pub columns_max: usize,
    /// The background work that it needs, as a word: `merge` or `widen`.
    pub job: Option<&'static str>,
    /// Set while that work fails; the table goes on.
    pub job_fails: Option<StandsStill>,
    /// Set while it stands still.
    pub stands_still: Option<StandsStill>,
    /// Set while it is made anew from the log.
    pub rebuild: Option<Rebuilding>,
}

/// How the rebuilding of a table is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilding {
    /// Records in the log that the new table has not read yet, as of its last look.
    pub lag: u64,
    /// Set while it stands still.
    pub stands_still: Option<StandsStill>,
}

/// Why a question about a table has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFailure {
    /// There is no such table.
    Missing,
    /// The request is wrong; the words say what to do.
    Wrong(String),
    /// What it asks for would do harm; the words say which.
    Refused(String),
    /// It may work later.
    Unavailable(String),
}

impl StandsStill {
    pub(crate) fn json(&self) -> Value {
        json!({ "table": self.table, "since": self.since, "why": self.why })
    }
}

impl TableStatus {
    fn json(&self) -> Value {
        let mut body = json!({
            "table": self.table,
            "rows": self.rows,
            "files": self.files,
            "bytes": self.bytes,
            "bad_records": self.bad_records,
            "lag": self.lag,
            "lost_records": self.lost_records,
            "columns": self.columns,
            "columns_max": self.columns_max,
            "job": self.job,
        });
        let still = |still: &Option<StandsStill>| still.as_ref().map_or(Value::Null, StandsStill::json);
        body["job_fails"] = still(&self.job_fails);
        body["stands_still"] = still(&self.stands_still);
        body["rebuild"] = self.rebuild.as_ref().map_or(
            Value::Null,
            |rebuild| json!({ "lag": rebuild.lag, "stands_still": still(&rebuild.stands_still) }),
        );
        body
    }
}

impl TableFailure {
    fn of(self, name: &str) -> Failure {
        let missing = || format!("there is no table {name}: is floe.table set on a topic of that name?");
        match self {
            TableFailure::Missing => Failure::new(StatusCode::NOT_FOUND, "NoSuchTable", missing()),
            TableFailure::Wrong(reason) => Failure::new(StatusCode::BAD_REQUEST, "InvalidRequest", reason),
            TableFailure::Refused(reason) => Failure::new(StatusCode::CONFLICT, "Refused", reason),
            TableFailure::Unavailable(reason) => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", reason)
            }
        }
    }
}

/// Handles `GET /api/v1/tables/{table}`.
pub(crate) fn get(service: &dyn TableService, name: &str) -> Response {
    match service.table(name) {
        Ok(Some(status)) => Json(status.json()).into_response(),
        Ok(None) => TableFailure::Missing.of(name).into_response(),
        Err(failure) => failure.of(name).into_response(),
    }
}

/// The body of a request to drop columns.
#[derive(serde::Deserialize)]
struct DropBody {
    keys: Vec<String>,
}

/// Handles `POST /api/v1/tables/{table}/drop-columns`.
pub(crate) async fn drop_columns(
    service: &dyn TableService,
    name: String,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    match dropped(service, &name, headers, body).await {
        Ok(columns) => Json(json!({ "table": name, "columns_dropped": columns })).into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// The body of a request to make a table anew.
#[derive(serde::Deserialize)]
struct RebuildBody {
    #[serde(default)]
    lose: bool,
}

/// Handles `POST /api/v1/tables/{table}/rebuild`.
pub(crate) async fn rebuild(
    service: &dyn TableService,
    name: String,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    match begun(service, &name, headers, body).await {
        Ok(rows) => Json(json!({ "table": name, "rows_lost": rows })).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn begun(
    service: &dyn TableService,
    name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<u64, Failure> {
    let RebuildBody { lose } = parsed(headers, body, r#"{"lose": false}"#).await?;
    service.rebuild(name.to_owned(), lose).await.map_err(|failure| failure.of(name))
}

async fn dropped(
    service: &dyn TableService,
    name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<u64, Failure> {
    let DropBody { keys } = parsed(headers, body, r#"{"keys": ["id_*"]}"#).await?;
    service.drop_columns(name.to_owned(), keys).await.map_err(|failure| failure.of(name))
}
