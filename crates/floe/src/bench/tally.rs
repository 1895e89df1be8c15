//! What connections counted: each counts for itself, and the counts are added in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bench::histogram::Histogram;

/// Characters of the broker's message that are kept for each code.
const SAID_CHARACTERS_MAX: usize = 500;

/// Requests that the broker refused with one code.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) requests: u64,
    /// What the broker said to the first of them; may be empty.
    pub(super) said: String,
}

/// The counts of writers or of readers. Figures leave the warm-up out; what went wrong is counted from the beginning.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) requests: u64,
    /// Records acknowledged, or read.
    pub(super) records: u64,
    /// Bytes of the batches acknowledged, or read, as they are on the wire.
    pub(super) batch_bytes: u64,
    /// Records acknowledged or read in the warm-up.
    pub(super) warm_up_records: u64,
    /// From the time when a request was due, or was sent, to its answer.
    pub(super) latency: Histogram,
    /// From the time when a request was due to the time when it was sent.
    pub(super) send_delay: Histogram,
    /// Fetches whose answer had no records.
    pub(super) empty: u64,
    /// Answers with which the broker asked for a pause.
    pub(super) throttled: u64,
    /// Requests that the broker refused, by code.
    pub(super) errors: BTreeMap<i16, Refusals>,
    /// Records of those requests.
    pub(super) refused_records: u64,
    /// Requests without an answer. They may have been carried out.
    pub(super) unknown: u64,
    /// Records of those requests.
    pub(super) unknown_records: u64,
    /// When the last answer came, since the beginning of the run.
    pub(super) last_answer: Duration,
}

impl Tally {
    /// Counts a request that the broker refused.
    pub(super) fn refused(&mut self, code: i16, said: Option<&str>, records: u64) {
        let refusals = self.errors.entry(code).or_default();
        if refusals.requests == 0 {
            refusals.said = said.unwrap_or_default().chars().take(SAID_CHARACTERS_MAX).collect();
        }
        refusals.requests += 1;
        self.refused_records += records;
    }

    /// Whether all requests succeeded.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.unknown == 0
    }

    /// Adds the counts of another connection.
    pub(super) fn merge(&mut self, other: Tally) {
        self.requests += other.requests;
        self.records += other.records;
        self.batch_bytes += other.batch_bytes;
        self.warm_up_records += other.warm_up_records;
        self.latency.merge(&other.latency);
        self.send_delay.merge(&other.send_delay);
        self.empty += other.empty;
        self.throttled += other.throttled;
        for (code, theirs) in other.errors {
            let ours = self.errors.entry(code).or_insert_with(|| Refusals { requests: 0, ..theirs.clone() });
            ours.requests += theirs.requests;
        }
        self.refused_records += other.refused_records;
        self.unknown += other.unknown;
        self.unknown_records += other.unknown_records;
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_and_errors_kept_apart() {
        let mut all = Tally::default();
        assert!(all.is_clean());
        for connection in 1..=3 {
            let mut one = Tally {
                requests: 10,
                records: 100,
                last_answer: Duration::from_secs(connection),
                ..Tally::default()
            };
            one.refused(19, Some("full"), 7);
            one.refused(i16::try_from(connection).expect("small"), None, 1);
            one.latency.record(Duration::from_millis(connection));
            all.merge(one);
        }
        assert_eq!((all.requests, all.records, all.refused_records), (30, 300, 24));
        let refusals = |requests, said: &str| Refusals { requests, said: said.to_owned() };
        let none = || refusals(1, "");
        let expected = [(19, refusals(3, "full")), (1, none()), (2, none()), (3, none())];
        assert_eq!(all.errors, BTreeMap::from(expected));
        assert_eq!((all.latency.count(), all.last_answer), (3, Duration::from_secs(3)));
        assert!(!all.is_clean());
        assert!(!Tally { unknown: 1, ..Tally::default() }.is_clean());
    }
}
