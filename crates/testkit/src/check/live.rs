//! When the faults end, everything goes on: what the run itself found stuck is a finding.

use crate::history::{Event, History};

/// Says what made no progress.
pub fn check(history: &History) -> Vec<String> {
    let stuck = history.lines.iter().filter_map(|line| match &line.event {
        Event::Stuck { what } => Some(what.clone()),
        _ => None,
    });
    stuck.collect()
}
