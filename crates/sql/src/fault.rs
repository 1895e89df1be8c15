//! Faults of the engine: a panic, or an error that says that the engine is wrong. The client gets a number, and the log
//! has the fault under it.

use floe_env::Env;
use floe_query::{Kind, QueryError};

/// Writes a fault to the log. Returns the error for the client.
pub(crate) fn logged(env: &Env, fault: &str) -> QueryError {
    let number = format!("{:08x}", env.random_u64() >> 32);
    tracing::error!(number, fault, "the SQL engine failed; the statement was given up");
    metrics::counter!("floe_sql_faults_total").increment(1);
    let message =
        format!("the SQL engine gave the statement up because of a bug; see {number} in the server's log");
    QueryError::new(Kind::Internal, message)
}

/// The text of a panic.
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}

/// The error of a statement that ended without a word.
pub(crate) fn ended() -> QueryError {
    let message = "the SQL engine gave the statement up because of a bug; see the server's log";
    QueryError::new(Kind::Internal, message)
}
