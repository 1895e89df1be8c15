//! The catalog of a statement: `floe.default.<topic>` for every topic that is a table, at one cut.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::logical_expr::TableType;

use floe_lake::{Lake, LakeError, TableRef, TailError};
use floe_log::Offset;
use floe_meta::Snapshot;
use floe_schema::TableSchema;

use crate::described::information_schema;
use crate::files::Files;
use crate::table::UnifiedTable;
use crate::tail::{Span, TailRows};
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
    pub(crate) tail_bytes_max: u64,
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
        let (schema, rows) = self.tail(&table).await?;
        let (arrow, tail) = (schema.arrow(), Arc::new(rows));
        Ok(UnifiedTable { schema: Arc::new(schema), arrow, files, readers: self.files.clone(), tail })
    }

    /// Reads the rows that the lake's table does not hold yet. Also returns the schema that fits them.
    async fn tail(&self, table: &TableRef) -> std::result::Result<(TableSchema, TailRows), QueryError> {
        let span = self.span(table)?;
        let memory = MemoryConsumer::new(format!("log tail of {}", table.name)).register(&self.memory);
        let mut hold = |bytes| memory.try_resize(bytes).map_err(|error| error.message().into_owned());
        let tail = self.lake.tail(&self.snapshot, table, &mut hold).await;
        let tail = tail.map_err(|error| tail_error(&table.name, &error))?;
        metrics::histogram!("floe_sql_tail_bytes").record(memory.size() as f64);
        let rows = TailRows { table: table.name.clone(), batches: tail.batches, span, _memory: memory };
        Ok((tail.schema, rows))
    }

    /// Finds the span of the tail. Refuses a tail that is larger than `tail_bytes_max`.
    fn span(&self, table: &TableRef) -> std::result::Result<Span, QueryError> {
        let progress = |partition| table.progress.get(&partition).copied().unwrap_or(Offset(0));
        let span = Span::of(&self.snapshot, table.topic.partition_ids(), progress)
            .map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
        if span.bytes <= self.tail_bytes_max {
            return Ok(span);
        }
        let message = format!(
            "the lake is behind its topic: {} MiB of the log of '{}' are not in its table yet, and a statement \
             reads at most {} MiB; wait for the lake to catch up, or raise sql_tail_bytes",
            span.bytes >> 20,
            table.name,
            self.tail_bytes_max >> 20,
        );
        Err(QueryError::new(Kind::Limit, message))
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn unreadable(table: &str, error: &LakeError) -> QueryError {
    QueryError::new(Kind::Unavailable, format!("table '{table}' cannot be read: {error}"))
}

fn tail_error(table: &str, error: &TailError) -> QueryError {
    let kind = match error {
        TailError::TooLong { .. } | TailError::Memory(_) => Kind::Limit,
        TailError::Read(_) => Kind::Unavailable,
        TailError::Adapt(_) => Kind::Internal,
    };
    QueryError::new(kind, format!("the tail of table '{table}' cannot be read: {error}"))
}
