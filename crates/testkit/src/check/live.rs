//! Liveness: after the faults, everything goes on. Everything that the run found stuck is a finding.

use crate::history::{Event, History};

/// Reports parts that made no progress.
pub fn check(history: &History) -> Vec<String> {
    let stuck = history.lines.iter().filter_map(|line| match &line.event {
        Event::Stuck { what } => Some(what.clone()),
        _ => None,
    });
    stuck.collect()
}
