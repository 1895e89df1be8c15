//! Puts the functions of a plan behind the meter of its statement, and so the operator `||`, which the engine evaluates
//! without a function.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

use crate::correct::walk;

use super::meter::Meter;
use super::metered;

/// The rule of one statement. It comes after all rules that choose types, and before constants are folded.
#[derive(Debug)]
pub struct MeteredFunctions(pub Arc<Meter>);

impl AnalyzerRule for MeteredFunctions {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &|expr, _| Ok(metered::watched(expr, Some(&self.0))))
    }

    fn name(&self) -> &'static str {
        "metered_functions"
    }
}
