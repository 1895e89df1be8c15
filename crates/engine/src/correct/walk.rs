//! Walks every expression of a plan, those of its subqueries included.

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::trees::{Plans, Tree};

/// Rewrites every part of every expression, innermost first. The columns of each node keep their names.
pub(crate) fn expressions(
    plan: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    plan.rewrite_plans_up(&mut |node| {
        let schema = inputs(&node)?;
        let names = NamePreserver::new(&node);
        node.rewrite_expressions(&mut |expr| {
            let name = names.save(&expr);
            let rewritten = expr.rewrite_up(&mut |part| rewrite(part, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

/// The columns that the expressions of a node can name.
pub(super) fn inputs(node: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = node {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.merge(&source);
    }
    Ok(schema)
}
