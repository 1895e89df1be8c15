//! A unified table: the Parquet files of the lake up to its progress, and the tail of the log from there.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use floe_lake::DataFile;
use floe_schema::TableSchema;

use crate::evolve::EvolutionFactory;
use crate::files::{FileKey, FileReaders, Files, LAKE_URL};
use crate::tail::{Tail, TailSource};
use crate::wanted::Wanted;

/// A table at the cut of one statement.
#[derive(Debug)]
pub(crate) struct UnifiedTable {
    /// The columns of the lake's table, widened where the tail needs it.
    pub(crate) schema: Arc<TableSchema>,
    /// The same columns for the engine.
    pub(crate) arrow: SchemaRef,
    /// The lake's files, up to its progress.
    pub(crate) files: Arc<Vec<Arc<DataFile>>>,
    pub(crate) readers: Arc<Files>,
    /// The rows that are not in the files yet.
    pub(crate) tail: Arc<Tail>,
}

impl UnifiedTable {
    fn scan(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let tail = TailSource::new(self.tail.clone(), &self.arrow, projection, Wanted::by(filters), limit)?;
        let tail: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(tail);
        if self.files.is_empty() {
            return Ok(tail);
        }
        UnionExec::try_new(vec![self.lake(partitions, projection, limit)?, tail])
    }

    /// The scan of the lake's files, spread over the engine's partitions.
    fn lake(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let readers = FileReaders { files: self.readers.clone(), table: self.tail.table.as_str().into() };
        let source =
            ParquetSource::new(self.arrow.clone()).with_parquet_file_reader_factory(Arc::new(readers));
        let records: u64 = self.files.iter().map(|file| file.records).sum();
        let statistics = Statistics {
            num_rows: usize::try_from(records).map_or(Precision::Absent, Precision::Exact),
            ..Statistics::new_unknown(&self.arrow)
        };
        let url = ObjectStoreUrl::parse(LAKE_URL)?;
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(self.groups(partitions))
            .with_projection_indices(projection.cloned())?
            .with_statistics(statistics)
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(EvolutionFactory(self.schema.clone()))))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Splits the files into at most `partitions` groups of about the same size. Each file, the largest first, goes to
    /// the smallest group.
    fn groups(&self, partitions: usize) -> Vec<FileGroup> {
        let count = partitions.min(self.files.len()).max(1);
        let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
        let mut files: Vec<&DataFile> = self.files.iter().map(Arc::as_ref).collect();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        for file in files {
            let least = groups.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("there is a group");
            least.0 += file.bytes;
            let planned = PartitionedFile::new(file.key.as_str(), file.bytes);
            least.1.push(planned.with_extension(FileKey(file.key.clone())));
        }
        groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
    }
}

impl TableProvider for UnifiedTable {
    fn schema(&self) -> SchemaRef {
        self.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The optimizer hands the filter to the scan, which skips row groups and pages with it. The engine still has to
        // apply the filter to the remaining rows.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // Of an `async fn` the compiler would prove that every part of an [`Expr`] is `Send`, for seconds, and again for
    // each such function of the crate.
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
        let partitions = state.config().target_partitions();
        ready(self.scan(partitions, projection, filters, limit)).boxed()
    }
}
