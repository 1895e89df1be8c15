//! Why a document cannot be read or made.

/// Why a document cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not an Avro file of the kind that Floe writes.
    #[error("not an Avro file that Floe writes: {0}")]
    Avro(&'static str),
    /// The text is not JSON, or other members are in it than in a metadata document of Floe.
    #[error("not a metadata document that Floe writes: {0}")]
    Json(#[from] serde_json::Error),
    /// The members of a metadata document contradict each other.
    #[error("the metadata contradicts itself: {0}")]
    Metadata(String),
    /// Two columns of a schema have one id or one name.
    #[error("two columns of the schema have the {0}")]
    Schema(String),
    /// A bound does not have the bytes that its column's type has.
    #[error("a bound of {bytes} bytes is none of a column of type {of}")]
    Bound {
        /// Of the column.
        of: String,
        /// Of the bound.
        bytes: usize,
    },
    /// A file of an earlier snapshot comes without its sequence numbers.
    #[error("{0} has no sequence number and was not added by this snapshot")]
    NoSequenceNumber(String),
    /// Files that a commit replaces are not in the table any more.
    #[error("{0} files that were rewritten are not in the table any more")]
    NotLive(usize),
    /// The format counts with whole numbers that have a sign: files with 32 bits, the rest with 64.
    #[error("{0} is more than the format can count")]
    TooLarge(u64),
}
