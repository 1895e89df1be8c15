//! Comparisons of two types, before the engine chooses the type in which it compares.
//!
//! It compares a whole number with a floating-point constant as floating-point numbers, which are the same for
//! neighbours beyond 2^53. It compares a timestamp with a text, or with a date, in nanoseconds, which end in 2262.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::walk;

/// Chooses the type of comparisons in which the engine's choice loses something.
#[derive(Debug)]
pub(super) struct ExactComparisons;

impl AnalyzerRule for ExactComparisons {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &is_comparison, &comparison)
    }

    fn name(&self) -> &'static str {
        "exact_comparisons"
    }
}

/// Whether an expression compares values.
pub(super) fn is_comparison(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => compares(*op),
        other => matches!(other, Expr::Between(_) | Expr::InList(_)),
    }
}

fn comparison(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let kind = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (to_left, to_right) = (kind(&left), kind(&right));
            let left = beside(*left, &to_left, &to_right);
            let right = beside(*right, &to_right, &to_left);
            let any = left.transformed || right.transformed;
            let expr = Expr::BinaryExpr(BinaryExpr::new(left.data.into(), op, right.data.into()));
            Ok(Transformed::new_transformed(expr, any))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let value = kind(&expr);
            let bound = |bound: Expr| {
                let own = kind(&bound);
                beside(bound, &own, &value)
            };
            let (low, high) = (bound(*low), bound(*high));
            let any = low.transformed || high.transformed;
            let expr = Expr::Between(Between::new(expr, negated, low.data.into(), high.data.into()));
            Ok(Transformed::new_transformed(expr, any))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let value = kind(&expr);
            let list: Vec<_> = list
                .into_iter()
                .map(|item| {
                    let own = kind(&item);
                    beside(item, &own, &value)
                })
                .collect();
            let any = list.iter().any(|item| item.transformed);
            let list = list.into_iter().map(|item| item.data).collect();
            Ok(Transformed::new_transformed(Expr::InList(InList::new(expr, list, negated)), any))
        }
        other => Ok(Transformed::no(other)),
    }
}

pub(super) fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// A value of the type `own` that is compared with a value of the type `other`.
fn beside(value: Expr, own: &DataType, other: &DataType) -> Transformed<Expr> {
    match (own, other) {
        (DataType::Float64, other) if other.is_integer() => match whole(&value) {
            Some(whole) => Transformed::yes(whole),
            None => Transformed::no(value),
        },
        (
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 | DataType::Date64,
            DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, zone),
        ) => Transformed::yes(cast(value, DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))),
        _ => Transformed::no(value),
    }
}

/// A floating-point constant without a fraction as a whole number.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(value: &Expr) -> Option<Expr> {
    /// Every number of 64 bits is smaller, and every whole number below it is one of 38 digits.
    const DIGITS_END: f64 = 1e37;
    let Expr::Literal(ScalarValue::Float64(Some(number)), _) = value else { return None };
    if number.fract() != 0.0 || number.abs() >= DIGITS_END {
        return None;
    }
    let whole = *number as i128;
    match i64::try_from(whole) {
        Ok(whole) => Some(lit(whole)),
        Err(_) => Some(lit(ScalarValue::Decimal128(Some(whole), 38, 0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_constants() {
        let check =
            |number: f64, expected: Option<Expr>| assert_eq!(whole(&lit(number)), expected, "{number}");
        check(9_007_199_254_740_992.0, Some(lit(9_007_199_254_740_992_i64)));
        check(-5.0, Some(lit(-5_i64)));
        check(-0.0, Some(lit(0_i64)));
        check(9_223_372_036_854_775_808.0, Some(lit(ScalarValue::Decimal128(Some(1 << 63), 38, 0))));
        for number in [1.5, 1e40, f64::NAN, f64::INFINITY] {
            check(number, None);
        }
    }
}
