//! Refuses large constants beside rows. The engine makes one value of `repeat('x', 1000000)`, and copies it for each
//! row of a batch where a row needs it: a megabyte becomes eight gigabytes.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Kind, SqlError};
use crate::limits::{CONSTANT_BYTES_SMALL, CONSTANTS_BYTES_MAX};

/// Checks an optimized plan, in which what is constant is one value.
///
/// # Errors
/// [`Kind::Limit`].
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut bytes = 0;
    let walked = rows(plan, &mut bytes);
    walked.map_err(|error| SqlError::new(Kind::Internal, error.to_string()))?;
    if bytes <= CONSTANTS_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the statement has {bytes} bytes of large constants that every row would get a copy of; at most \
         {CONSTANTS_BYTES_MAX} are allowed"
    );
    Err(SqlError::new(Kind::Limit, message))
}

/// Whether a plan may have many rows; adds up the large constants that stand beside them.
fn rows(plan: &LogicalPlan, bytes: &mut usize) -> Result<bool> {
    let one = matches!(plan, LogicalPlan::EmptyRelation(_) | LogicalPlan::Explain(_));
    let mut many = plan.inputs().is_empty() && !one || matches!(plan, LogicalPlan::Unnest(_));
    for input in plan.inputs() {
        many |= rows(input, bytes)?;
    }
    if many {
        plan.apply_expressions(|expression| add(expression, bytes))?;
    }
    // What stands beside a list that becomes rows is made before there are any.
    if let LogicalPlan::Unnest(unnest) = plan
        && let LogicalPlan::Projection(beside) = &*unnest.input
    {
        for (index, expression) in beside.expr.iter().enumerate() {
            if !unnest.list_type_columns.iter().any(|(list, _)| *list == index) {
                add(expression, bytes)?;
            }
        }
    }
    // Without groups it comes to one row, whatever it is of.
    let total = matches!(plan, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty());
    Ok(many && !total)
}

fn add(expression: &Expr, bytes: &mut usize) -> Result<TreeNodeRecursion> {
    expression.apply(|part| {
        if let Expr::Literal(value, _) = part
            && value.size() > CONSTANT_BYTES_SMALL
        {
            *bytes = bytes.saturating_add(value.size());
        }
        Ok(TreeNodeRecursion::Continue)
    })
}
