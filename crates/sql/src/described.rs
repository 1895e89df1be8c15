//! The tables as `information_schema` describes them: all that it says is in the metadata map. So describing thousands
//! of tables reads neither their files nor their tails. Only the columns of a single table (`SHOW COLUMNS`, or
//! `table_name = '…'`) include those that just the tail has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, Session, TableProvider,
};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;

use floe_query::{Kind, QueryError};
use floe_schema::TableSchema;
use tokio::sync::OnceCell;

use crate::limits::DESCRIBED_COLUMNS_MAX;
use crate::source::Source;

/// The table of `information_schema` that needs more than names.
const COLUMNS: &str = "columns";

/// A table that Floe keeps of itself: its schema, its name, and its columns.
#[derive(Clone, Debug)]
pub(crate) struct OfItself {
    pub(crate) schema: &'static str,
    pub(crate) name: &'static str,
    pub(crate) columns: SchemaRef,
}

impl OfItself {
    fn provider(&self) -> Result<Arc<dyn SchemaProvider>> {
        let schema = MemorySchemaProvider::new();
        schema.register_table(self.name.to_owned(), Arc::new(EmptyTable::new(self.columns.clone())))?;
        Ok(Arc::new(schema))
    }
}

/// The tables of `information_schema` that need the names of all tables.
const OF_ALL_TABLES: [&str; 3] = ["tables", "views", COLUMNS];

/// The schema `information_schema` over the tables of a cut, which are in the schema `schema` of `catalog`, and the one
/// that Floe keeps of itself. `live` is that schema as statements read it.
pub(crate) fn information_schema(
    (catalog, schema): (&'static str, &'static str),
    source: Arc<dyn Source>,
    live: Arc<dyn SchemaProvider>,
    of_itself: OfItself,
) -> Arc<dyn SchemaProvider> {
    let tables = Described(Arc::new(Tables { schema, source, of_itself, known: OnceCell::new() }));
    let all = InformationSchemaProvider::new(list(catalog, Arc::new(tables.clone())));
    Arc::new(InformationSchema { catalog, schema, tables, all: Arc::new(all), live })
}

fn list(name: &str, catalog: Arc<dyn CatalogProvider>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(name.to_owned(), catalog);
    Arc::new(list)
}

#[derive(Clone, Debug)]
struct InformationSchema {
    catalog: &'static str,
    schema: &'static str,
    tables: Described,
    all: Arc<InformationSchemaProvider>,
    live: Arc<dyn SchemaProvider>,
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        self.all.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if OF_ALL_TABLES.iter().any(|table| name.eq_ignore_ascii_case(table)) {
            self.tables.look().await?;
        }
        let Some(table) = self.all.table(name).await? else { return Ok(None) };
        Ok(Some(match name.eq_ignore_ascii_case(COLUMNS) {
            true => Arc::new(Columns { of_all: table, of: self.clone() }),
            false => table,
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.all.table_exist(name)
    }
}

impl InformationSchema {
    /// The columns of one table as a statement sees them; none if there is no such table.
    async fn columns_of_one(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.live.table(name).await? else { return Ok(None) };
        let (catalog, schema) = (MemoryCatalogProvider::new(), MemorySchemaProvider::new());
        schema.register_table(name.to_owned(), Arc::new(EmptyTable::new(table.schema())))?;
        catalog.register_schema(self.schema, Arc::new(schema))?;
        // Names of tables are unique in a schema only.
        let of_itself = &self.tables.0.of_itself;
        if of_itself.name == name {
            catalog.register_schema(of_itself.schema, of_itself.provider()?)?;
        }
        InformationSchemaProvider::new(list(self.catalog, Arc::new(catalog))).table(COLUMNS).await
    }
}

/// `information_schema.columns`.
#[derive(Debug)]
struct Columns {
    of_all: Arc<dyn TableProvider>,
    of: InformationSchema,
}

impl TableProvider for Columns {
    fn schema(&self) -> SchemaRef {
        self.of_all.schema()
    }

    fn table_type(&self) -> TableType {
        self.of_all.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The engine still applies them.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // No `async fn`, as in `UnifiedTable`.
    fn scan<'s, 'a, 'b, 'c, 'f>(
        &'s self,
        state: &'a dyn Session,
        projection: Option<&'b Vec<usize>>,
        filters: &'c [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        's: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let name = filters.iter().find_map(one_table).map(str::to_owned);
        async move {
            let of_one = match name {
                Some(name) => self.of.columns_of_one(&name).await?,
                None => None,
            };
            of_one.as_ref().unwrap_or(&self.of_all).scan(state, projection, &[], limit).await
        }
        .boxed()
    }
}

/// The only table whose rows pass a filter, if it says so.
fn one_table(filter: &Expr) -> Option<&str> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(name, _)) | (Expr::Literal(name, _), Expr::Column(column))
            if column.name == "table_name" =>
        {
            name.try_as_str().flatten()
        }
        _ => None,
    }
}

/// The catalog and its schema of topics.
#[derive(Clone)]
struct Described(Arc<Tables>);

struct Tables {
    schema: &'static str,
    source: Arc<dyn Source>,
    of_itself: OfItself,
    /// Looked at once, and only by a statement that asks.
    known: OnceCell<Known>,
}

struct Known {
    /// None if there are too many.
    columns: BTreeMap<String, Option<SchemaRef>>,
    /// Of all tables.
    count: usize,
}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Described({:?})", self.0.source)
    }
}

impl Described {
    async fn look(&self) -> Result<()> {
        let known = async || {
            let described = self.0.source.described().await?;
            let of =
                |(name, schema): (String, Option<TableSchema>)| (name, schema.map(|schema| schema.arrow()));
            Ok(Known { columns: described.tables.into_iter().map(of).collect(), count: described.columns })
        };
        let known = self.0.known.get_or_try_init(known).await;
        known.map(|_| ()).map_err(|error: QueryError| DataFusionError::External(Box::new(error)))
    }

    /// The engine asks for names where it cannot wait. So the tables that need them have looked before.
    fn known(&self) -> Result<&Known> {
        match self.0.known.get() {
            Some(known) => Ok(known),
            None => internal_err!("information_schema has not looked at the tables"),
        }
    }
}

impl CatalogProvider for Described {
    fn schema_names(&self) -> Vec<String> {
        vec![self.0.schema.to_owned(), self.0.of_itself.schema.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == self.0.of_itself.schema {
            return self.0.of_itself.provider().ok();
        }
        (name == self.0.schema).then(|| Arc::new(self.clone()) as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for Described {
    fn table_names(&self) -> Vec<String> {
        match self.known() {
            Ok(known) => known.columns.keys().cloned().collect(),
            Err(error) => {
                tracing::error!(%error, "information_schema is empty");
                Vec::new()
            }
        }
    }

    /// A table without rows: what is asked of it are its columns.
    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let known = self.known()?;
        let Some(schema) = known.columns.get(name) else { return Ok(None) };
        let Some(schema) = schema else {
            let message = format!(
                "the tables have {} columns in all, and information_schema lists at most {DESCRIBED_COLUMNS_MAX}; \
                 DESCRIBE one table",
                known.count
            );
            return Err(DataFusionError::External(Box::new(QueryError::new(Kind::Limit, message))));
        };
        Ok(Some(Arc::new(EmptyTable::new(schema.clone()))))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.known()?.columns.contains_key(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.known().is_ok_and(|known| known.columns.contains_key(name))
    }
}
