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
    /// The table's name, which is the topic's.
    pub name: String,
    /// Its columns.
    pub schema: TableSchema,
    /// The URL of its metadata document; none before the view has made the table.
    pub metadata_location: Option<String>,
    /// The id of the current Iceberg snapshot; none before the first.
    pub snapshot_id: Option<i64>,
    /// By partition, the offset up to which its records are in the table.
    pub progress: BTreeMap<u32, Offset>,
    /// Snapshots committed so far, expired ones included.
    pub snapshots: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Data files in the current snapshot.
    pub files: u64,
    /// Bytes of the data files in the current snapshot.
    pub bytes: u64,
    /// Records so far that did not fit the table.
    pub bad_records: u64,
    pub(crate) record: Option<Table>,
}

/// One Parquet file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Its key in the store.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its rows, at least 1.
    pub records: u64,
}
