//! The tail of the log as part of a plan. Its rows are in memory. EXPLAIN shows its table, count and offsets.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics, project_schema};
use datafusion::datasource::source::DataSource;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayFormatType, Partitioning};

use floe_log::Log;
use floe_log::extent::Extent;
use floe_log::walk;
use floe_log::{Offset, PartitionId};
use floe_meta::{DecodeError, Snapshot};

/// The offsets of a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Partition, first offset, offset after the last. Partitions with an empty tail are left out.
    pub(crate) partitions: Vec<(u32, Offset, Offset)>,
    /// Bytes of the tail's extents, as stored. The first extent may begin before the tail.
    pub(crate) bytes: u64,
}

impl Span {
    /// The span from `progress` to the high watermark at the cut.
    ///
    /// # Errors
    /// The metadata map is damaged.
    pub(crate) fn of(
        snapshot: &Snapshot,
        partitions: impl Iterator<Item = PartitionId>,
        progress: impl Fn(u32) -> Offset,
    ) -> std::result::Result<Span, DecodeError> {
        let mut span = Span::default();
        for partition in partitions {
            let Some(bounds) = Log::bounds(snapshot, partition) else { continue };
            let from = progress(partition.index).max(bounds.log_start);
            if from >= bounds.high_watermark {
                continue;
            }
            span.partitions.push((partition.index, from, bounds.high_watermark));
            for extent in walk::extents(snapshot, partition, from)? {
                let (_, extent): (_, Extent) = extent?;
                span.bytes += extent.bytes;
            }
        }
        Ok(span)
    }
}

/// The rows of a tail. They live as long as a plan holds them.
#[derive(Debug)]
pub(crate) struct TailRows {
    pub(crate) table: String,
    /// All batches have the table's schema.
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) span: Span,
    /// The share of the rows in the memory of all statements.
    pub(crate) _memory: MemoryReservation,
}

/// The rows of a tail as a source of the engine.
#[derive(Clone, Debug)]
pub(crate) struct TailSource {
    rows: Arc<TailRows>,
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    fetch: Option<usize>,
}

impl TailSource {
    pub(crate) fn new(
        rows: Arc<TailRows>,
        schema: &SchemaRef,
        projection: Option<&Vec<usize>>,
        fetch: Option<usize>,
    ) -> Result<TailSource> {
        let schema = project_schema(schema, projection)?;
        Ok(TailSource { rows, projection: projection.cloned(), schema, fetch })
    }

    fn count(&self) -> usize {
        self.rows.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn describe(&self) -> String {
        let mut text = format!("log_tail={}, records={}, offsets=[", self.rows.table, self.count());
        const SHOWN: usize = 8;
        for (index, (partition, from, to)) in self.rows.span.partitions.iter().take(SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{partition}:{}..{}", from.0, to.0);
        }
        let more = self.rows.span.partitions.len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = write!(text, ", {more} more");
        }
        text + "]"
    }
}

impl DataSource for TailSource {
    fn open(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        assert_eq!(partition, 0, "a tail is one partition");
        let stream =
            MemoryStream::try_new(self.rows.batches.clone(), self.schema.clone(), self.projection.clone())?;
        Ok(Box::pin(cooperative(stream.with_fetch(self.fetch))))
    }

    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => f.write_str(&self.describe()),
            DisplayFormatType::TreeRender => {
                writeln!(f, "log_tail={}", self.rows.table)?;
                writeln!(f, "records={}", self.count())
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
        let count = self.fetch.map_or(self.count(), |fetch| fetch.min(self.count()));
        let unknown = Statistics::new_unknown(&self.schema);
        Ok(Arc::new(Statistics { num_rows: Precision::Exact(count), ..unknown }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(TailSource { fetch: limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn try_swapping_with_projection(&self, _: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }
}
