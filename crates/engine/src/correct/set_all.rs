//! `EXCEPT ALL` and `INTERSECT ALL` (SQL:2016, 7.17): a row that comes m times on the left and n times on the right
//! comes max(m - n, 0) times in the difference, and min(m, n) times in the intersection.
//!
//! The engine plans both as a join that only asks whether a row is on the right. Here equal rows are numbered on both
//! sides, and the number is one more key of the join.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder,
};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::Plans;

use super::walk;

/// Makes the engine count equal rows.
#[derive(Debug)]
pub(super) struct CountedSets;

impl AnalyzerRule for CountedSets {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let counts_in = |node: &LogicalPlan| matches!(node, LogicalPlan::Join(join) if counts(join));
        if !walk::nodes(&plan, &|node| Ok(counts_in(node)))? {
            return Ok(plan);
        }
        let mut counted = |node| match node {
            LogicalPlan::Join(join) if counts(&join) => Ok(Transformed::yes(counted(join)?)),
            node => Ok(Transformed::no(node)),
        };
        walk::settled(plan.rewrite_plans_up(&mut counted)?)
    }

    fn name(&self) -> &'static str {
        "counted_sets"
    }
}

/// Whether a join is a set operation with ALL. No other join takes NULL for equal to NULL. Where the left side is
/// distinct, each row comes once, and the engine's join is right.
fn counts(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(*join.left, LogicalPlan::Distinct(Distinct::All(_)))
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
    let left = numbered(&join.left, left_keys, "__left_row")?;
    let right = numbered(&join.right, right_keys, "__right_row")?;
    let mut on = join.on;
    let row = |name: &str| Expr::Column(Column::new_unqualified(name));
    on.push((row("__left_row"), row("__right_row")));
    let join = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        JoinConstraint::On,
        join.null_equality,
        false,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(join)).project(columns.into_iter().map(Expr::Column))?.build()
}

/// The rows of a plan, with a number among those that are equal.
fn numbered(plan: &Arc<LogicalPlan>, keys: Vec<Expr>, name: &str) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let number = row_number().partition_by(keys).build()?;
    let value = Expr::Column(Column::new_unqualified(number.schema_name().to_string()));
    LogicalPlanBuilder::new_from_arc(plan.clone())
        .window([number])?
        .project(columns.into_iter().map(Expr::Column).chain([value.alias(name)]))?
        .build()
}
