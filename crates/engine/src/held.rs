//! Counts the rows that a window function over a whole partition holds. The engine collects all of them and counts
//! none.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs,
    replace_children_if_necessary,
};
use futures::TryStreamExt;

/// How often the operator has each row: as it came, and in one batch with all others.
const COPIES: usize = 2;

/// The rule that puts [`HeldExec`] below window functions.
#[derive(Debug)]
pub struct CountHeldRows;

impl PhysicalOptimizerRule for CountHeldRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = |plan: Arc<dyn ExecutionPlan>| {
            if !plan.is::<WindowAggExec>() {
                return Ok(Transformed::no(plan));
            }
            let held =
                |input: &Arc<dyn ExecutionPlan>| Arc::new(HeldExec(input.clone())) as Arc<dyn ExecutionPlan>;
            let children = plan.children().into_iter().map(held).collect();
            Ok(Transformed::yes(replace_children_if_necessary(plan, children)?))
        };
        plan.transform_up(counted).data()
    }

    fn name(&self) -> &'static str {
        "CountHeldRows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Passes rows on and counts the memory of all of them until the statement ends.
#[derive(Debug)]
struct HeldExec(Arc<dyn ExecutionPlan>);

impl DisplayAs for HeldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldExec")
    }
}

impl ExecutionPlan for HeldExec {
    fn name(&self) -> &'static str {
        "HeldExec"
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(HeldExec(input))),
            _ => internal_err!("HeldExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("window function").register(context.memory_pool());
        let batches = self.0.execute(partition, context)?;
        let counted = batches.and_then(move |batch| {
            let counted = memory.try_grow(COPIES * batch.get_array_memory_size());
            std::future::ready(counted.map(|()| batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counted)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(inputs[0].clone())
    }
}
