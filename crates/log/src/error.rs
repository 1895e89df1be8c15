//! Why a log cannot be opened.

use thiserror::Error;

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The metadata did not take the first commit.
    #[error("cannot open the log: {0}")]
    Metadata(String),
    /// A limit is zero or contradicts another.
    #[error("the configuration of the log is not usable: {0}")]
    Config(&'static str),
    /// The store did not say whose it is.
    #[error("cannot use the store: {0}")]
    Store(String),
    /// The store holds the objects of other metadata, which would be overwritten.
    #[error(
        "the store belongs to the cluster {found} ({url}), this metadata to {cluster}: \
         start with the data directory of {found}, or with a bucket or prefix that nobody uses"
    )]
    OtherCluster {
        /// Where the store says so.
        url: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        cluster: String,
    },
    /// The metadata refers to objects, and the store is nobody's: they are elsewhere.
    #[error(
        "this metadata (cluster {cluster}) has its records in another store, there is no {url}: \
         start with the store that it was used with"
    )]
    OtherStore {
        /// What the store would have if it were the right one.
        url: String,
        /// Who we are.
        cluster: String,
    },
}
