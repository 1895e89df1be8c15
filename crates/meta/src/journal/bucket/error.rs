//! Why a journal in a bucket cannot be opened.

/// Why a journal in a bucket cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BucketOpenError {
    /// The folder is not a valid key.
    #[error("{0:?} cannot be the folder of a journal: use letters, digits, and -_=./ between them")]
    Folder(String),
    /// There is no journal, and none was to be made.
    #[error("there is no journal in {url}. Check the bucket and its prefix; to make a new journal, say so")]
    None {
        /// Where it was looked for.
        url: String,
    },
    /// The journal is not the one that the caller knows.
    #[error(
        "the journal in {url} is {found:032x}, the one that this broker belongs to is {expected:032x}: this is \
         the bucket, or the prefix, of another cluster"
    )]
    Other {
        /// Where it is.
        url: String,
        /// The id of the journal that is there.
        found: u128,
        /// The id that the caller knows.
        expected: u128,
    },
    /// The first object of the journal cannot be used.
    #[error("cannot use {url}: {reason}")]
    Unsound {
        /// The object.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The first object of the journal is gone, and others are there.
    #[error(
        "{url} is missing, and {other} is there: put the object back from a version or a copy of the bucket"
    )]
    LostId {
        /// The first object of the journal.
        url: String,
        /// An object of the journal.
        other: String,
    },
    /// The store makes an object although there is one.
    #[error(
        "the store of {url} does not keep to the condition that an object must not exist yet, so brokers would \
         overwrite each other. Use a store with conditional writes"
    )]
    Unconditional {
        /// The object that it made twice.
        url: String,
    },
    /// The store did not answer.
    #[error("cannot open the journal: {0}")]
    Store(#[from] floe_store::StoreError),
}
