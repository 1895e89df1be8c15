//! The progress bar, on standard error and on a terminal alone.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::plan::Window;
use crate::bench::run::Run;

/// How often the bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The steps of a bar.
const STEPS: u64 = 1_000;
const MIB: f64 = (1 << 20) as f64;

/// When a run is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Since its beginning.
    Time(Duration),
    Records(u64),
    Bytes(u64),
}

impl Goal {
    /// The goal of a window; `otherwise` records if it has no limit.
    pub(super) fn of(window: &Window, otherwise: u64) -> Goal {
        match (window.end(), window.records, window.bytes) {
            (Some(end), _, _) => Goal::Time(end),
            (None, Some(records), _) => Goal::Records(records),
            (None, None, Some(bytes)) => Goal::Bytes(bytes),
            (None, None, None) => Goal::Records(otherwise),
        }
    }

    /// How far a run is, in steps.
    fn steps(self, now: Duration, (records, bytes): (u64, u64)) -> u64 {
        let (done, all) = match self {
            Goal::Time(end) => (now.as_millis(), end.as_millis()),
            Goal::Records(all) => (u128::from(records), u128::from(all)),
            Goal::Bytes(all) => (u128::from(bytes), u128::from(all)),
        };
        let steps = done * u128::from(STEPS) / all.max(1);
        u64::try_from(steps).unwrap_or(STEPS).min(STEPS)
    }
}

/// A bar that leaves nothing behind.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows how far a run is until it is dropped.
pub(super) async fn show(run: &Run, mode: &'static str, goal: Goal) -> Result<Infallible> {
    let style = ProgressStyle::with_template("{prefix} {bar:28} {percent:>3} %  {msg}")?;
    let bar = Bar(ProgressBar::new(STEPS).with_style(style.progress_chars("━━╌")).with_prefix(mode));
    let (mut before, mut records_before, mut bytes_before) = (run.now(), 0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (now, (records, bytes)) = (run.now(), run.counted());
        bar.0.set_position(goal.steps(now, (records, bytes)));
        let seconds = (now - before).as_secs_f64().max(f64::EPSILON);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        bar.0.set_message(format!(
            "{:.0} records/s · {:.1} MiB/s",
            per_second(records, records_before),
            per_second(bytes, bytes_before) / MIB
        ));
        (before, records_before, bytes_before) = (now, records, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_step_by_step() {
        let second = Duration::from_secs(1);
        assert_eq!(Goal::Time(second * 10).steps(second * 5, (9, 9)), 500);
        assert_eq!(Goal::Records(300).steps(second, (100, 0)), 333);
        assert_eq!(Goal::Bytes(10).steps(second, (0, 11)), STEPS);
        assert_eq!(Goal::Records(0).steps(second, (5, 5)), STEPS);
        let window = Window { warm_up: second, seconds: None, records: None, bytes: None };
        assert_eq!(Goal::of(&window, 7), Goal::Records(7));
        assert_eq!(Goal::of(&Window { bytes: Some(5), ..window }, 7), Goal::Bytes(5));
        let timed = Window { seconds: Some(second), records: Some(5), ..window };
        assert_eq!(Goal::of(&timed, 7), Goal::Time(second * 2));
    }
}
