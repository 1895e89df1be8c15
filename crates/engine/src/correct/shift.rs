//! `lead` and `lag` with IGNORE NULLS (SQL:2016, 6.10): the n-th value after or before a row among those that are not
//! NULL. The engine's evaluator forgets values that its window has not reached. Without IGNORE NULLS the engine's own
//! functions answer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::take;
use arrow::datatypes::FieldRef;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

/// `lead` or `lag`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Shift {
    inner: Arc<WindowUDF>,
    ahead: bool,
}

impl Shift {
    pub(super) fn lead(inner: Arc<WindowUDF>) -> WindowUDF {
        WindowUDF::new_from_impl(Shift { inner, ahead: true })
    }

    pub(super) fn lag(inner: Arc<WindowUDF>) -> WindowUDF {
        WindowUDF::new_from_impl(Shift { inner, ahead: false })
    }
}

impl WindowUDFImpl for Shift {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let offset = constant(&args, 1)?;
        if offset.as_ref().is_some_and(ScalarValue::is_null) {
            // The engine takes one row for an unknown number of them. No partition has so many rows.
            return Ok(Box::new(Known { rows: u64::MAX, ahead: self.ahead, default: None }));
        }
        if !args.ignore_nulls() {
            return self.inner.partition_evaluator_factory(args);
        }
        let offset = match offset {
            Some(value) => match value.cast_to(&arrow::datatypes::DataType::Int64)? {
                ScalarValue::Int64(Some(offset)) => offset,
                other => {
                    return exec_err!("the offset of '{}' must be a whole number, not {other}", self.name());
                }
            },
            None => 1,
        };
        let default = constant(&args, 2)?.filter(|default| !default.is_null());
        let ahead = self.ahead == (offset >= 0);
        Ok(Box::new(Known { rows: offset.unsigned_abs(), ahead, default }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        // The reverse of the engine's function is the engine's other function.
        ReversedUDWF::NotSupported
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // With IGNORE NULLS a value may come from any later row.
        if self.ahead { LimitEffect::Unknown } else { LimitEffect::None }
    }
}

/// A constant argument.
fn constant(args: &PartitionEvaluatorArgs<'_>, index: usize) -> Result<Option<ScalarValue>> {
    let Some(expr) = args.input_exprs().get(index) else { return Ok(None) };
    match expr.downcast_ref::<Literal>() {
        Some(literal) => Ok(Some(literal.value().clone())),
        None => exec_err!("the offset and the default must be constants"),
    }
}

/// Finds values that are known, over a whole partition.
#[derive(Debug)]
struct Known {
    rows: u64,
    ahead: bool,
    default: Option<ScalarValue>,
}

impl Known {
    /// The row that answers for `row`.
    fn source(&self, row: usize, known: &[usize]) -> Option<u64> {
        let rows = usize::try_from(self.rows).ok()?;
        let position = match (rows, self.ahead) {
            (0, _) => return Some(row as u64),
            (_, true) => (known.partition_point(|at| *at <= row)).checked_add(rows - 1),
            (_, false) => (known.partition_point(|at| *at < row)).checked_sub(rows),
        };
        known.get(position?).map(|at| *at as u64)
    }
}

impl PartitionEvaluator for Known {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let known: Vec<usize> = (0..rows).filter(|row| values[0].is_valid(*row)).collect();
        let sources: UInt64Array = (0..rows).map(|row| self.source(row, &known)).collect();
        let found = take(&values[0], &sources, None)?;
        let Some(default) = &self.default else { return Ok(found) };
        let default = default.cast_to(found.data_type())?.to_scalar()?;
        let is_found: BooleanArray = (0..rows).map(|row| Some(sources.is_valid(row))).collect();
        Ok(zip(&is_found, &found, &default)?)
    }
}
