//! The catalog of a statement: `floe.default.<topic>` for every topic that is a table, at one cut.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::TableType;

use floe_env::{Lru, lock};
use floe_lake::{Lake, LakeError, TableRef, TailError, TailSchema};
use floe_log::{Offset, TopicId};
use floe_meta::Snapshot;
use floe_schema::TableSchema;

use crate::described::information_schema;
use crate::files::Files;
use crate::limits::{TAIL_COLUMN_BYTES, TAIL_PARTITION_BYTES};
use crate::table::UnifiedTable;
use crate::tail::{self, Logged, Rows, Span, Tail};
use floe_query::{Kind, QueryError};

/// The only catalog. A name without a catalog means this one.
pub const CATALOG: &str = "floe";
/// The only schema, and the namespace of the Iceberg catalog. A name without a schema means this one.
pub const SCHEMA: &str = "default";

/// The inputs of one statement. All its tables share one snapshot of the metadata.
pub(crate) struct Cut {
    pub(crate) snapshot: Snapshot,
    pub(crate) lake: Lake,
    pub(crate) files: Arc<Files>,
    pub(crate) memory: Arc<dyn MemoryPool>,
    /// Bytes, as stored, up to which the rows of a tail are held.
    pub(crate) tail_held_bytes: u64,
    pub(crate) tails: Arc<Tails>,
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cut({:?})", self.snapshot.lsn())
    }
}

/// The engine's list of catalogs for one statement, with [`CATALOG`] as its only entry.
pub(crate) fn catalogs(cut: Arc<Cut>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(Catalog(cut)));
    Arc::new(list)
}

#[derive(Debug)]
struct Catalog(Arc<Cut>);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::new(Schema(self.0.clone()))),
            INFORMATION_SCHEMA => {
                let (lake, snapshot) = (self.0.lake.clone(), self.0.snapshot.clone());
                Some(information_schema((CATALOG, SCHEMA), lake, snapshot, Arc::new(Schema(self.0.clone()))))
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Schema(Arc<Cut>);

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        match self.0.lake.tables(&self.0.snapshot) {
            Ok(tables) => tables.into_iter().map(|table| table.name).collect(),
            Err(error) => {
                tracing::error!(%error, "the tables cannot be listed");
                Vec::new()
            }
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.0.table(name).map_err(external)? else { return Ok(None) };
        Ok(Some(Arc::new(self.0.unified(table).await.map_err(external)?)))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        // The default implementation would read the tail of every listed table.
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table(name).is_ok_and(|table| table.is_some())
    }
}

impl Cut {
    fn table(&self, name: &str) -> std::result::Result<Option<TableRef>, QueryError> {
        self.lake.table(&self.snapshot, name).map_err(|error| unreadable(name, &error))
    }

    /// The table at this cut: its files in the lake and its tail in the log.
    async fn unified(&self, table: TableRef) -> std::result::Result<UnifiedTable, QueryError> {
        let files = self.lake.data_files(&table).await.map_err(|error| unreadable(&table.name, &error))?;
        let (schema, tail) = self.tail(table).await?;
        let (arrow, tail) = (schema.arrow(), Arc::new(tail));
        Ok(UnifiedTable { schema: Arc::new(schema), arrow, files, readers: self.files.clone(), tail })
    }

    /// The rows that the lake's table does not hold yet, and the schema that fits them. A short tail is decoded once
    /// and held. A longer one is only looked at here.
    async fn tail(&self, table: TableRef) -> std::result::Result<(TableSchema, Tail), QueryError> {
        let progress = |partition| table.progress.get(&partition).copied().unwrap_or(Offset(0));
        let span = Span::of(&self.snapshot, table.topic.partition_ids(), progress)
            .map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
        metrics::histogram!("floe_sql_tail_bytes").record(span.bytes as f64);
        if span.bytes <= self.tail_held_bytes
            && let Some((schema, rows)) = self.held(&table).await?
        {
            return Ok((schema, Tail { table: table.name, span, rows }));
        }
        metrics::counter!("floe_sql_tails_streamed_total").increment(1);
        let memory = self.reserve(&table);
        let mut hold = |bytes| memory.try_resize(bytes).map_err(|error| error.message().into_owned());
        let known = self.tails.get(table.topic.id);
        let seen = self.lake.tail_schema(&self.snapshot, &table, known, &mut hold).await;
        let seen = seen.map_err(|error| tail::refused(&table.name, &error))?;
        let schema = seen.schema.clone();
        self.tails.put(table.topic.id, seen);
        let name = table.name.clone();
        let (lake, snapshot) = (self.lake.clone(), self.snapshot.clone());
        let rows = Rows::Logged(Box::new(Logged { lake, snapshot, table, schema: schema.clone() }));
        Ok((schema, Tail { table: name, span, rows }))
    }

    /// The rows of a tail in memory; none if they take more than is allowed, or than is free now.
    async fn held(&self, table: &TableRef) -> std::result::Result<Option<(TableSchema, Rows)>, QueryError> {
        let memory = self.reserve(table);
        let allowed = usize::try_from(self.tail_held_bytes).unwrap_or(usize::MAX);
        let mut hold = |bytes| match bytes > allowed.saturating_mul(2) {
            true => Err("the tail is streamed".to_owned()),
            false => memory.try_resize(bytes).map_err(|error| error.message().into_owned()),
        };
        match self.lake.tail(&self.snapshot, table, &mut hold).await {
            Ok(tail) => {
                let rows = Rows::Held { batches: tail.batches, _memory: memory };
                Ok(Some((tail.schema, rows)))
            }
            Err(TailError::Memory(_)) => Ok(None),
            Err(error) => Err(tail::refused(&table.name, &error)),
        }
    }

    fn reserve(&self, table: &TableRef) -> MemoryReservation {
        MemoryConsumer::new(format!("log tail of {}", table.name)).register(&self.memory)
    }
}

/// What statements have learned of long tails, so that the next statement need not decode all of them to plan.
pub(crate) struct Tails(Mutex<Lru<TopicId, TailSchema>>);

impl Tails {
    pub(crate) fn new(bytes_max: usize) -> Tails {
        Tails(Mutex::new(Lru::new(bytes_max)))
    }

    fn get(&self, topic: TopicId) -> Option<TailSchema> {
        lock(&self.0).get(&topic).cloned()
    }

    fn put(&self, topic: TopicId, seen: TailSchema) {
        let columns = seen.table.columns_used() + seen.schema.columns_used();
        let bytes = columns * TAIL_COLUMN_BYTES + seen.ends.len() * TAIL_PARTITION_BYTES;
        let evicted = lock(&self.0).insert(topic, seen, bytes);
        drop(evicted);
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn unreadable(table: &str, error: &LakeError) -> QueryError {
    QueryError::new(Kind::Unavailable, format!("table '{table}' cannot be read: {error}"))
}
