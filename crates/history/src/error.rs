//! Why the history cannot be read or moved on.

use floe_meta::lease::LeaseError;
use floe_meta::{CommitError, DecodeError, JournalError, Lsn};
use floe_store::StoreError;

/// Why the history cannot be read or moved on. Nothing is lost: the next round tries again.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A record of the metadata cannot be read.
    #[error("the history cannot read the metadata: {0}")]
    Metadata(#[from] DecodeError),
    /// The journal does not have an entry.
    #[error("the history cannot read the journal: {0}")]
    Journal(#[from] JournalError),
    /// The journal leaves entries out.
    #[error("the journal has commit {found} where {due} was due")]
    Gap {
        /// The commit that follows.
        due: Lsn,
        /// The one in its place; the end, if it is before.
        found: Lsn,
    },
    /// The store does not answer.
    #[error("the history cannot use the store: {0}")]
    Store(#[from] StoreError),
    /// An object is damaged. It stays as it is, and so does everything else.
    #[error("{key} of the history is damaged: {reason}. Restore it from a copy")]
    Damaged {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A commit was not made.
    #[error("the history was not moved on: {0}")]
    Commit(#[from] CommitError<Refused>),
    /// A document of the table cannot be made.
    #[error("the table of the history cannot be published: {0}")]
    Document(#[from] floe_iceberg::Error),
    /// The table has more manifests than were expected.
    #[error("the table of the history needs more documents than were begun")]
    OutOfNumbers,
    /// Rows cannot be written.
    #[error("the rows of the history cannot be written: {0}")]
    Encode(#[from] parquet::errors::ParquetError),
    /// The names cannot be written.
    #[error("the names of the history cannot be written: {0}")]
    Names(#[from] std::io::Error),
}

/// Why a command of the history changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another process holds the lease, or has taken it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The history is not as it was when this was planned.
    #[error("the history ends at commit {0} by now")]
    Moved(Lsn),
    /// A record cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

impl From<arrow::error::ArrowError> for HistoryError {
    fn from(error: arrow::error::ArrowError) -> HistoryError {
        HistoryError::Encode(error.into())
    }
}
