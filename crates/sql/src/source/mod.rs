//! What a statement reads, whoever has it: the tables at one cut, the bytes of their files, the batches of the log, and
//! what statements before it have learned of long tails.
//!
//! ```text
//! here.rs   the log, the lake and the store of this process
//! ```
//! A process that runs a statement for a broker has none of them. It asks the broker (`worker/away.rs`).

pub(crate) mod here;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use floe_env::Timestamp;
use floe_history::map::PlacedPart;
use floe_lake::{Batches, DataFile, TailSchema, TailSpan};
use floe_log::TopicId;
use floe_meta::Lsn;
use floe_query::QueryError;
use floe_schema::TableSchema;

/// Where statements get their cuts.
pub(crate) trait Sources: Send + Sync {
    /// The cut for a statement that begins now.
    fn cut(&self) -> Arc<dyn Source>;

    /// The files of all tables. They never change, so no cut is needed.
    fn files(&self) -> Arc<dyn Reads>;
}

/// What one statement reads. All of it is from one snapshot of the metadata.
#[async_trait]
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// The cut.
    fn lsn(&self) -> Lsn;

    /// The statement's `now()`.
    fn now(&self) -> Timestamp;

    /// All tables.
    async fn described(&self) -> Result<Described, QueryError>;

    /// The table of a name.
    async fn table(&self, name: &str) -> Result<Option<Table>, QueryError>;

    /// The batches of the log.
    fn batches(&self) -> Arc<dyn Batches>;

    /// The parts of the history of commits.
    async fn history(&self) -> Result<Vec<PlacedPart>, QueryError>;

    /// The rows of the commits after the last part, up to the cut, as an object of the history.
    async fn recent(&self) -> Result<Bytes, QueryError>;

    /// What statements before this one have learned of the tail of a table.
    async fn learned(&self, topic: TopicId) -> Option<TailSchema>;

    /// Keeps what this statement has learned.
    async fn learn(&self, topic: TopicId, seen: &TailSchema);
}

/// The bytes of the lake's files.
#[async_trait]
pub(crate) trait Reads: Send + Sync {
    /// The bytes of `range`. The error says what the store said.
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, String>;
}

/// All tables, as the metadata has them.
#[derive(Debug)]
pub(crate) struct Described {
    /// By name. The columns are missing if all tables together have too many.
    pub(crate) tables: Vec<(String, Option<TableSchema>)>,
    /// The columns of all tables.
    pub(crate) columns: usize,
}

/// A table at the cut.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) topic: TopicId,
    /// Its columns as of its last commit.
    pub(crate) schema: TableSchema,
    /// The lake's files, up to its progress.
    pub(crate) files: Arc<Vec<Arc<DataFile>>>,
    /// The offsets from its progress on, of all partitions.
    pub(crate) spans: Vec<TailSpan>,
    /// Bytes of the tail's extents, as stored. The first extent of a partition may begin before the tail.
    pub(crate) tail_bytes: u64,
}
