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

/// The error of a statement whose thread has panicked.
pub(crate) fn caught(env: &Env, payload: &(dyn std::any::Any + Send)) -> QueryError {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    match is_overflow(&text) {
        true => too_long(),
        false => logged(env, &format!("panic: {text}")),
    }
}

/// Whether the engine says, in an error or in a panic, that the offsets of a column do not fit 32 bits.
pub(crate) fn is_overflow(text: &str) -> bool {
    text.to_lowercase().contains("offset overflow")
}

/// The error of a statement whose column is too long.
pub(crate) fn too_long() -> QueryError {
    let message = "a column of some rows would take more than 2 GiB, which is the limit; select fewer or shorter values";
    QueryError::new(Kind::Limit, message)
}

/// The error of a statement that ended without a word.
pub(crate) fn ended() -> QueryError {
    let message = "the SQL engine gave the statement up because of a bug; see the server's log";
    QueryError::new(Kind::Internal, message)
}
