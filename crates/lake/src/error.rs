//! Why the files of a table could not be read or written.

use floe_store::StoreError;
use floe_view::ViewError;

use crate::data_file::FileError;

/// Why the files of a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A data file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A manifest, a manifest list or a schema.
    #[error("iceberg: {0}")]
    Iceberg(#[from] iceberg::Error),
    /// A metadata document.
    #[error("the table's metadata document cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The commit needs more files than it reserved numbers for; the next attempt reserves more.
    #[error("the commit needs more file numbers than were leased")]
    OutOfNumbers,
    /// A document names a file that is not in the table's folder.
    #[error("{0} is not a file of this table")]
    Foreign(String),
    /// The Iceberg library numbers schemas in another way than this version of Floe knows.
    #[error(
        "the table's schema has the id {theirs} in its metadata and {ours} in its manifests; this is a bug"
    )]
    SchemaId {
        /// In the manifests.
        ours: i32,
        /// In the metadata.
        theirs: i32,
    },
    /// The setting was changed after the table was made.
    #[error("the table was made with floe.table={made} and the topic now says {wanted}: set it back")]
    Mode {
        /// The setting then: `json` or `raw`.
        made: &'static str,
        /// The setting now: `json` or `raw`.
        wanted: &'static str,
    },
}

impl From<TableError> for ViewError {
    fn from(error: TableError) -> ViewError {
        ViewError::output(error)
    }
}

impl From<FileError> for ViewError {
    fn from(error: FileError) -> ViewError {
        TableError::from(error).into()
    }
}
