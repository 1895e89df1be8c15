//! Pushing filters and projections down a plan, made safe.
//!
//! The engine passes a filter through a projection by the names of its columns. Where two outputs have one name, as
//! after a join whose sides were swapped, the filter lands on the wrong column, and rows are lost or invented without
//! an error. So such a plan keeps its filters where they are, at the price of reading more.
//!
//! Pushing projections down fails on some joins whose condition is no equality. It only saves work, so the plan stays
//! as it was then.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// A rule of the engine that moves filters by name, or a projection that may fail.
pub(super) fn careful(rule: Rule) -> Rule {
    match rule.name() {
        name if name.starts_with("FilterPushdown") => Arc::new(Filters(rule)),
        "ProjectionPushdown" => Arc::new(Projections(rule)),
        _ => rule,
    }
}

#[derive(Debug)]
struct Filters(Rule);

impl PhysicalOptimizerRule for Filters {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match is_ambiguous(&plan, false) {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

#[derive(Debug)]
struct Projections(Rule);

impl PhysicalOptimizerRule for Projections {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.optimize(plan.clone(), config).or_else(|error| {
            metrics::counter!("floe_sql_rules_failed_total", "rule" => "ProjectionPushdown").increment(1);
            tracing::debug!(%error, "projections stay where they are");
            Ok(plan)
        })
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether a filter, or what makes one while it runs, stands above a projection with two outputs of one name.
fn is_ambiguous(plan: &Arc<dyn ExecutionPlan>, filtered: bool) -> bool {
    if filtered && plan.is::<ProjectionExec>() {
        let schema = plan.schema();
        let names: BTreeSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if names.len() < schema.fields().len() {
            return true;
        }
    }
    let joins = plan.children().len() > 1;
    let filters = joins || plan.is::<FilterExec>() || plan.is::<SortExec>() || plan.is::<AggregateExec>();
    plan.children().into_iter().any(|child| is_ambiguous(child, filtered || filters))
}
