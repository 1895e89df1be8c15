//! Refuses arguments that make aggregates allocate too much before they have seen a row.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::limits::CENTROIDS_MAX;
use floe_query::{Kind, QueryError};

/// The aggregates with a number of centroids, and the place of that argument.
const CENTROIDS: &[(&str, usize)] =
    &[("approx_percentile_cont", 2), ("approx_percentile_cont_with_weight", 3)];

/// Checks an optimized plan, in which every constant expression is folded into one value.
///
/// # Errors
/// [`Kind::Limit`] for more than [`CENTROIDS_MAX`] centroids.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                refused = refused.take().or_else(|| centroids(part).and_then(refusal));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
    refused.map_or(Ok(()), Err)
}

/// The number of centroids that a call asks for.
#[derive(Clone, Copy)]
enum Centroids {
    Count(u64),
    /// It is not known before the statement runs.
    Unknown,
}

fn refusal(centroids: Centroids) -> Option<QueryError> {
    match centroids {
        Centroids::Count(count) if count <= CENTROIDS_MAX => None,
        Centroids::Count(count) => {
            let message = format!(
                "{count} centroids would take too much memory; at most {CENTROIDS_MAX} are allowed, and the default \
                 is 100"
            );
            Some(QueryError::new(Kind::Limit, message))
        }
        Centroids::Unknown => {
            Some(QueryError::new(Kind::Invalid, "the number of centroids must be a constant whole number"))
        }
    }
}

fn centroids(expr: &Expr) -> Option<Centroids> {
    let (name, args) = match expr {
        Expr::AggregateFunction(AggregateFunction { func, params }) => (func.name(), &params.args),
        Expr::WindowFunction(call) => match call.as_ref() {
            WindowFunction { fun: WindowFunctionDefinition::AggregateUDF(func), params } => {
                (func.name(), &params.args)
            }
            _ => return None,
        },
        _ => return None,
    };
    let (_, index) = CENTROIDS.iter().find(|(known, _)| *known == name)?;
    let Expr::Literal(value, _) = args.get(*index)? else { return Some(Centroids::Unknown) };
    match value.cast_to(&DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(count))) => Some(Centroids::Count(count)),
        _ => Some(Centroids::Unknown),
    }
}
