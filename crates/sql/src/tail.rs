//! The tail of the log as part of a plan. The rows of a short tail are in memory. Those of a long one are decoded while
//! the plan runs, and again wherever the plan reads the table once more. EXPLAIN shows table, count and offsets.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err, project_schema};
use datafusion::datasource::source::DataSource;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, Partitioning};
use futures::StreamExt;

use floe_lake::{Batches, TailError, TailReader, TailSpan};
use floe_log::Offset;
use floe_query::{Kind, QueryError};
use floe_schema::TableSchema;

use crate::source::Table;
use crate::wanted::Wanted;

/// The offsets of a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Partition, first offset, offset after the last. Partitions with an empty tail are left out.
    pub(crate) partitions: Vec<(u32, Offset, Offset)>,
    /// Bytes of the tail's extents, as stored. The first extent may begin before the tail.
    pub(crate) bytes: u64,
}

impl Span {
    /// The span of a table's tail.
    pub(crate) fn of(table: &Table) -> Span {
        let spans = table.spans.iter().filter(|span| span.from < span.to);
        let partitions = spans.map(|span| (span.partition.index, span.from, span.to)).collect();
        Span { partitions, bytes: table.tail_bytes }
    }
}

/// A tail as planning knows it.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) table: String,
    pub(crate) span: Span,
    pub(crate) rows: Rows,
}

/// The rows of a tail.
#[derive(Debug)]
pub(crate) enum Rows {
    /// They live as long as a plan holds them. All batches have the table's schema.
    Held {
        batches: Vec<RecordBatch>,
        /// Their share in the memory of all statements.
        _memory: MemoryReservation,
    },
    /// They are in the log.
    Logged(Box<Logged>),
}

/// What it takes to read a tail.
pub(crate) struct Logged {
    pub(crate) batches: Arc<dyn Batches>,
    pub(crate) spans: Vec<TailSpan>,
    /// The schema that every record of the tail fits.
    pub(crate) schema: TableSchema,
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logged").field("spans", &self.spans.len()).finish_non_exhaustive()
    }
}

/// A tail as a source of the engine.
#[derive(Clone, Debug)]
pub(crate) struct TailSource {
    tail: Arc<Tail>,
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    wanted: Wanted,
    fetch: Option<usize>,
}

impl TailSource {
    pub(crate) fn new(
        tail: Arc<Tail>,
        schema: &SchemaRef,
        projection: Option<&Vec<usize>>,
        wanted: Wanted,
        fetch: Option<usize>,
    ) -> Result<TailSource> {
        let schema = project_schema(schema, projection)?;
        Ok(TailSource { tail, projection: projection.cloned(), schema, wanted, fetch })
    }

    /// The number of rows; for a tail in the log the number of its offsets, some of which may be no rows.
    fn count(&self) -> Precision<usize> {
        match &self.tail.rows {
            Rows::Held { batches, .. } => Precision::Exact(batches.iter().map(RecordBatch::num_rows).sum()),
            Rows::Logged(_) => {
                let offsets = self.tail.span.partitions.iter().map(|(_, from, to)| to.0.abs_diff(from.0));
                usize::try_from(offsets.sum::<u64>()).map_or(Precision::Absent, Precision::Inexact)
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("log_tail={}, ", self.tail.table);
        let _ = match self.count() {
            Precision::Exact(count) => write!(text, "records={count}, offsets=["),
            _ => write!(text, "streamed, bytes={}, offsets=[", self.tail.span.bytes),
        };
        const SHOWN: usize = 8;
        for (index, (partition, from, to)) in self.tail.span.partitions.iter().take(SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{partition}:{}..{}", from.0, to.0);
        }
        let more = self.tail.span.partitions.len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = write!(text, ", {more} more");
        }
        text + "]"
    }
}

impl DataSource for TailSource {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        assert_eq!(partition, 0, "a tail is one partition");
        match &self.tail.rows {
            Rows::Held { batches, .. } => {
                let rows = context.session_config().batch_size().max(1);
                let parts = batches.iter().flat_map(|batch| {
                    (0..batch.num_rows())
                        .step_by(rows)
                        .map(move |at| batch.slice(at, rows.min(batch.num_rows() - at)))
                });
                let stream =
                    MemoryStream::try_new(parts.collect(), self.schema.clone(), self.projection.clone())?;
                Ok(Box::pin(cooperative(stream.with_fetch(self.fetch))))
            }
            Rows::Logged(logged) => {
                let name = format!("log tail of {}", self.tail.table);
                let memory = MemoryConsumer::new(name).register(context.memory_pool());
                let mut reader =
                    TailReader::new(logged.batches.clone(), &logged.spans, logged.schema.clone());
                reader.within(&self.wanted.partitions, &self.wanted.offsets);
                let open = Open {
                    table: self.tail.table.clone(),
                    reader,
                    memory,
                    planned: logged.schema.arrow(),
                    projection: self.projection.clone(),
                    left: self.fetch.unwrap_or(usize::MAX),
                    batch_rows: context.session_config().batch_size().max(1),
                    rows: None,
                };
                let batches = futures::stream::try_unfold(open, Open::next).boxed();
                let stream = RecordBatchStreamAdapter::new(self.schema.clone(), batches);
                Ok(Box::pin(cooperative(stream)))
            }
        }
    }

    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => f.write_str(&self.describe()),
            DisplayFormatType::TreeRender => {
                writeln!(f, "log_tail={}", self.tail.table)?;
                match self.count() {
                    Precision::Exact(count) => writeln!(f, "records={count}"),
                    _ => writeln!(f, "streamed bytes={}", self.tail.span.bytes),
                }
            }
        }
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(1)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(self.schema.clone())
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        let most = self.fetch.unwrap_or(usize::MAX);
        let num_rows = match self.count() {
            Precision::Exact(count) => Precision::Exact(count.min(most)),
            Precision::Inexact(count) => Precision::Inexact(count.min(most)),
            Precision::Absent => Precision::Absent,
        };
        Ok(Arc::new(Statistics { num_rows, ..Statistics::new_unknown(&self.schema) }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(TailSource { fetch: limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn try_swapping_with_projection(&self, _: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }
}

/// A tail that is being decoded.
struct Open {
    table: String,
    reader: TailReader,
    memory: MemoryReservation,
    /// The schema of every batch of the reader.
    planned: SchemaRef,
    projection: Option<Vec<usize>>,
    /// Rows that are still wanted.
    left: usize,
    /// Rows of a batch of the engine.
    batch_rows: usize,
    /// Decoded rows of which the engine has taken the first ones.
    rows: Option<RecordBatch>,
}

impl Open {
    /// The next rows.
    async fn next(mut self) -> Result<Option<(RecordBatch, Open)>> {
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None if self.left == 0 => return Ok(None),
            None => match self.decode().await? {
                Some(rows) => rows,
                None => return Ok(None),
            },
        };
        let count = rows.num_rows().min(self.left).min(self.batch_rows);
        self.left -= count;
        let rest = rows.num_rows() - count;
        self.rows = (rest > 0 && self.left > 0).then(|| rows.slice(count, rest));
        Ok(Some((rows.slice(0, count), self)))
    }

    async fn decode(&mut self) -> Result<Option<RecordBatch>> {
        let memory = &self.memory;
        let mut hold = |bytes| memory.try_resize(bytes).map_err(|error| error.message().into_owned());
        let failed = |error: TailError| DataFusionError::External(Box::new(refused(&self.table, &error)));
        let Some(rows) = self.reader.next(&mut hold).await.map_err(failed)? else { return Ok(None) };
        // Planning has looked at every record, so none needs another column.
        if rows.schema() != self.planned {
            return internal_err!("a record of the tail of {} does not fit the planned schema", self.table);
        }
        metrics::counter!("floe_sql_tail_rows_total").increment(rows.num_rows() as u64);
        Ok(Some(match &self.projection {
            Some(columns) => rows.project(columns)?,
            None => rows,
        }))
    }
}

/// The error of a statement whose tail cannot be read.
pub(crate) fn refused(table: &str, error: &TailError) -> QueryError {
    let kind = match error {
        TailError::Memory(_) => Kind::Limit,
        TailError::Read(_) | TailError::Gone(_) | TailError::Away(_) => Kind::Unavailable,
        TailError::Adapt(_) => Kind::Internal,
    };
    QueryError::new(kind, format!("the tail of table '{table}' cannot be read: {error}"))
}
