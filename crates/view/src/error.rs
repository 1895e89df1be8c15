//! Why a step of a view failed.

use std::error::Error;

use floe_log::{Offset, PartitionId, sequencer::AppendError, topic::TopicError, walk::ReadError};
use floe_meta::lease::LeaseError;
use floe_meta::{CommitError, DecodeError};

/// Why a step of a view failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The log could not be read.
    #[error("the log could not be read: {0}")]
    Read(#[from] ReadError),
    /// Dead letters could not be written.
    #[error("dead letters could not be written: {0}")]
    DeadLetter(#[from] AppendError),
    /// The dead-letter topic could not be created.
    #[error("the dead-letter topic could not be made: {0}")]
    DeadLetterTopic(#[from] TopicError),
    /// A bad record, under [`crate::BadRecordRule::Stop`].
    #[error(
        "the view stops at offset {offset} of {partition}: {reason}; change the rule for bad records to go on"
    )]
    BadRecord {
        /// The partition of the record.
        partition: PartitionId,
        /// The offset of the record.
        offset: Offset,
        /// What is wrong with it.
        reason: String,
    },
    /// A record of the metadata map cannot be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    /// Another process owns the view, or took it over.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The output or the progress was changed by somebody else. The runner loads them again.
    #[error("the output is not as this view left it: {0}")]
    Stale(String),
    /// The last command of a view came too early.
    #[error("the view is not at its end yet")]
    NotYet,
    /// The journal did not take the commit.
    #[error("the commit was not applied: {0}")]
    NotApplied(String),
    /// It is not known whether a commit was applied.
    #[error("it is not known whether the commit was applied: {0}")]
    Unknown(String),
    /// The topic was deleted.
    #[error("the topic was deleted")]
    TopicGone,
    /// The broker shuts down.
    #[error("the broker stops")]
    Closed,
    /// The view's own failure.
    #[error(transparent)]
    Output(Box<dyn Error + Send + Sync>),
}

impl ViewError {
    /// A failure of the view itself.
    pub fn output(error: impl Error + Send + Sync + 'static) -> ViewError {
        ViewError::Output(Box::new(error))
    }

    /// A stable word for the kind of the failure, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            ViewError::Read(_) => "read",
            ViewError::DeadLetter(_) => "dead_letter",
            ViewError::DeadLetterTopic(_) => "dead_letter_topic",
            ViewError::BadRecord { .. } => "bad_record",
            ViewError::Metadata(_) => "metadata",
            ViewError::Lease(_) => "lease",
            ViewError::Stale(_) => "stale",
            ViewError::NotYet => "not_yet",
            ViewError::NotApplied(_) => "not_applied",
            ViewError::Unknown(_) => "unknown",
            ViewError::TopicGone => "topic_gone",
            ViewError::Closed => "closed",
            ViewError::Output(_) => "output",
        }
    }

    /// The failure of a commit whose command refuses with a `ViewError`.
    pub fn from_commit(error: CommitError<ViewError>) -> ViewError {
        match error {
            CommitError::Refused(error) => error,
            CommitError::NotApplied(reason) => ViewError::NotApplied(reason),
            CommitError::Unknown(reason) => ViewError::Unknown(reason),
            CommitError::Closed => ViewError::Closed,
        }
    }
}
