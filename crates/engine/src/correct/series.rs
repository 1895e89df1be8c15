//! `generate_series` and `range` as tables. The engine's wrap around at the end of 64 bits, and count times in
//! nanoseconds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Days, Months, TimeDelta};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, stream};

/// `generate_series`, which includes its end, or `range`, which does not.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) inclusive: bool,
}

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let values = args.exprs().iter().map(|expr| match expr {
            Expr::Literal(value, _) => Ok(value.clone()),
            other => plan_err!("the arguments of '{}' are constants, not {other}", self.name),
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let (start, end, step) = match values.as_slice() {
            [end] => (&ScalarValue::Int64(Some(0)), end, None),
            [start, end] => (start, end, None),
            [start, end, step] => (start, end, Some(step)),
            _ => return plan_err!("'{}' takes 1 to 3 arguments", self.name),
        };
        let kind = match [start, end].map(ScalarValue::data_type) {
            kinds if kinds.iter().all(|kind| kind.is_integer() || kind.is_null()) => DataType::Int64,
            [DataType::Timestamp(_, zone), _] => DataType::Timestamp(TimeUnit::Microsecond, zone),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        let step = self.step(&kind, step)?;
        let number = |value: &ScalarValue| match value.cast_to(&kind)? {
            ScalarValue::Int64(number) | ScalarValue::TimestampMicrosecond(number, _) => Ok(number),
            other => plan_err!("'{}' goes from a number or a time to another, not to {other}", self.name),
        };
        let terms = match (number(start)?, number(end)?, step) {
            (Some(start), Some(end), Some(step)) => {
                let end = if self.inclusive { i128::from(end) } else { end_before(end, step.ascends()) };
                Terms { next: Some(start), end, step }
            }
            // NULL in, nothing out.
            _ => Terms { next: None, end: 0, step: Step::Number(1) },
        };
        let schema = Arc::new(Schema::new(vec![Field::new("value", kind, false)]));
        Ok(Arc::new(SeriesTable { schema, terms }))
    }
}

impl Series {
    fn step(&self, kind: &DataType, step: Option<&ScalarValue>) -> Result<Option<Step>> {
        let numbers = *kind == DataType::Int64;
        let step = match step {
            None if numbers => Step::Number(1),
            None => return plan_err!("'{}' over times takes an interval as its third argument", self.name),
            Some(value) if value.is_null() => return Ok(None),
            Some(value) if numbers && value.data_type().is_integer() => {
                match value.cast_to(&DataType::Int64)? {
                    ScalarValue::Int64(Some(step)) => Step::Number(step),
                    other => return plan_err!("the step of '{}' is a whole number, not {other}", self.name),
                }
            }
            Some(ScalarValue::IntervalMonthDayNano(Some(interval))) if !numbers => {
                self.interval(*interval)?
            }
            Some(other) => {
                let wanted = if numbers { "a whole number" } else { "an interval" };
                return plan_err!("the step of '{}' is {wanted}, not {other}", self.name);
            }
        };
        match step {
            Step::Number(0) | Step::Time { months: 0, days: 0, micros: 0 } => {
                plan_err!("the step of '{}' must not be zero", self.name)
            }
            step => Ok(Some(step)),
        }
    }

    fn interval(&self, interval: IntervalMonthDayNano) -> Result<Step> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let signs = [i64::from(months), i64::from(days), nanoseconds].map(i64::signum);
        if signs.contains(&1) && signs.contains(&-1) {
            return plan_err!("the parts of the step of '{}' must have one sign", self.name);
        }
        if nanoseconds % 1_000 != 0 {
            return plan_err!("the step of '{}' must be of whole microseconds", self.name);
        }
        Ok(Step::Time { months, days, micros: nanoseconds / 1_000 })
    }
}

/// The last number before an end that is not part of the series.
fn end_before(end: i64, ascends: bool) -> i128 {
    if ascends { i128::from(end) - 1 } else { i128::from(end) + 1 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Number(i64),
    Time { months: i32, days: i32, micros: i64 },
}

impl Step {
    fn ascends(self) -> bool {
        match self {
            Step::Number(step) => step > 0,
            Step::Time { months, days, micros } => months > 0 || days > 0 || micros > 0,
        }
    }

    /// The term after `term`; `None` past the end of its type.
    fn after(self, term: i64) -> Option<i64> {
        match self {
            Step::Number(step) => term.checked_add(step),
            Step::Time { months, days, micros } => {
                let time = DateTime::from_timestamp_micros(term)?;
                let (by_months, by_days) =
                    (Months::new(months.unsigned_abs()), Days::new(days.unsigned_abs().into()));
                let time = match self.ascends() {
                    true => time.checked_add_months(by_months)?.checked_add_days(by_days)?,
                    false => time.checked_sub_months(by_months)?.checked_sub_days(by_days)?,
                };
                Some(time.checked_add_signed(TimeDelta::microseconds(micros))?.timestamp_micros())
            }
        }
    }
}

/// The terms that are still to come.
#[derive(Clone, Debug)]
struct Terms {
    next: Option<i64>,
    end: i128,
    step: Step,
}

impl Iterator for Terms {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let term = self.next?;
        let past = match self.step.ascends() {
            true => i128::from(term) > self.end,
            false => i128::from(term) < self.end,
        };
        if past {
            self.next = None;
            return None;
        }
        self.next = self.step.after(term);
        Some(term)
    }
}

/// A series as a table of one column.
#[derive(Debug)]
struct SeriesTable {
    schema: SchemaRef,
    terms: Terms,
}

impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // No `async fn`, as in `UnifiedTable`.
    fn scan<'s, 'a, 'b, 'c, 'f>(
        &'s self,
        state: &'a dyn Session,
        projection: Option<&'b Vec<usize>>,
        _: &'c [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        's: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let rows = state.config_options().execution.batch_size.get();
        ready(self.scan(rows, projection, limit)).boxed()
    }
}

impl SeriesTable {
    /// Batches of `rows` rows.
    fn scan(
        &self,
        rows: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let part = SeriesPart { schema: self.schema.clone(), terms: self.terms.clone(), rows };
        let options = SortOptions { descending: !self.terms.step.ascends(), nulls_first: false };
        // The optimizer may read no column at all.
        let kept = projection.is_none_or(|columns| columns.contains(&0));
        let order = kept.then(|| PhysicalSortExpr::new(Arc::new(Column::new("value", 0)), options));
        let order = order.and_then(|order| LexOrdering::new([order]));
        let parts: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(part)];
        let exec = StreamingTableExec::try_new(self.schema.clone(), parts, projection, order, false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// The rows of a series.
#[derive(Debug)]
struct SeriesPart {
    schema: SchemaRef,
    terms: Terms,
    /// Rows of a batch.
    rows: usize,
}

impl PartitionStream for SeriesPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, rows, mut terms) = (self.schema.clone(), self.rows, self.terms.clone());
        let batches = std::iter::from_fn(move || {
            let values: Vec<i64> = terms.by_ref().take(rows).collect();
            (!values.is_empty()).then(|| batch(&schema, values))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter(batches)))
    }
}

fn batch(schema: &SchemaRef, values: Vec<i64>) -> Result<RecordBatch> {
    let column: ArrayRef = match schema.field(0).data_type() {
        DataType::Timestamp(_, zone) => {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone()))
        }
        _ => Arc::new(Int64Array::from(values)),
    };
    Ok(RecordBatch::try_new(schema.clone(), vec![column])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_end_before_their_type_does() {
        let check = |next: i64, end: i64, step: Step, expected: &[i64]| {
            let terms = Terms { next: Some(next), end: i128::from(end), step };
            assert_eq!(terms.collect::<Vec<_>>(), expected, "{next} {end} {step:?}");
        };
        check(1, 5, Step::Number(2), &[1, 3, 5]);
        check(5, 1, Step::Number(-3), &[5, 2]);
        check(1, 0, Step::Number(1), &[]);
        check(i64::MAX - 1, i64::MAX, Step::Number(2), &[i64::MAX - 1]);
        check(i64::MIN + 1, i64::MIN, Step::Number(-2), &[i64::MIN + 1]);
        let day = 86_400_000_000;
        check(0, 40 * day, Step::Time { months: 1, days: 0, micros: 0 }, &[0, 31 * day]);
        check(2 * day, 0, Step::Time { months: 0, days: -1, micros: 0 }, &[2 * day, day, 0]);
        assert_eq!(end_before(3, true), 2);
        assert_eq!(end_before(3, false), 4);
    }
}
