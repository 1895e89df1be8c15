//! Where a plan makes much out of little, it gives way: so a statement can end at its deadline, or with its reader.
//!
//! The engine counts what its leaves give and pauses after so many batches. An operator that makes a billion rows
//! out of two batches is not counted, and nothing above it pauses: the statement would keep its thread and its turn for
//! as long as that takes.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::union::UnionExec;

/// Lets the batches of operators that multiply rows be counted as well.
#[derive(Debug)]
pub(crate) struct GiveWay;

impl PhysicalOptimizerRule for GiveWay {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = |plan: Arc<dyn ExecutionPlan>| {
            Ok(match multiplies(&plan) {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        };
        plan.transform_up(counted).data()
    }

    fn name(&self) -> &'static str {
        "GiveWay"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Joins of every kind, and recursion. What makes one batch of each that it takes is as good as counted.
fn multiplies(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.children().len() > 1 && !plan.as_any().is::<UnionExec>()
}
