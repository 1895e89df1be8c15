//! Why a step of a view, or of the cleaner, failed.

use floe_log::{sequencer::AppendError, topic::TopicError, walk::ReadError};
use floe_meta::{CommitError, DecodeError, LeaseError};
use floe_store::StoreError;

use crate::data_file::FileError;

/// Why a step of a view failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The log could not be read.
    #[error("the log could not be read: {0}")]
    Read(#[from] ReadError),
    /// Dead letters could not be written.
    #[error("dead letters could not be written: {0}")]
    DeadLetter(#[from] AppendError),
    /// The dead-letter topic could not be made.
    #[error("the dead-letter topic could not be made: {0}")]
    DeadLetterTopic(#[from] TopicError),
    /// A data file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A document of the table.
    #[error("iceberg: {0}")]
    Iceberg(#[from] iceberg::Error),
    /// A document of the table.
    #[error("the table's metadata document cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The metadata map.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    /// Another broker has the view.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Somebody else changed the table.
    #[error("the table is not as this view left it: {0}")]
    Stale(String),
    /// The journal did not take the commit.
    #[error("the commit was not applied: {0}")]
    NotApplied(String),
    /// Nobody knows whether a commit was applied.
    #[error("it is not known whether the commit was applied: {0}")]
    Unknown(String),
    /// More files than numbers in one commit; the next attempt takes more.
    #[error("the commit needs more file numbers than were leased")]
    OutOfNumbers,
    /// A document names a file that is not in the table's folder.
    #[error("{0} is not a file of this table")]
    Foreign(String),
    /// The setting was changed after the table was made.
    #[error("the table was made with floe.table={made} and the topic now says {wanted}: set it back")]
    Mode {
        /// As the table is.
        made: &'static str,
        /// As the topic's setting is.
        wanted: &'static str,
    },
    /// The topic is no more.
    #[error("the topic was deleted")]
    TopicGone,
    /// The broker stops.
    #[error("the broker stops")]
    Closed,
}

impl ViewError {
    /// The failure of a commit whose command refuses with a `ViewError`.
    pub(crate) fn from_commit(error: CommitError<ViewError>) -> ViewError {
        match error {
            CommitError::Refused(error) => error,
            CommitError::NotApplied(reason) => ViewError::NotApplied(reason),
            CommitError::Unknown(reason) => ViewError::Unknown(reason),
            CommitError::Closed => ViewError::Closed,
        }
    }
}
