//! Why the files of a table could not be read or written.

use floe_log::PartitionId;
use floe_schema::AdaptError;
use floe_store::StoreError;
use floe_view::ViewError;
use parquet::errors::ParquetError;

use crate::checks::Damage;

/// Why the files of a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A data file in the making.
    #[error(transparent)]
    File(#[from] FileError),
    /// A document in the making.
    #[error("iceberg: {0}")]
    Iceberg(#[from] floe_iceberg::Error),
    /// A file of the table is in the store and is not what was written.
    #[error("{key} cannot be read: {reason}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifests name other files than the table has by its record in the metadata map.
    #[error("the manifests that {list} names are damaged: they have {found}, and the table has {wanted}")]
    Totals {
        /// The key of the manifest list.
        list: String,
        /// What is live in the manifests.
        found: String,
        /// What the map says.
        wanted: String,
    },
    /// The commit needs more files than it reserved numbers for; the next attempt reserves more.
    #[error("the commit needs more file numbers than were leased")]
    OutOfNumbers,
    /// A document names a file that is not in the table's folder.
    #[error("{0} is not a file of this table")]
    Foreign(String),
    /// A table that is rebuilt would lose rows that the running one has.
    #[error(
        "a client deleted records of {0} from the log before the new table read them: ask for the rebuilding again, it \
         then begins once more"
    )]
    Overtaken(PartitionId),
    /// The setting was changed after the table was made.
    #[error("the table was made with floe.table={made} and the topic now says {wanted}: set it back")]
    Mode {
        /// The setting then: `json` or `raw`.
        made: &'static str,
        /// The setting now: `json` or `raw`.
        wanted: &'static str,
    },
}

/// Why a data file cannot be written or read again.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// From the Parquet library.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The schema, or a bound of a column.
    #[error("iceberg: {0}")]
    Iceberg(#[from] floe_iceberg::Error),
    /// The rows do not fit the table's schema.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// A byte of the file is not as it was written.
    #[error("the file is damaged: {0}; `floe table rebuild` makes the table anew from the log")]
    Damaged(#[from] Damage),
}

impl TableError {
    /// Whether a file is not what was written, as opposed to a store that fails for a while.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            TableError::Damaged { .. }
                | TableError::Totals { .. }
                | TableError::Foreign(_)
                | TableError::Store(StoreError::NotFound(_) | StoreError::Corrupt(_))
        )
    }

    /// A file that cannot be read, for this reason.
    pub(crate) fn damaged(key: &str, reason: &dyn std::fmt::Display) -> TableError {
        TableError::Damaged { key: key.to_owned(), reason: reason.to_string() }
    }
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
