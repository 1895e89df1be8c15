//! Puts the functions of a plan behind the meter of its statement, and so the operator `||`, which the engine evaluates
//! without a function.

use std::sync::{Arc, Mutex};

use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

use floe_env::lock;

use crate::correct::walk;

use super::meter::Meter;
use super::metered;

/// The rule of a session. It comes after all rules that choose types, and before constants are folded. It puts the
/// functions of a statement behind the meter that the session has meanwhile.
#[derive(Debug, Default)]
pub struct MeteredFunctions(Mutex<Option<Arc<Meter>>>);

impl MeteredFunctions {
    /// Sets the meter of the next statement. Without one no statement can be planned.
    pub fn set(&self, meter: Option<Arc<Meter>>) {
        *lock(&self.0) = meter;
    }
}

impl AnalyzerRule for MeteredFunctions {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let meter = lock(&self.0).clone();
        if meter.is_none() {
            return internal_err!("the session has no meter");
        }
        walk::expressions(plan, &metered::is_watched, &|expr, _| Ok(metered::watched(expr, meter.as_ref())))
    }

    fn name(&self) -> &'static str {
        "metered_functions"
    }
}
