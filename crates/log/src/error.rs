//! Errors of opening a log.

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
    /// The store belongs to a cluster, and its metadata is not where it should be.
    #[error(
        "the store belongs to the cluster {found} ({url}), and there is no metadata in {missing}: restore this \
         directory from a backup, or start with the data directory that has it. A new cluster needs a store that \
         nobody uses"
    )]
    NoMetadata {
        /// Where the store's claim is.
        url: String,
        /// The cluster in the store's claim.
        found: String,
        /// The journal's directory.
        missing: String,
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
