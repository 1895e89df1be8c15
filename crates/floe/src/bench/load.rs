//! Which request is due when: pure, so that no clock decides what is tested.
//!
//! Without a rate (closed loop) a request is due when a connection has room for it. With a rate (open loop) request `n`
//! is due at a fixed time, whatever happened to those before it. Its latency counts from then. So the requests that a
//! stalled broker kept from being sent are as slow in the figures as they would have been for a user.
//! ```text
//! time      0 ──── warm-up ────┬──────────── measured ────────────┬─ end
//! requests  not in the figures   until the records or the seconds are used up
//! ```

use std::time::Duration;

use crate::bench::plan::{Pace, Window, WritePlan};

/// Turns that were taken, and those still to come.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pace: Option<Pace>,
    warm_up: Duration,
    end: Option<Duration>,
    /// Records to be measured.
    records: Option<u64>,
    per_request: u64,
    /// Requests taken in the warm-up.
    warm: u64,
    /// Requests taken after it.
    measured: u64,
}

/// The turn to send one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// From 0, in the order of the turns.
    pub(super) number: u64,
    /// Since the beginning of the run.
    pub(super) due: Duration,
    /// False in the warm-up.
    pub(super) measured: bool,
    pub(super) records: u64,
}

impl Pace {
    /// When request `number` is due, from the beginning of the run on.
    fn due(&self, number: u64) -> Duration {
        let ns = u128::from(number) * u128::from(self.units) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// How many requests are due before a time.
    fn due_before(&self, time: Duration) -> u64 {
        let period = u128::from(self.units) * 1_000_000_000;
        let number = (time.as_nanos() * u128::from(self.per_second)).div_ceil(period);
        u64::try_from(number).unwrap_or(u64::MAX)
    }
}

impl Load {
    /// The load of a plan.
    pub(super) fn new(write: &WritePlan, window: &Window) -> Load {
        Load {
            pace: write.pace,
            warm_up: window.warm_up,
            end: window.end(),
            records: window.records_of(write.record_bytes),
            per_request: write.records_per_batch as u64,
            warm: 0,
            measured: 0,
        }
    }

    /// The next turn; `None` when there are no more. The caller waits until it is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<Turn> {
        if self.end.is_some_and(|end| now >= end) {
            return None;
        }
        let number = self.warm + self.measured;
        let due = self.pace.map_or(now, |pace| pace.due(number));
        if due < self.warm_up {
            self.warm += 1;
            return Some(Turn { number, due, measured: false, records: self.per_request });
        }
        if self.end.is_some_and(|end| due >= end) {
            return None;
        }
        let records = self.records_of(self.measured)?;
        self.measured += 1;
        Some(Turn { number, due, measured: true, records })
    }

    /// The records of measured request `number`; `None` behind the last one.
    fn records_of(&self, number: u64) -> Option<u64> {
        let Some(records) = self.records else { return Some(self.per_request) };
        let before = number.saturating_mul(self.per_request);
        Some(self.per_request.min(records.saturating_sub(before))).filter(|records| *records > 0)
    }

    /// Records of the last request, if it has fewer than the others.
    pub(super) fn rest(&self) -> Option<u64> {
        self.records.map(|records| records % self.per_request).filter(|rest| *rest > 0)
    }

    /// When the next request is due; `None` when there are no more, or without a rate.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        let pace = self.pace?;
        let due = pace.due(number);
        if self.end.is_some_and(|end| due >= end) {
            return None;
        }
        let measured = number.checked_sub(pace.due_before(self.warm_up));
        match measured {
            Some(measured) => self.records_of(measured).map(|_| due),
            None => Some(due),
        }
    }

    /// Measured requests that were due before a time. Zero without a rate, when nothing is due by itself.
    pub(super) fn measured_due_before(&self, time: Duration) -> u64 {
        let Some(pace) = self.pace else { return 0 };
        let time = self.end.map_or(time, |end| end.min(time));
        let due = pace.due_before(time).saturating_sub(pace.due_before(self.warm_up));
        let most = self.records.map_or(u64::MAX, |records| records.div_ceil(self.per_request));
        due.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::size::Rate;

    const MS: Duration = Duration::from_millis(1);

    fn load(pace: Option<(u64, u64)>, warm_up: u32, end: Option<u32>, records: Option<u64>) -> Load {
        let pace =
            pace.map(|(units, per_second)| Pace { rate: Rate::Records(per_second), units, per_second });
        let (warm_up, end) = (MS * warm_up, end.map(|end| MS * end));
        Load { pace, warm_up, end, records, per_request: 10, warm: 0, measured: 0 }
    }

    fn turns(load: &mut Load, now: impl Fn(u64) -> Duration) -> Vec<(u64, bool, u64)> {
        let taken = (0..1_000).map_while(|n| load.take(now(n)));
        taken.map(|turn| (turn.due.as_micros() as u64, turn.measured, turn.records)).collect()
    }

    #[test]
    fn with_a_rate_requests_are_due_at_fixed_times() {
        // 10 records each, 2,000 records a second: one every 5 ms.
        let mut load = load(Some((10, 2_000)), 12, Some(30), None);
        let expected = [(0, false), (5, false), (10, false), (15, true), (20, true), (25, true)].map(
            |(ms, measured)| {
                assert_eq!(load.due(ms / 5), Some(MS * ms as u32));
                (ms * 1_000, measured, 10)
            },
        );
        assert_eq!(turns(&mut load, |_| Duration::ZERO), expected);
        assert_eq!(load.due(6), None);
    }

    #[test]
    fn a_stall_keeps_the_due_times_and_what_was_not_sent_is_known() {
        let mut load = load(Some((10, 2_000)), 0, Some(30), None);
        // Nobody takes a turn for 20 ms. All that were due come late, with their own times.
        let got = turns(&mut load, |n| MS * (20 + 4 * n as u32));
        assert_eq!(got, [(0, true, 10), (5_000, true, 10), (10_000, true, 10)]);
        assert_eq!(load.measured_due_before(MS * 11), 3);
        assert_eq!(load.measured_due_before(MS * 99), 6, "six were due before the end, three were taken");
    }

    #[test]
    fn records_are_counted_to_the_last_one() {
        for pace in [None, Some((10, 2_000))] {
            let mut load = load(pace, 0, None, Some(25));
            assert_eq!(load.rest(), Some(5));
            let records: Vec<u64> =
                turns(&mut load, |_| Duration::ZERO).iter().map(|(_, _, records)| *records).collect();
            assert_eq!(records, [10, 10, 5]);
            assert_eq!(load.measured_due_before(MS * 1_000), if pace.is_some() { 3 } else { 0 });
        }
        assert_eq!(load(None, 0, None, Some(20)).rest(), None);
        assert_eq!(load(None, 0, None, None).rest(), None);
    }

    #[test]
    fn without_a_rate_the_clock_ends_the_warm_up() {
        let mut load = load(None, 10, Some(40), Some(25));
        let got = turns(&mut load, |n| MS * (6 * n as u32));
        assert_eq!(
            got,
            [(0, false, 10), (6_000, false, 10), (12_000, true, 10), (18_000, true, 10), (24_000, true, 5)]
        );
        assert_eq!(load.due(0), None);
    }

    #[test]
    fn a_rate_drifts_by_less_than_a_nanosecond() {
        let pace = Pace { rate: Rate::Records(3), units: 7, per_second: 3 };
        assert_eq!(pace.due(3_000_000), Duration::from_secs(7_000_000));
        for number in [0, 1, 2, 3, 1_000_003] {
            let due = pace.due(number);
            assert_eq!(pace.due_before(due + Duration::from_nanos(1)), number + 1);
            assert_eq!(pace.due_before(due), number, "{number}");
        }
    }
}
