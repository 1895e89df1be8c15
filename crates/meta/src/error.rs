//! Errors of reading metadata.

/// Why a key or value of the metadata map cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("metadata ends too early")]
    Truncated,
    /// The bytes are not what the type writes.
    #[error("metadata is corrupt: {0}")]
    Corrupt(String),
    /// A newer version of Floe wrote the value.
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
    /// An error for bytes that their type does not write.
    pub fn corrupt(what: impl Into<String>) -> DecodeError {
        DecodeError::Corrupt(what.into())
    }
}
