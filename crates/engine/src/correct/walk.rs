//! Walks every expression of a plan, those of its subqueries included. Most rules find nothing in most statements. To
//! rebuild a plan costs much more than to look at it, so each rule looks first, and only what it changes is built anew.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::trees::{Plans, Tree};

/// Rewrites every part of those expressions that hold a wanted part, innermost first. The columns of each node keep
/// their names. `rewrite` leaves a part that is not wanted as it is, unless it holds one that is.
pub(crate) fn expressions(
    plan: LogicalPlan,
    wanted: &dyn Fn(&Expr) -> bool,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    if !hold(&plan, wanted)? {
        return Ok(plan);
    }
    let mut any = false;
    let rewritten = plan.rewrite_plans_up(&mut |node| {
        let node = match node_holds(&node, wanted)? {
            true => in_node(node, wanted, rewrite)?,
            false => Transformed::no(node),
        };
        any |= node.transformed;
        // What is above a change has to learn of it. Nothing below the first change is above one.
        if any { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    });
    rewritten.data()
}

fn in_node(
    node: LogicalPlan,
    wanted: &dyn Fn(&Expr) -> bool,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = inputs(&node)?;
    let names = NamePreserver::new(&node);
    node.rewrite_expressions(&mut |expr| {
        if !expr.holds(&mut |part| wanted(part))? {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let rewritten = expr.rewrite_up(&mut |part| rewrite(part, &schema))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })
}

/// Whether a plan holds a wanted part of an expression.
pub(super) fn hold(plan: &LogicalPlan, wanted: &dyn Fn(&Expr) -> bool) -> Result<bool> {
    nodes(plan, &|node| node_holds(node, wanted))
}

/// Whether a plan holds a wanted node.
pub(super) fn nodes(plan: &LogicalPlan, wanted: &dyn Fn(&LogicalPlan) -> Result<bool>) -> Result<bool> {
    let mut found = false;
    plan.look_at_plans(&mut |node| {
        found = wanted(node)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether the expressions of one node hold a wanted part.
pub(super) fn node_holds(node: &LogicalPlan, wanted: &dyn Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    node.look_at_expressions(&mut |expr| {
        found = expr.holds(&mut |part| wanted(part))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The plan of a rule that did not tell the nodes above a change of it.
pub(super) fn settled(done: Transformed<LogicalPlan>) -> Result<LogicalPlan> {
    if !done.transformed {
        return Ok(done.data);
    }
    let mut anew = |node: LogicalPlan| Ok(Transformed::no(node.recompute_schema()?));
    done.data.rewrite_plans_up(&mut anew).data()
}

/// The columns that the expressions of a node can name.
pub(super) fn inputs(node: &LogicalPlan) -> Result<DFSchemaRef> {
    let inputs = node.inputs();
    if let [input] = inputs.as_slice() {
        return Ok(input.schema().clone());
    }
    let mut schema = merge_schema(&inputs);
    if let LogicalPlan::TableScan(scan) = node {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.merge(&source);
    }
    Ok(Arc::new(schema))
}
