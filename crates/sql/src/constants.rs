//! Refuses large constants beside rows. The engine folds `repeat('x', 1000000)` into one value. Where rows need the
//! value, the engine copies it for each row of a batch, and a megabyte becomes eight gigabytes.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::limits::{BATCH_ROWS_MAX, BATCH_VALUES_BYTES, CONSTANT_BYTES_SMALL, CONSTANTS_BYTES_MAX};
use floe_query::{Kind, QueryError};

/// Bytes of a value without a length.
const VALUE_BYTES: usize = 16;

/// Checks an optimized plan, in which every constant expression is folded into one value. Returns the rows that a batch
/// of this plan may have.
///
/// # Errors
/// [`Kind::Limit`] for more than [`CONSTANTS_BYTES_MAX`] bytes of large constants.
pub(crate) fn check(plan: &LogicalPlan) -> Result<usize, QueryError> {
    let mut bytes = Bytes::default();
    let walked = rows(plan, &mut bytes);
    walked.map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
    if bytes.large <= CONSTANTS_BYTES_MAX {
        return Ok((BATCH_VALUES_BYTES / bytes.all.max(1)).clamp(1, BATCH_ROWS_MAX));
    }
    let message = format!(
        "the statement has {} bytes of large constants that every row would get a copy of; at most \
         {CONSTANTS_BYTES_MAX} are allowed",
        bytes.large
    );
    Err(QueryError::new(Kind::Limit, message))
}

/// Bytes that expressions make for each row.
#[derive(Default)]
struct Bytes {
    /// Large constants.
    large: usize,
    /// All constants, and a number for every other part of an expression.
    all: usize,
}

/// Whether a plan may have many rows. Adds what is beside these rows to `bytes`.
fn rows(plan: &LogicalPlan, bytes: &mut Bytes) -> Result<bool> {
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

fn add(expression: &Expr, bytes: &mut Bytes) -> Result<TreeNodeRecursion> {
    expression.apply(|part| {
        match part {
            Expr::Literal(value, _) => {
                let size = value.size();
                bytes.all = bytes.all.saturating_add(size);
                if size > CONSTANT_BYTES_SMALL {
                    bytes.large = bytes.large.saturating_add(size);
                }
            }
            // No row gets a copy of the list's values.
            Expr::InList(_) => return Ok(TreeNodeRecursion::Jump),
            _ => bytes.all = bytes.all.saturating_add(VALUE_BYTES),
        }
        Ok(TreeNodeRecursion::Continue)
    })
}
