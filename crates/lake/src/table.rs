//! A topic as a table, as readers see it.

use std::collections::BTreeMap;

use floe_log::{Offset, topic::Topic};
use floe_schema::TableSchema;

use crate::map::Table;

/// A topic as a table, at one snapshot of the metadata.
#[derive(Clone, Debug)]
pub struct TableRef {
    /// The topic.
    pub topic: Topic,
    /// The table's name: the topic's.
    pub name: String,
    /// Its columns.
    pub schema: TableSchema,
    /// Where its metadata document is; none until the view has made it.
    pub metadata_location: Option<String>,
    /// The current Iceberg snapshot.
    pub snapshot_id: Option<i64>,
    /// By partition, the offset up to which records are in the table.
    pub progress: BTreeMap<u32, Offset>,
    /// Snapshots committed so far.
    pub snapshots: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Data files in the current snapshot.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Records that were no rows so far.
    pub bad_records: u64,
    pub(crate) record: Option<Table>,
}

/// One Parquet file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Its key in the store.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub records: u64,
}
