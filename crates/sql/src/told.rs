//! What is told of every statement, wherever it runs: its metrics, that it took too long, that a table has to be made
//! anew, and that its broker stops.

use std::time::Duration;

use tokio::time::Instant;

use floe_env::Env;
use floe_query::{Kind, QueryError};

/// Counts a statement that was planned, or refused with `error`.
pub(crate) fn planned(error: Option<&QueryError>, took: Duration) {
    let outcome = match error.map(|error| error.kind) {
        None => "planned",
        Some(Kind::Invalid) => "invalid",
        Some(Kind::Limit) => "limit",
        Some(Kind::Busy) => "busy",
        Some(Kind::Unavailable) => "unavailable",
        Some(Kind::Internal) => "internal",
    };
    metrics::counter!("floe_sql_queries_total", "outcome" => outcome).increment(1);
    metrics::histogram!("floe_sql_plan_seconds").record(took.as_secs_f64());
}

/// A statement that runs, until it is dropped.
pub(crate) struct Running {
    env: Env,
    started: Instant,
}

impl Running {
    pub(crate) fn new(env: &Env) -> Running {
        metrics::gauge!("floe_sql_running").increment(1.0);
        Running { env: env.clone(), started: env.monotonic() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::gauge!("floe_sql_running").decrement(1.0);
        let seconds = (self.env.monotonic() - self.started).as_secs_f64();
        metrics::histogram!("floe_sql_statement_seconds").record(seconds);
    }
}

/// The error of a statement at its deadline.
pub(crate) fn too_late(most: Duration) -> QueryError {
    let seconds = most.as_secs_f64();
    let message = format!(
        "the statement took longer than {seconds} s, which is the limit; filter on fewer rows, or raise sql_timeout_ms"
    );
    QueryError::new(Kind::Limit, message)
}

/// What to do about a table whose files are lost or damaged.
pub(crate) fn rebuild(table: &str) -> String {
    format!("`floe table rebuild {table}` makes a table with lost or damaged files anew from the log")
}

/// The error of a statement that runs, or waits, when its broker stops.
pub(crate) fn stopping() -> QueryError {
    QueryError::new(Kind::Unavailable, "the broker is stopping; ask again when it is back")
}
