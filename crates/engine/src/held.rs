//! Counts the rows that a window function over a whole partition holds. The engine collects all of them and counts
//! none.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::WindowAggExec;

use crate::passing::{self, Look, Looks};

/// How often the operator has each row: as it came, and in one batch with all others.
const COPIES: usize = 2;

/// The rule that counts what comes to window functions, until the statement ends.
#[derive(Debug)]
pub struct CountHeldRows;

impl PhysicalOptimizerRule for CountHeldRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        passing::below(plan, |plan| plan.is::<WindowAggExec>(), Looks { name: "HeldExec", begin: count })
    }

    fn name(&self) -> &'static str {
        "CountHeldRows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn count(context: &TaskContext) -> Option<Look> {
    let memory = MemoryConsumer::new("window function").register(context.memory_pool());
    Some(Box::new(move |batch| memory.try_grow(COPIES * batch.get_array_memory_size())))
}
