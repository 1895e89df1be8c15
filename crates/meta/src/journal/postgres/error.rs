//! Why a journal in PostgreSQL cannot be opened or reached, and what an error of the server says of a commit.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

use crate::journal::JournalError;

use super::seen::Astray;

/// Why the journal in PostgreSQL cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostgresOpenError {
    /// The address cannot be read.
    #[error("the address of the journal is not one of PostgreSQL: {0}")]
    Address(String),
    /// The address asks for TLS, and the system has no roots for it.
    #[error("cannot verify servers for sslmode=require: {0}. Install the system's CA certificates")]
    Tls(String),
    /// No server answered, or none of those that did takes writes.
    #[error("cannot reach the PostgreSQL server at {server}: {reason}")]
    Unreachable {
        /// Hosts, ports and database; no password.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// The server is a standby.
    #[error(
        "the PostgreSQL server at {0} is a standby: name the primary, or all servers with commas between them"
    )]
    Standby(String),
    /// The server is older than what the journal needs.
    #[error("the PostgreSQL server has version {found}, the journal needs {needed} or later")]
    OldServer {
        /// Its major version.
        found: i32,
        /// The oldest major version that works.
        needed: i32,
    },
    /// The server does not sync its files.
    #[error(
        "the PostgreSQL server at {0} runs with fsync=off, so a power cut could take commits that were acknowledged: \
         set fsync=on"
    )]
    Unsynced(String),
    /// The schema has tables that are not a journal.
    #[error(
        "schema {schema} in {server} has {tables} tables and no journal of Floe: name an empty or a new schema"
    )]
    Foreign {
        /// The schema.
        schema: String,
        /// Hosts, ports and database.
        server: String,
        /// How many tables it has.
        tables: i64,
    },
    /// A newer version of Floe made the tables.
    #[error("the journal in PostgreSQL has format {found}, this build knows {known}: use a newer floe")]
    NewerFormat {
        /// The format that was found.
        found: i32,
        /// The newest format that this build reads.
        known: i32,
    },
    /// There is no journal, and the cluster has one.
    #[error(
        "there is no journal of Floe in schema {schema} of {server}, and the cluster has one: correct the address, or \
         restore the database from a backup that has all commits"
    )]
    None {
        /// The schema.
        schema: String,
        /// Hosts, ports and database.
        server: String,
    },
    /// The journal is that of another cluster.
    #[error(
        "the journal in PostgreSQL is {found:032x}, and {expected:032x} was expected: it belongs to another cluster. \
         Correct the address or the schema"
    )]
    OtherJournal {
        /// The id that was expected.
        expected: u128,
        /// The id that was found.
        found: u128,
    },
    /// The server does not have what this process has seen durable.
    #[error("{0}")]
    Astray(String),
    /// A row that every journal has is missing or damaged.
    #[error(
        "the journal is damaged in the database: {0}. Restore the database from a backup that has all commits"
    )]
    Damaged(String),
    /// The server refused a statement.
    #[error("PostgreSQL refused: {0}")]
    Refused(String),
}

impl From<Astray> for PostgresOpenError {
    fn from(astray: Astray) -> PostgresOpenError {
        PostgresOpenError::Astray(astray.to_string())
    }
}

impl From<Error> for PostgresOpenError {
    fn from(error: Error) -> PostgresOpenError {
        PostgresOpenError::Refused(said(&error))
    }
}

impl From<PostgresOpenError> for JournalError {
    /// Nothing was sent on the connection that could not be opened.
    fn from(error: PostgresOpenError) -> JournalError {
        JournalError::NotApplied(error.to_string())
    }
}

/// An error with its causes, each once.
pub(super) fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What an error says of the statement of a commit. The server undoes a transaction before it reports an error of it;
/// only an error that ends the session, or none at all, leaves the outcome open.
pub(super) fn of_commit(error: &Error) -> JournalError {
    let certain = error
        .as_db_error()
        .is_some_and(|error| undone(error.parsed_severity() == Some(Severity::Error), error.code()));
    match certain {
        true => JournalError::NotApplied(format!("PostgreSQL refused: {}", said(error))),
        false => JournalError::Unknown(format!("the connection to PostgreSQL broke: {}", said(error))),
    }
}

/// Whether an error tells that the transaction has no effect. A pooler between us and the server may report the loss of
/// a connection as a plain error, so those classes are never taken for certain.
fn undone(is_error: bool, code: &SqlState) -> bool {
    let unsure = ["08", "57P", "58", "F0", "XX"].iter().any(|class| code.code().starts_with(class));
    is_error && !unsure && *code != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
}

/// Whether a connection can be used after this error of a statement.
pub(super) fn survives(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_that_undoes_the_transaction_is_certain() {
        for code in [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE, SqlState::DISK_FULL] {
            assert!(undone(true, &code), "{code:?}");
            assert!(!undone(false, &code), "it ended the session: {code:?}");
        }
        for code in [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CONNECTION_FAILURE,
            SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN,
            SqlState::INTERNAL_ERROR,
        ] {
            assert!(!undone(true, &code), "{code:?}");
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let newer = PostgresOpenError::NewerFormat { found: 2, known: 1 }.to_string();
        assert!(newer.contains("use a newer floe"));
        let other = PostgresOpenError::OtherJournal { expected: 1, found: 2 }.to_string();
        assert!(other.contains("another cluster") && other.contains("Correct the address"));
        assert!(PostgresOpenError::Tls("none".into()).to_string().contains("CA certificates"));
    }
}
