//! Comparisons of intervals, and sums of dates and intervals.
//!
//! The engine compares the months of two intervals, then their days, then their times, so that a day is longer than 48
//! hours. A difference of two times has a time alone, and so `now() - t < interval '1 day'` is always true. Here
//! intervals are compared by their length, in which a month has 30 days and a day 24 hours, as in PostgreSQL and
//! DuckDB.
//!
//! The engine takes the sum of a date and an interval for a date, so that hours vanish. Here it is a timestamp, as in
//! PostgreSQL and DuckDB.

use std::sync::Arc;

use arrow::array::Decimal128Array;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::comparisons::{compares, is_comparison};
use super::fields;
use super::times::micros;
use super::walk;

/// Compares intervals by their length, and adds them to times.
#[derive(Debug)]
pub(super) struct Lengths;

impl AnalyzerRule for Lengths {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &may_have_spans, &interval)
    }

    fn name(&self) -> &'static str {
        "lengths"
    }
}

fn may_have_spans(expr: &Expr) -> bool {
    let moves = |op| matches!(op, Operator::Plus | Operator::Minus);
    is_comparison(expr) || matches!(expr, Expr::BinaryExpr(BinaryExpr { op, .. }) if moves(*op))
}

fn interval(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let kind = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            if !are_lengths(&[kind(&left), kind(&right)]) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right))));
            }
            let (left, right) = (length(*left, schema), length(*right, schema));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(left.into(), op, right.into()))))
        }
        Expr::Between(Between { expr, negated, low, high })
            if are_lengths(&[kind(&expr), kind(&low), kind(&high)]) =>
        {
            let [expr, low, high] = [*expr, *low, *high].map(|value| Box::new(length(value, schema)));
            Ok(Transformed::yes(Expr::Between(Between::new(expr, negated, low, high))))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let kinds: Vec<DataType> = std::iter::once(expr.as_ref()).chain(&list).map(kind).collect();
            if !are_lengths(&kinds) {
                return Ok(Transformed::no(Expr::InList(InList::new(expr, list, negated))));
            }
            let list = list.into_iter().map(|item| length(item, schema)).collect();
            Ok(Transformed::yes(Expr::InList(InList::new(Box::new(length(*expr, schema)), list, negated))))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (to_left, to_right) = (kind(&left), kind(&right));
            let sum = match (is_date(&to_left), is_date(&to_right)) {
                (true, false) if is_span(&to_right) => (cast(*left, micros(None)), *right),
                (false, true) if is_span(&to_left) && op == Operator::Plus => {
                    (*left, cast(*right, micros(None)))
                }
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right)))),
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(sum.0.into(), op, sum.1.into()))))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_date(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Date64)
}

fn is_span(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_))
}

/// Whether values of these types are compared as intervals. Differences of times alone compare as they are.
fn are_lengths(kinds: &[DataType]) -> bool {
    let texts = |kind: &DataType| kind.is_string() || kind.is_null();
    let spans = kinds.iter().filter(|kind| is_span(kind)).count();
    spans > 0
        && kinds.iter().all(|kind| is_span(kind) || texts(kind))
        && kinds.iter().any(|kind| !matches!(kind, DataType::Duration(_)))
}

/// The length of an interval as a number. A text is read as an interval.
fn length(value: Expr, schema: &DFSchema) -> Expr {
    let value = match value.get_type(schema) {
        Ok(kind) if is_span(&kind) => value,
        _ => cast(value, DataType::Interval(IntervalUnit::MonthDayNano)),
    };
    ScalarUDF::new_from_impl(Length(Signature::any(1, Volatility::Immutable))).call(vec![value])
}

/// The function that gives the length of an interval in nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length(Signature);

impl ScalarUDFImpl for Length {
    fn name(&self) -> &'static str {
        "interval_length"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = matches!(call.args[0], ColumnarValue::Scalar(_));
        let values = call.args[0].to_array(if constant { 1 } else { call.number_rows })?;
        let lengths = fields::lengths(&values)?.into_iter().collect::<Decimal128Array>();
        let lengths = lengths.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(lengths))),
        }
    }
}
