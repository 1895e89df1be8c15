//! Makes operators that multiply rows yield, so that a statement can end at its deadline or with its reader.
//!
//! The engine counts the batches of a plan's leaves and yields after a number of them. It does not count an operator
//! that makes a billion rows out of two batches, and nothing above that operator yields. Without this rule the
//! statement would keep its thread and its turn until the operator is done.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::union::UnionExec;

use crate::trees::Tree;

/// The rule that makes the engine also count the batches of operators that multiply rows.
#[derive(Debug)]
pub struct GiveWay;

impl PhysicalOptimizerRule for GiveWay {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut counted = |plan: Arc<dyn ExecutionPlan>| {
            Ok(match multiplies(&plan) {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        };
        plan.rewrite_up(&mut counted).data()
    }

    fn name(&self) -> &'static str {
        "GiveWay"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an operator multiplies rows: joins of every kind, and recursion. An operator that makes one batch of each
/// input batch needs no count of its own.
fn multiplies(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.children().len() > 1 && !plan.is::<UnionExec>()
}
