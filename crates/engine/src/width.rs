//! Finds out that the rows of a statement are wide, so that it begins again with batches of fewer rows.
//!
//! The engine bounds batches by rows, and sorts, groups, joins and exchanges hold dozens of batches whatever the bytes
//! of each. How wide rows are is known once there are some. So [`LookAtWidths`] has the batches looked at that such
//! operators read. The first that is too large ends the run with an error, and [`Widths::fewer_rows`] says how many
//! rows fit. The caller plans again with that. It can do so until it has handed rows on. From [`Widths::hand_on`] on,
//! batches pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, resources_err};
use datafusion::execution::TaskContext;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use crate::functions::row_sizes;
use crate::limits::BATCH_ROWS_MIN;
use crate::passing::{self, Look, Looks};

/// How wide the rows of one run of a statement may be. A run finds it among the extensions of its session.
#[derive(Debug)]
pub struct Widths {
    batch_bytes: usize,
    /// [`LOOKS`], [`PASSES`], or the rows of a batch that fit.
    state: AtomicUsize,
}

const LOOKS: usize = 0;
const PASSES: usize = usize::MAX;

impl Widths {
    /// Batches of about `batch_bytes`. One that has twice as many ends the run.
    pub const fn new(batch_bytes: usize) -> Widths {
        Widths { batch_bytes, state: AtomicUsize::new(LOOKS) }
    }

    /// Says that rows are about to be handed on. Returns `false` if the run has ended before: then nothing may be.
    pub fn hand_on(&self) -> bool {
        matches!(self.state.compare_exchange(LOOKS, PASSES, SeqCst, SeqCst), Ok(_) | Err(PASSES))
    }

    /// If rows were too wide for this run: the rows of a batch of which it would not have been so.
    pub fn fewer_rows(&self) -> Option<usize> {
        Some(self.state.load(SeqCst)).filter(|state| !matches!(*state, LOOKS | PASSES))
    }

    fn look(&self, batch: &RecordBatch) -> Result<()> {
        let most = self.batch_bytes.saturating_mul(2);
        // Batches that share a buffer have all of it, so a small batch may seem large.
        let may_be_large = batch.num_rows() > BATCH_ROWS_MIN && batch.get_array_memory_size() > most;
        if !may_be_large || self.state.load(SeqCst) == PASSES {
            return Ok(());
        }
        let mut bytes = 0_u128;
        for column in batch.columns() {
            bytes += row_sizes(column)?.into_iter().sum::<u128>();
        }
        if bytes <= most as u128 {
            return Ok(());
        }
        let rows = batch.num_rows() as u128 * self.batch_bytes as u128 / bytes;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX).max(BATCH_ROWS_MIN);
        match self.state.compare_exchange(LOOKS, rows, SeqCst, SeqCst) {
            Err(PASSES) => Ok(()),
            _ => resources_err!("{} rows have {bytes} bytes", batch.num_rows()),
        }
    }
}

/// The rule that has the batches looked at that come to operators that hold some.
#[derive(Debug)]
pub struct LookAtWidths;

impl PhysicalOptimizerRule for LookAtWidths {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        passing::below(plan, holds, Looks { name: "WidthExec", begin: look })
    }

    fn name(&self) -> &'static str {
        "LookAtWidths"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an operator holds batches, or rows of them.
fn holds(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<SortExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
        || plan.children().len() > 1 && !plan.is::<UnionExec>()
}

fn look(context: &TaskContext) -> Option<Look> {
    let widths = context.session_config().get_extension::<Widths>()?;
    Some(Box::new(move |batch| widths.look(batch)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn texts(rows: usize, bytes: usize) -> RecordBatch {
        let text = "x".repeat(bytes);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); rows]));
        RecordBatch::try_from_iter([("t", texts)]).unwrap()
    }

    #[test]
    fn the_first_batch_of_wide_rows_ends_a_run() {
        let widths = Widths::new(1 << 20);
        assert!(widths.look(&texts(8_192, 200)).is_ok() && widths.fewer_rows().is_none());
        // What a batch shares with others does not count.
        assert!(widths.look(&texts(8_192, 2_000).slice(100, 500)).is_ok());
        assert!(widths.look(&texts(BATCH_ROWS_MIN, 1 << 20)).is_ok(), "fewer rows are not possible");
        let error = widths.look(&texts(8_192, 2_000)).unwrap_err().to_string();
        assert!(error.contains("8192 rows"), "{error}");
        let rows = widths.fewer_rows().unwrap();
        assert!((400..525).contains(&rows), "{rows}");
        assert!(widths.look(&texts(8_192, 4_000)).is_err() && widths.fewer_rows() == Some(rows));
        assert!(!widths.hand_on(), "the run has ended");
        assert!(Widths::new(1 << 20).look(&texts(rows, 2_000)).is_ok());
    }

    #[test]
    fn nothing_ends_a_run_that_has_handed_rows_on() {
        let widths = Widths::new(1 << 20);
        assert!(widths.hand_on() && widths.hand_on());
        assert!(widths.look(&texts(8_192, 2_000)).is_ok() && widths.fewer_rows().is_none());
    }
}
