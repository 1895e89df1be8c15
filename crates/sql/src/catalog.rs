//! The catalog of a statement: `floe.default.<topic>` for every topic that is a table, and `floe.system.commits`, at
//! one cut.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::TableType;

use floe_lake::{TailError, TailReader};
use floe_query::QueryError;
use floe_schema::TableSchema;

use crate::commits::{COMMITS, SYSTEM, System};
use crate::described::{OfItself, information_schema};
use crate::files::Files;
use crate::source::{Source, Table};
use crate::table::UnifiedTable;
use crate::tail::{self, Logged, Rows, Span, Tail};

/// The only catalog. A name without a catalog means this one.
pub const CATALOG: &str = "floe";
/// The schema of topics, and their namespace in the Iceberg catalog. A name without a schema means this one.
pub const SCHEMA: &str = "default";

/// The inputs of one statement.
pub(crate) struct Inputs {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) files: Arc<Files>,
    pub(crate) memory: Arc<dyn MemoryPool>,
    /// Bytes, as stored, up to which the rows of a tail are held.
    pub(crate) tail_held_bytes: u64,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inputs({:?})", self.source)
    }
}

/// The engine's list of catalogs for one statement, with [`CATALOG`] as its only entry.
pub(crate) fn catalogs(inputs: Arc<Inputs>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(Catalog(inputs)));
    Arc::new(list)
}

#[derive(Debug)]
struct Catalog(Arc<Inputs>);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned(), SYSTEM.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::new(Schema(self.0.clone()))),
            SYSTEM => Some(Arc::new(System { source: self.0.source.clone(), files: self.0.files.clone() })),
            INFORMATION_SCHEMA => {
                let (source, live) = (self.0.source.clone(), Arc::new(Schema(self.0.clone())));
                let commits = OfItself { schema: SYSTEM, name: COMMITS, columns: floe_history::schema() };
                Some(information_schema((CATALOG, SCHEMA), source, live, commits))
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Schema(Arc<Inputs>);

#[async_trait]
impl SchemaProvider for Schema {
    /// `information_schema` has a list of its own, and nothing else asks.
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.0.source.table(name).await.map_err(external)? else { return Ok(None) };
        Ok(Some(Arc::new(self.0.unified(table).await.map_err(external)?)))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        // The default implementation would read the tail.
        let table = self.0.source.table(name).await.map_err(external)?;
        Ok(table.map(|_| TableType::Base))
    }

    /// The engine asks for statements that make tables, which are refused before.
    fn table_exist(&self, _: &str) -> bool {
        true
    }
}

impl Inputs {
    /// The table at this cut: its files in the lake and its tail in the log.
    async fn unified(&self, mut table: Table) -> std::result::Result<UnifiedTable, QueryError> {
        let files = std::mem::take(&mut table.files);
        let (schema, tail) = self.tail(table).await?;
        let (arrow, tail) = (schema.arrow(), Arc::new(tail));
        Ok(UnifiedTable { schema: Arc::new(schema), arrow, files, readers: self.files.clone(), tail })
    }

    /// The rows that the lake's table does not hold yet, and the schema that fits them. A short tail is decoded once
    /// and held. A longer one is only looked at here.
    async fn tail(&self, table: Table) -> std::result::Result<(TableSchema, Tail), QueryError> {
        let span = Span::of(&table);
        metrics::histogram!("floe_sql_tail_bytes").record(span.bytes as f64);
        if span.bytes <= self.tail_held_bytes
            && let Some((schema, rows)) = self.held(&table).await?
        {
            return Ok((schema, Tail { table: table.name, span, rows }));
        }
        metrics::counter!("floe_sql_tails_streamed_total").increment(1);
        let memory = self.reserve(&table);
        let mut hold = |bytes| memory.try_resize(bytes).map_err(|error| error.message().into_owned());
        let known = self.source.learned(table.topic).await;
        let seen = self.reader(&table).learn(known.clone(), &mut hold).await;
        let seen = seen.map_err(|error| tail::refused(&table.name, &error))?;
        if known.as_ref() != Some(&seen) {
            self.source.learn(table.topic, &seen).await;
        }
        let (batches, schema) = (self.source.batches(), seen.schema);
        let rows = Rows::Logged(Box::new(Logged { batches, spans: table.spans, schema: schema.clone() }));
        Ok((schema, Tail { table: table.name, span, rows }))
    }

    /// The rows of a tail in memory; none if they take more than is allowed, or than is free now.
    async fn held(&self, table: &Table) -> std::result::Result<Option<(TableSchema, Rows)>, QueryError> {
        let memory = self.reserve(table);
        let allowed = usize::try_from(self.tail_held_bytes).unwrap_or(usize::MAX);
        let mut hold = |bytes| match bytes > allowed.saturating_mul(2) {
            true => Err("the tail is streamed".to_owned()),
            false => memory.try_resize(bytes).map_err(|error| error.message().into_owned()),
        };
        match self.reader(table).all(&mut hold).await {
            Ok(tail) => {
                let rows = Rows::Held { batches: tail.batches, _memory: memory };
                Ok(Some((tail.schema, rows)))
            }
            Err(TailError::Memory(_)) => Ok(None),
            Err(error) => Err(tail::refused(&table.name, &error)),
        }
    }

    /// A reader of the tail that begins with the table's own schema.
    fn reader(&self, table: &Table) -> TailReader {
        TailReader::new(self.source.batches(), &table.spans, table.schema.clone())
    }

    fn reserve(&self, table: &Table) -> MemoryReservation {
        MemoryConsumer::new(format!("log tail of {}", table.name)).register(&self.memory)
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
