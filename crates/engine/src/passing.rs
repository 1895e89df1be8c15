//! An operator that passes batches on as they are and looks at each.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs,
    replace_children_if_necessary,
};
use futures::TryStreamExt;

use crate::trees::Tree;

/// Looks at one batch after the other. An error ends the statement.
pub(crate) type Look = Box<dyn FnMut(&RecordBatch) -> Result<()> + Send>;

/// What is done with the batches of each partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    /// The operator's name in plans.
    pub(crate) name: &'static str,
    /// Begins to look at a partition; none if there is nothing to look for.
    pub(crate) begin: fn(&TaskContext) -> Option<Look>,
}

/// Puts the operator below those of a plan that are `wanted`.
pub(crate) fn below(
    plan: Arc<dyn ExecutionPlan>,
    wanted: impl Fn(&Arc<dyn ExecutionPlan>) -> bool,
    looks: Looks,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut put = |plan: Arc<dyn ExecutionPlan>| {
        if !wanted(&plan) {
            return Ok(Transformed::no(plan));
        }
        let passing = |input: &Arc<dyn ExecutionPlan>| {
            Arc::new(PassingExec { input: input.clone(), looks }) as Arc<dyn ExecutionPlan>
        };
        let children = plan.children().into_iter().map(passing).collect();
        Ok(Transformed::yes(replace_children_if_necessary(plan, children)?))
    };
    plan.rewrite_up(&mut put).data()
}

#[derive(Debug)]
struct PassingExec {
    input: Arc<dyn ExecutionPlan>,
    looks: Looks,
}

impl DisplayAs for PassingExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.looks.name)
    }
}

impl ExecutionPlan for PassingExec {
    fn name(&self) -> &'static str {
        self.looks.name
    }

    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
            (Some(input), true) => Ok(Arc::new(PassingExec { input, looks: self.looks })),
            _ => internal_err!("{} has one input", self.looks.name),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = self.input.execute(partition, context.clone())?;
        let Some(mut look) = (self.looks.begin)(&context) else { return Ok(batches) };
        let looked_at = batches.and_then(move |batch| {
            let looked = look(&batch);
            std::future::ready(looked.map(|()| batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), looked_at)))
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
