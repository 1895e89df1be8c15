//! Grouping sets make columns NULL. The engine forgets that: it knows from `WHERE town = 'x'`, or from an order, what
//! the columns below the grouping are like, believes it of the columns above, and leaves out sorting and exchanging
//! rows that the plan needs. So the grouping sees its input through a node that knows nothing of its rows.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, replace_children_if_necessary,
};

use crate::trees::Tree;

/// The rule that puts a [`Forget`] below each grouping by sets.
#[derive(Debug)]
pub(super) struct ForgetBelowSets;

impl PhysicalOptimizerRule for ForgetBelowSets {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut forgetting = |plan: Arc<dyn ExecutionPlan>| {
            let sets = plan.downcast_ref::<AggregateExec>().is_some_and(|aggregate| {
                aggregate.group_expr().groups().len() > 1 && !aggregate.input().is::<Forget>()
            });
            if !sets {
                return Ok(Transformed::no(plan));
            }
            let inputs = plan.children().into_iter().map(|input| Forget::over(input.clone())).collect();
            Ok(Transformed::yes(replace_children_if_necessary(plan, inputs)?))
        };
        plan.rewrite_up(&mut forgetting).data()
    }

    fn name(&self) -> &'static str {
        "ForgetBelowSets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Passes rows on, and says nothing about them.
#[derive(Debug)]
struct Forget {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Forget {
    fn over(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let known = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(known.output_partitioning().partition_count()),
            known.emission_type,
            known.boundedness,
        );
        Arc::new(Forget { properties: Arc::new(properties), input })
    }
}

impl DisplayAs for Forget {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forget")
    }
}

impl ExecutionPlan for Forget {
    fn name(&self) -> &'static str {
        "Forget"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| self.input.clone());
        Ok(Forget::over(input))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
