//! Log lines that may come for each of many things: so many in a while, and the number of those left out.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock;

/// A limit for one kind of log line. It may be a `static`.
#[derive(Debug)]
pub struct LogLines {
    max: u32,
    period: Duration,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    begun: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl LogLines {
    /// At most `max` lines in each `period`.
    pub const fn new(max: u32, period: Duration) -> LogLines {
        LogLines { max, period, lines: Mutex::new(Lines { begun: None, said: 0, left_out: 0 }) }
    }

    /// Whether a line may be written at `now`; if so, how many were left out since the last one.
    pub fn next(&self, now: Instant) -> Option<u64> {
        let mut lines = lock(&self.lines);
        if lines.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= self.period) {
            (lines.begun, lines.said) = (Some(now), 0);
        }
        if lines.said == self.max {
            lines.left_out += 1;
            return None;
        }
        lines.said += 1;
        Some(std::mem::take(&mut lines.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_so_many_lines_and_the_next_one_says_how_many_were_left_out() {
        let begun = crate::Env::simulated(1).monotonic();
        let lines = LogLines::new(3, Duration::from_secs(60));
        let said: Vec<_> = (0..5_000).map(|_| lines.next(begun)).collect();
        assert_eq!((&said[..4], said.iter().flatten().count()), (&[Some(0), Some(0), Some(0), None][..], 3));
        assert_eq!(lines.next(begun + Duration::from_secs(59)), None);
        assert_eq!(lines.next(begun + Duration::from_secs(60)), Some(4_998));
        assert_eq!(lines.next(begun + Duration::from_secs(61)), Some(0));
    }
}
