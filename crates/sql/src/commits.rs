//! `floe.system.commits`: the rows of all commits up to the cut. Old ones are in objects of the history, new ones come
//! from the journal. Objects, and groups of their rows, are passed over where the filters name other commits or other
//! times.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics, project_schema};
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, Partitioning};
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, StreamExt};

use floe_history::map::PlacedPart;
use floe_history::{Wanted, scan, schema};
use floe_query::{Kind, QueryError};

use crate::files::Files;
use crate::limits::HISTORY_BATCH_BYTES;
use crate::source::Source;

/// The schema of tables that Floe keeps of itself, and the table. They have the same names in the Iceberg catalog.
pub(crate) use floe_history::table::{NAME as COMMITS, NAMESPACE as SYSTEM};

/// The schema `system` of a statement.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) files: Arc<Files>,
}

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        vec![COMMITS.to_owned()]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name != COMMITS {
            return Ok(None);
        }
        let parts = self.source.history().await.map_err(external)?;
        Ok(Some(Arc::new(Commits { parts, source: self.source.clone(), files: self.files.clone() })))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok((name == COMMITS).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == COMMITS
    }
}

#[derive(Debug)]
struct Commits {
    parts: Vec<PlacedPart>,
    source: Arc<dyn Source>,
    files: Arc<Files>,
}

impl Commits {
    fn plan(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        fetch: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = wanted(filters);
        let meets = |placed: &&PlacedPart| {
            let micros = |ms: i64| ms.saturating_mul(1_000);
            let lsns = (placed.first.0.cast_signed(), placed.part.last.0.cast_signed());
            wanted.meets(lsns, (micros(placed.part.from.0), micros(placed.part.to.0)))
        };
        let parts: Vec<PlacedPart> = self.parts.iter().filter(meets).copied().collect();
        let end = self.parts.last().map_or(0, |last| last.part.last.0);
        let recent = end < self.source.lsn().0 && *wanted.lsns.end() > end.cast_signed();
        Ok(DataSourceExec::from_data_source(CommitsSource {
            parts,
            of: self.parts.len(),
            recent,
            source: self.source.clone(),
            files: self.files.clone(),
            wanted,
            projection: projection.cloned(),
            schema: project_schema(&schema(), projection)?,
            fetch,
        }))
    }
}

impl TableProvider for Commits {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The engine still applies them.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // No `async fn`, as in `UnifiedTable`.
    fn scan<'s, 'a, 'b, 'c, 'f>(
        &'s self,
        _: &'a dyn Session,
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
        ready(self.plan(projection, filters, limit)).boxed()
    }
}

/// What the filters let through. The engine applies them again, so it may be too much, but not too little.
fn wanted(filters: &[Expr]) -> Wanted {
    filters.iter().fold(Wanted::ALL, |wanted, filter| both(&wanted, &passed(filter)))
}

/// What one condition lets through.
fn passed(filter: &Expr) -> Wanted {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            both(&passed(left), &passed(right))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            either(&passed(left), &passed(right))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) => compared(column.name(), *op, value),
            (Expr::Literal(value, _), Expr::Column(column)) => {
                op.swap().map_or(Wanted::ALL, |op| compared(column.name(), op, value))
            }
            _ => Wanted::ALL,
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return Wanted::ALL };
            let one = |expr: &Expr| match expr {
                Expr::Literal(value, _) => compared(column.name(), Operator::Eq, value),
                _ => Wanted::ALL,
            };
            list.iter().map(one).reduce(|a, b| either(&a, &b)).unwrap_or(Wanted::ALL)
        }
        _ => Wanted::ALL,
    }
}

fn both(a: &Wanted, b: &Wanted) -> Wanted {
    let meet = |a: &RangeInclusive<i64>, b: &RangeInclusive<i64>| {
        (*a.start()).max(*b.start())..=(*a.end()).min(*b.end())
    };
    Wanted { lsns: meet(&a.lsns, &b.lsns), times: meet(&a.times, &b.times) }
}

/// Everything between what one of them lets through.
fn either(a: &Wanted, b: &Wanted) -> Wanted {
    let hull = |a: &RangeInclusive<i64>, b: &RangeInclusive<i64>| {
        (*a.start()).min(*b.start())..=(*a.end()).max(*b.end())
    };
    // One that lets nothing through would make the other wider than it is.
    let is_empty = |of: &Wanted| of.lsns.is_empty() || of.times.is_empty();
    match (is_empty(a), is_empty(b)) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => Wanted { lsns: hull(&a.lsns, &b.lsns), times: hull(&a.times, &b.times) },
    }
}

/// What a comparison of a column with a constant lets through.
fn compared(column: &str, op: Operator, value: &ScalarValue) -> Wanted {
    let is_whole = value.data_type().is_integer();
    let Some(value) = number(value) else { return Wanted::ALL };
    // A time may have been rounded to microseconds, and its neighbours cost little.
    let (above, below) = match is_whole {
        true => (value.saturating_add(1), value.saturating_sub(1)),
        false => (value, value.saturating_add(1)),
    };
    let bounds = match op {
        Operator::Eq => value..=value,
        Operator::Gt => above..=i64::MAX,
        Operator::GtEq => value..=i64::MAX,
        Operator::Lt => i64::MIN..=below,
        Operator::LtEq => i64::MIN..=if is_whole { value } else { below },
        _ => return Wanted::ALL,
    };
    match column {
        "lsn" => Wanted { lsns: bounds, ..Wanted::ALL },
        "time" => Wanted { times: bounds, ..Wanted::ALL },
        _ => Wanted::ALL,
    }
}

/// A whole number, or a time in microseconds.
fn number(value: &ScalarValue) -> Option<i64> {
    let value = match value.data_type() {
        of if of.is_integer() => value.clone(),
        DataType::Timestamp(_, zone) => {
            value.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, zone)).ok()?
        }
        _ => return None,
    };
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(found) => found,
        _ => None,
    }
}

/// The rows as a source of the engine.
#[derive(Clone, Debug)]
struct CommitsSource {
    /// The parts that may have what is wanted.
    parts: Vec<PlacedPart>,
    /// How many parts there are.
    of: usize,
    /// Whether commits after the last part may be wanted.
    recent: bool,
    source: Arc<dyn Source>,
    files: Arc<Files>,
    wanted: Wanted,
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    fetch: Option<usize>,
}

impl DataSource for CommitsSource {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        assert_eq!(partition, 0, "commits are one partition");
        let memory = MemoryConsumer::new("history of commits").register(context.memory_pool());
        let open = Open {
            parts: self.parts.iter().copied().collect(),
            recent: self.recent,
            of: self.clone(),
            memory,
            left: self.fetch.unwrap_or(usize::MAX),
            batch_rows: context.session_config().batch_size().max(1),
            batches: None,
        };
        let batches = futures::stream::try_unfold(open, Open::next).boxed();
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema.clone(), batches))))
    }

    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recent = if self.recent { " and the journal" } else { "" };
        write!(f, "commits={} of {} objects{recent}", self.parts.len(), self.of)?;
        for (column, wanted, all) in
            [("lsn", &self.wanted.lsns, Wanted::ALL.lsns), ("time", &self.wanted.times, Wanted::ALL.times)]
        {
            if *wanted.start() > *all.start() {
                write!(f, ", {column} >= {}", wanted.start())?;
            }
            if *wanted.end() < *all.end() {
                write!(f, ", {column} <= {}", wanted.end())?;
            }
        }
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))?;
        if matches!(format, DisplayFormatType::TreeRender) { writeln!(f) } else { Ok(()) }
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
        let rows: u64 = self.parts.iter().map(|placed| placed.part.rows).sum();
        let rows = usize::try_from(rows).unwrap_or(usize::MAX).min(self.fetch.unwrap_or(usize::MAX));
        let num_rows = Precision::Inexact(rows);
        Ok(Arc::new(Statistics { num_rows, ..Statistics::new_unknown(&self.schema) }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(CommitsSource { fetch: limit, ..self.clone() }))
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

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, String>> + Send>;

/// Rows that are being read.
struct Open {
    of: CommitsSource,
    /// The parts that are not read yet.
    parts: VecDeque<PlacedPart>,
    /// Whether the commits after them are not read yet.
    recent: bool,
    memory: MemoryReservation,
    /// Rows that are still wanted.
    left: usize,
    /// Rows of a batch of the engine.
    batch_rows: usize,
    /// The batches of an object, and its name for errors.
    batches: Option<(Batches, String)>,
}

impl Open {
    /// The next rows.
    async fn next(mut self) -> Result<Option<(RecordBatch, Open)>> {
        while self.left > 0 {
            if self.batches.is_none() && !self.read().await? {
                return Ok(None);
            }
            let Some((batches, name)) = &mut self.batches else { continue };
            match batches.next() {
                None => self.batches = None,
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => {
                    let batch = batch.slice(0, batch.num_rows().min(self.left));
                    self.left -= batch.num_rows();
                    return Ok(Some((batch, self)));
                }
                Some(Err(reason)) => return Err(external(damaged(name, &reason))),
            }
        }
        Ok(None)
    }

    /// Reads the next object. Returns false after the last.
    async fn read(&mut self) -> Result<bool> {
        let (object, name) = if let Some(placed) = self.parts.pop_front() {
            self.memory.try_resize(hold(placed.part.bytes))?;
            (object(&self.of.files, &placed).await.map_err(external)?, placed.key())
        } else if std::mem::take(&mut self.recent) {
            let object = self.of.source.recent().await.map_err(external)?;
            self.memory.try_resize(hold(object.len() as u64))?;
            (object, "the journal's rows".to_owned())
        } else {
            return Ok(false);
        };
        let columns = self.of.projection.as_deref();
        let batches = scan(object, &self.of.wanted, columns, self.batch_rows);
        let batches = batches.map_err(|reason| external(damaged(&name, &reason)))?;
        self.batches = Some((Box::new(batches), name));
        Ok(true)
    }
}

/// The object of a part, compared with its checksum.
async fn object(files: &Files, placed: &PlacedPart) -> std::result::Result<Bytes, QueryError> {
    let (key, part) = (placed.key(), &placed.part);
    let unread = |reason: String| QueryError::new(Kind::Unavailable, reason);
    let object = files.whole(&key, part.bytes).await.map_err(unread)?;
    match object.len() as u64 == part.bytes && crc32c::crc32c(&object) == part.crc {
        true => Ok(object),
        false => Err(damaged(&key, "its checksum does not match its bytes")),
    }
}

/// Memory for an object and some of its rows.
fn hold(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(HISTORY_BATCH_BYTES)
}

fn damaged(name: &str, reason: &str) -> QueryError {
    let message =
        format!("system.commits cannot be read: {name} is damaged: {reason}; restore it from a copy");
    QueryError::new(Kind::Unavailable, message)
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn filters_bound_commits_and_times() {
        let check = |filter: Expr, expected: Wanted| {
            assert_eq!(wanted(std::slice::from_ref(&filter)), expected, "{filter:?}");
        };
        let time = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
        check(col("lsn").eq(lit(7_i64)), Wanted { lsns: 7..=7, ..Wanted::ALL });
        check(lit(7_i64).lt(col("lsn")), Wanted { lsns: 8..=i64::MAX, ..Wanted::ALL });
        let both = col("lsn").gt_eq(lit(3_i32)).and(col("time").lt(time(9)));
        check(both, Wanted { lsns: 3..=i64::MAX, times: i64::MIN..=10 });
        let nanos = lit(ScalarValue::TimestampNanosecond(Some(9_999), Some("UTC".into())));
        check(col("time").gt(nanos), Wanted { times: 9..=i64::MAX, ..Wanted::ALL });
        check(
            lit(7_i64).lt(col("lsn")).or(col("lsn").eq(lit(3_i64))),
            Wanted { lsns: 3..=i64::MAX, ..Wanted::ALL },
        );
        let of_two = col("lsn").in_list(vec![lit(9_i64), lit(4_i64)], false);
        check(of_two.and(col("change").eq(lit("append"))), Wanted { lsns: 4..=9, ..Wanted::ALL });
        check(col("lsn").in_list(vec![lit(9_i64)], true), Wanted::ALL);
        check(col("lsn").eq(lit(1_i64)).or(col("change").eq(lit("append"))), Wanted::ALL);
        check(col("lsn").gt(lit(1_i64)).or(col("lsn").eq(lit(0_i64))), Wanted::ALL);
        check(col("partition").eq(lit(1_i64)), Wanted::ALL);
    }
}
