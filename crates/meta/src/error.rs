//! What of the metadata cannot be read.

/// A key or value of the metadata map that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("metadata ends too early")]
    Truncated,
    /// It is not what its type writes.
    #[error("metadata is corrupt: {0}")]
    Corrupt(String),
    /// A newer Floe wrote it.
    #[error(
        "metadata of kind {kind} has version {found}, this build knows up to {known}: upgrade this broker"
    )]
    NewerVersion {
        /// The record's kind.
        kind: u8,
        /// The version that was found.
        found: u8,
        /// The newest version that this build reads.
        known: u8,
    },
}

impl DecodeError {
    /// A value that is not what its type writes.
    pub fn corrupt(what: impl Into<String>) -> DecodeError {
        DecodeError::Corrupt(what.into())
    }
}
