//! How many bytes of changes the commits have that are in no part yet.
//!
//! The observer of the map counts as commits come, and a start counts once what the journal has. Commits leave the
//! count when they are in a part, whoever wrote it. The count is by steps of a thousand commits or a MiB, so it is too
//! large by less than a step.

use std::collections::VecDeque;

use floe_meta::{Change, Lsn};

use crate::limits::{WAITING_STEP_BYTES, WAITING_STEP_COMMITS, WAITING_STEPS_MAX};

/// Commits that follow on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    first: Lsn,
    last: Lsn,
    bytes: u64,
}

impl Step {
    fn takes(&self, lsn: Lsn) -> bool {
        self.bytes < WAITING_STEP_BYTES && lsn.0.saturating_sub(self.first.0) < WAITING_STEP_COMMITS
    }
}

/// The commits that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Step>);

impl Waiting {
    /// Takes in a commit that comes after all others.
    pub(crate) fn add(&mut self, lsn: Lsn, bytes: u64) {
        match self.0.back_mut().filter(|last| last.takes(lsn)) {
            Some(last) => *last = Step { last: lsn, bytes: last.bytes.saturating_add(bytes), ..*last },
            None => self.0.push_back(Step { first: lsn, last: lsn, bytes }),
        }
        if self.0.len() > WAITING_STEPS_MAX {
            self.coarsen();
        }
    }

    /// Takes in commits that came before all others.
    pub(crate) fn add_before(&mut self, first: Lsn, last: Lsn, bytes: u64) {
        self.0.push_front(Step { first, last, bytes });
    }

    /// Makes one step of two.
    fn coarsen(&mut self) {
        let mut steps = std::mem::take(&mut self.0).into_iter();
        while let Some(one) = steps.next() {
            let other = steps.next();
            let last = other.map_or(one.last, |other| other.last);
            let bytes = other.map_or(0, |other| other.bytes).saturating_add(one.bytes);
            self.0.push_back(Step { first: one.first, last, bytes });
        }
    }

    /// Bytes of the commits after `end`. Those up to it are forgotten.
    pub(crate) fn after(&mut self, end: Lsn) -> u64 {
        while self.0.front().is_some_and(|step| step.last <= end) {
            self.0.pop_front();
        }
        self.0.iter().map(|step| step.bytes).sum()
    }
}

/// Bytes of changes.
pub(crate) fn bytes_of(changes: &[Change]) -> u64 {
    let bytes = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, |value| value.len());
    changes.iter().map(bytes).sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_leave_the_count_when_they_are_in_a_part() {
        let mut waiting = Waiting::default();
        for lsn in 1..=10_000 {
            waiting.add(Lsn(lsn), 10);
        }
        assert_eq!(waiting.after(Lsn(0)), 100_000);
        // Too much by less than a step.
        let left = waiting.after(Lsn(4_500));
        assert!((55_000..=55_000 + WAITING_STEP_COMMITS * 10).contains(&left), "{left}");
        assert_eq!(waiting.after(Lsn(10_000)), 0);
        waiting.add(Lsn(10_001), 7);
        waiting.add_before(Lsn(1), Lsn(10_000), 5);
        assert_eq!((waiting.after(Lsn(9_999)), waiting.after(Lsn(10_000))), (12, 7));
    }

    #[test]
    fn the_count_takes_little_memory_whatever_comes() {
        let mut waiting = Waiting::default();
        for lsn in 1..=20_000 {
            waiting.add(Lsn(lsn), WAITING_STEP_BYTES);
            assert!(waiting.0.len() <= WAITING_STEPS_MAX);
        }
        assert_eq!(waiting.after(Lsn(0)), 20_000 * WAITING_STEP_BYTES);
        let left = waiting.after(Lsn(19_000));
        assert!((1_000..=1_100).contains(&(left / WAITING_STEP_BYTES)), "{}", left / WAITING_STEP_BYTES);
    }
}
