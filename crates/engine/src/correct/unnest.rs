//! Unnesting keeps what the engine knows of its input: that a column is unique, because rows are grouped by it, and
//! that other columns follow from it. One row becomes many, so neither holds above. The engine believes it and leaves
//! out joins, DISTINCT and keys of groups that the answer needs. So the input passes through a function of which the
//! engine knows nothing.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Unnest};
use datafusion::optimizer::AnalyzerRule;

use crate::trees::{Plans, Tree};

use super::opaque::opaque;
use super::walk;

/// The rule that puts [`opaque`] below an unnest.
#[derive(Debug)]
pub(super) struct ForgetBelowUnnest;

impl AnalyzerRule for ForgetBelowUnnest {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !walk::nodes(&plan, &|node| Ok(matches!(node, LogicalPlan::Unnest(_))))? {
            return Ok(plan);
        }
        plan.rewrite_plans_up(&mut |node| match node {
            LogicalPlan::Unnest(unnest) if is_known(&unnest.input)? => {
                let input = Arc::new(forgotten(unnest.input)?);
                let node = LogicalPlan::Unnest(Unnest { input, ..unnest });
                Ok(Transformed::yes(node.recompute_schema()?))
            }
            // What the schema says of an unnest below is not true any more.
            node => Ok(Transformed::no(node.recompute_schema()?)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "forget_below_unnest"
    }
}

/// Whether the engine knows of a plan that columns of it are unique, or will know when it makes groups of DISTINCT.
fn is_known(plan: &LogicalPlan) -> Result<bool> {
    let is_distinct = plan.holds(&mut |node| matches!(node, LogicalPlan::Distinct(_)))?;
    Ok(is_distinct || !plan.schema().functional_dependencies().is_empty())
}

fn forgotten(plan: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().map(|column| {
        let (relation, name) = (column.relation.clone(), column.name.clone());
        opaque(Expr::Column(column)).alias_qualified(relation, name)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::new_from_arc(plan).project(columns)?.build()
}
