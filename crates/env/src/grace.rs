//! What happened so long ago that its grace is over, by the monotonic clock of the one who looks.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// Marks that are kept within one grace period. A grace may end later than it should by one part in so many.
const MARKS: u32 = 16;

/// How far commits had come at moments of the monotonic clock. The time of commits never goes back, so what a commit
/// did before the time of a mark is older than the mark. The wall clock may jump meanwhile: it decides nothing.
#[derive(Debug)]
pub struct Grace {
    period: Duration,
    marks: VecDeque<(Timestamp, Instant)>,
    over: Timestamp,
}

impl Grace {
    /// A grace of `period` for everything that is there. It begins with the first look.
    pub fn new(period: Duration) -> Grace {
        Grace { period, marks: VecDeque::new(), over: Timestamp(i64::MIN) }
    }

    /// Notes that commits had come to `time` at `now`.
    pub fn look(&mut self, time: Timestamp, now: Instant) {
        while let Some((time, _)) =
            self.marks.front().filter(|(_, at)| now.duration_since(*at) >= self.period)
        {
            self.over = self.over.max(*time);
            self.marks.pop_front();
        }
        let apart = self.period / MARKS;
        if self.marks.back().is_none_or(|(_, at)| now.duration_since(*at) >= apart) {
            self.marks.push_back((time, now));
        }
    }

    /// The grace of what commits did before this moment is over. Of what they did at it, some may be younger.
    pub fn over(&self) -> Timestamp {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_counts_from_the_look_whatever_the_time_of_commits_does() {
        let begun = crate::Env::simulated(1).monotonic();
        let mut grace = Grace::new(Duration::from_secs(160));
        let mut look = |time, seconds| {
            grace.look(Timestamp(time), begun + Duration::from_secs(seconds));
            grace.over().0
        };
        assert_eq!(look(1_000, 0), i64::MIN);
        // The clock jumps a year ahead, and stands still after it was put right.
        assert_eq!(look(31_536_000_000, 10), i64::MIN);
        assert_eq!(look(31_536_000_000, 159), i64::MIN);
        assert_eq!(look(31_536_000_000, 160), 1_000);
        assert_eq!(look(31_536_000_001, 170), 31_536_000_000);
        assert_eq!(look(31_536_000_002, 1_000), 31_536_000_001);
    }

    #[test]
    fn the_marks_are_few_however_often_one_looks() {
        let begun = crate::Env::simulated(1).monotonic();
        let mut grace = Grace::new(Duration::from_secs(160));
        for second in 0..10_000u32 {
            grace.look(Timestamp(i64::from(second)), begun + Duration::from_secs(second.into()));
        }
        assert!(grace.marks.len() <= MARKS as usize + 1, "{} marks", grace.marks.len());
        let late = 9_999 - grace.over().0;
        assert!((160..=171).contains(&late), "its grace ended {late} s ago");
    }
}
