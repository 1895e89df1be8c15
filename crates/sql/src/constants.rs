//! Refuses large constants beside rows. The engine folds `repeat('x', 1000000)` into one value. Where rows need the
//! value, the engine copies it for each row of a batch, and a megabyte becomes eight gigabytes.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::limits::{CONSTANT_BYTES_SMALL, CONSTANTS_BYTES_MAX};
use floe_query::{Kind, QueryError};

/// Checks an optimized plan, in which every constant expression is folded into one value.
///
/// # Errors
/// [`Kind::Limit`] for more than [`CONSTANTS_BYTES_MAX`] bytes of large constants.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut bytes = 0;
    let walked = rows(plan, &mut bytes);
    walked.map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
    if bytes <= CONSTANTS_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the statement has {bytes} bytes of large constants that every row would get a copy of; at most \
         {CONSTANTS_BYTES_MAX} are allowed"
    );
    Err(QueryError::new(Kind::Limit, message))
}

/// Whether a plan may have many rows. Adds the large constants beside these rows to `bytes`.
fn rows(plan: &LogicalPlan, bytes: &mut usize) -> Result<bool> {
    let one = matches!(plan, LogicalPlan::EmptyRelation(_) | LogicalPlan::Explain(_));
    let mut many = plan.inputs().is_empty() && !one || matches!(plan, LogicalPlan::Unnest(_));
    for input in plan.inputs() {
        many |= rows(input, bytes)?;
    }
    if many {
        plan.apply_expressions(|expression| add(expression, bytes))?;
    }
    // The projection below an unnest may have one row. The unnest copies the columns beside the list for each element.
    if let LogicalPlan::Unnest(unnest) = plan
        && let LogicalPlan::Projection(beside) = &*unnest.input
    {
        for (index, expression) in beside.expr.iter().enumerate() {
            if !unnest.list_type_columns.iter().any(|(list, _)| *list == index) {
                add(expression, bytes)?;
            }
        }
    }
    // An aggregate without groups gives one row, however many rows it reads.
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
