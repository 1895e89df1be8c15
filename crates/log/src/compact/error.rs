//! Why compaction ended early.

use floe_meta::lease::LeaseError;
use floe_meta::{CommitError, DecodeError};
use floe_store::StoreError;

use crate::read::walk::ReadError;
use crate::write::merged::MergeError;

/// Why a round ended early. The next round begins anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Lease(#[from] CommitError<LeaseError>),
    #[error(transparent)]
    Commit(CommitError<MergeError>),
    #[error(transparent)]
    Metadata(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no object id: {0}")]
    Id(String),
    #[error("{0}")]
    Read(ReadError),
    #[error("too much is damaged: nothing is compacted until some is repaired. `floe check` names all")]
    Damage,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The topic or its settings have changed, or its extents change all the time.
    #[error("the partition has changed")]
    Changed,
    /// Some of it cannot be read.
    #[error("it is damaged: {0}")]
    Damage(String),
    #[error(transparent)]
    Round(#[from] RoundError),
}

impl From<DecodeError> for PassError {
    fn from(error: DecodeError) -> PassError {
        PassError::Round(error.into())
    }
}
