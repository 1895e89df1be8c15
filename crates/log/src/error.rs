//! Errors of opening a log.

use floe_meta::DecodeError;
use thiserror::Error;

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The first commit to the metadata failed.
    #[error("cannot open the log: {0}")]
    Metadata(String),
    /// A limit is zero or contradicts another.
    #[error("the configuration of the log is not usable: {0}")]
    Config(&'static str),
    /// The metadata or the store may hold formats that this broker does not read.
    #[error(
        "this metadata has format level {found}, this broker reads up to {known}: start a newer version of Floe; a \
         level that was raised never falls"
    )]
    Newer {
        /// The level in force.
        found: u16,
        /// The highest level of this broker.
        known: u16,
    },
    /// The store's claim could not be read or written.
    #[error("cannot use the store: {0}")]
    Store(String),
    /// The store holds objects of another cluster, which this one would overwrite.
    #[error(
        "the store belongs to the cluster {found} ({url}), this metadata to {cluster}: \
         start with the data directory of {found}, or with a bucket or prefix that nobody uses"
    )]
    OtherCluster {
        /// Where the store's claim is.
        url: String,
        /// The cluster in the store's claim.
        found: String,
        /// This cluster.
        cluster: String,
    },
    /// The store's claim is of a newer version, or damaged.
    #[error(
        "{url} does not say which cluster the store belongs to, at least not to this version of Floe ({found:?}): \
         start the version that wrote it, or put the object back from a copy"
    )]
    Claim {
        /// Where the claim is.
        url: String,
        /// What it has, or how long it is.
        found: String,
    },
    /// The cluster has another journal.
    #[error(
        "the store names {found} as the journal of its cluster ({url}), and this is {ours}: start with that journal. A \
         journal cannot be moved yet"
    )]
    OtherJournal {
        /// Where the claim is.
        url: String,
        /// The journal in the claim.
        found: String,
        /// The journal that was opened.
        ours: String,
    },
    /// The store has what the metadata does not know.
    #[error(
        "this metadata is older than its store ({url}): {reason}. A broker that went on would give offsets, object ids \
         and producer ids a second time. Start with the newest data directory, with all files of its journal; \
         `floe check` judges a copy without starting it, and docs/reliability.md says what else there is to do"
    )]
    Older {
        /// What shows it.
        url: String,
        /// How it shows.
        reason: String,
    },
    /// The metadata refers to objects, but no cluster has claimed the store. The objects must be in another store.
    #[error(
        "this metadata (cluster {cluster}) has its records in another store, there is no {url}: \
         start with the store that it was used with"
    )]
    OtherStore {
        /// Where the right store has its claim.
        url: String,
        /// This cluster.
        cluster: String,
    },
}

impl From<DecodeError> for OpenError {
    fn from(error: DecodeError) -> OpenError {
        OpenError::Metadata(error.to_string())
    }
}
