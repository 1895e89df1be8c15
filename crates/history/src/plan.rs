//! What to merge next. Pure: parts in, a run of neighbours out.
//!
//! Parts are in tiers by the logarithm of their commits. When enough neighbours are of one tier or below it, they
//! become one part of the tier above. So each row is written again once for each tier, and a history of n commits has
//! O(log n) small parts. Parts of [`MERGED_BYTES_MAX`] stay as they are: their number grows with the history, by one
//! for about a million commits.

use crate::limits::{FANOUT, MERGED_BYTES_MAX, MERGED_PARTS_MAX};
use crate::map::PlacedPart;

/// Commits of the smallest tier.
const TIER_COMMITS: u64 = 1_000;

/// The tier of a part.
fn tier(part: &PlacedPart) -> u32 {
    (part.commits() / TIER_COMMITS).max(1).ilog(FANOUT as u64)
}

/// The neighbours that are merged next; none if there are too few.
/// Those that are `barred` cannot be read.
pub(crate) fn merge<'a>(
    parts: &'a [PlacedPart],
    barred: &dyn Fn(&PlacedPart) -> bool,
) -> Option<&'a [PlacedPart]> {
    let is_full = |part: &PlacedPart| part.part.bytes > MERGED_BYTES_MAX / 2 || barred(part);
    let tiers: std::collections::BTreeSet<u32> =
        parts.iter().filter(|part| !is_full(part)).map(tier).collect();
    tiers.into_iter().find_map(|most| {
        let small = |part: &PlacedPart| !is_full(part) && tier(part) <= most;
        // By the begin of each run of small neighbours.
        let mut at = 0;
        while at < parts.len() {
            let run = parts[at..].iter().take_while(|part| small(part)).count();
            // Where the run begins with a part that is larger than all others together, those are merged first.
            for from in at..(at + run + 1).saturating_sub(FANOUT) {
                let fit = &parts[from..from + fitting(&parts[from..at + run])];
                if grows(fit) {
                    return Some(fit);
                }
            }
            at += run.max(1);
        }
        None
    })
}

/// Whether each row of these comes into a part that is at least twice as large. So it is written again a few times
/// only.
fn grows(parts: &[PlacedPart]) -> bool {
    let largest = parts.iter().map(PlacedPart::commits).max().unwrap_or(0);
    parts.len() >= 2 && parts.iter().map(PlacedPart::commits).sum::<u64>() >= 2 * largest
}

/// How many of these fit into one part.
fn fitting(run: &[PlacedPart]) -> usize {
    let mut bytes = 0;
    let fits = |part: &&PlacedPart| {
        bytes += part.part.bytes;
        bytes <= MERGED_BYTES_MAX
    };
    run.iter().take(MERGED_PARTS_MAX).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use floe_env::Timestamp;
    use floe_meta::Lsn;

    use super::*;
    use crate::map::Part;

    fn part(first: u64, commits: u64, bytes: u64) -> PlacedPart {
        let (last, from) = (Lsn(first + commits - 1), Timestamp(0));
        let part = Part { last, number: first, bytes, crc: 0, rows: commits, from, to: from, since: last };
        PlacedPart { first: Lsn(first), part }
    }

    /// Appends parts of these commits, 32 bytes for each, and merges whatever is due. Returns the parts that are left,
    /// and how often a byte was written.
    fn grown(commits: impl Iterator<Item = u64>) -> (Vec<PlacedPart>, f64) {
        let mut parts: Vec<PlacedPart> = Vec::new();
        let (mut written, mut total) = (0, 0);
        for commits in commits {
            let first = parts.last().map_or(1, |last| last.part.last.0 + 1);
            parts.push(part(first, commits, commits * 32));
            (written, total) = (written + commits * 32, total + commits * 32);
            while let Some(run) = merge(&parts, &|_| false) {
                let (first, last) = (run[0].first, run[run.len() - 1].part.last);
                let at = parts.iter().position(|part| part.first == first).unwrap();
                let merged =
                    part(first.0, last.0 - first.0 + 1, run.iter().map(|part| part.part.bytes).sum());
                written += merged.part.bytes;
                parts.splice(at..at + run.len(), [merged]);
            }
        }
        (parts, written as f64 / total as f64)
    }

    #[test]
    fn few_parts_are_left_and_rows_are_written_a_few_times() {
        let (parts, times) = grown(std::iter::repeat_n(50_000, 200));
        assert!(parts.len() <= 30 && times < 4.0, "{} parts, {times} times", parts.len());
        // A broker that starts again and again.
        let (parts, times) = grown((0..5_000).map(|at| if at % 3 == 0 { 7_000 } else { 10 }));
        assert!(parts.len() <= 40 && times < 6.0, "{} parts, {times} times", parts.len());
        let (parts, _) = grown(std::iter::repeat_n(100_000_000, 20));
        assert_eq!(parts.len(), 20, "large ones stay");
    }

    /// A start reads the records of the parts, and the newest object for its names. So it is bounded by these.
    #[test]
    fn ten_million_commits_leave_few_parts_for_a_start_to_read() {
        // By number, an hour of a slow broker each, and as few as a part has.
        for commits in [50_000, 3_600, 100] {
            let (parts, times) = grown(std::iter::repeat_n(commits, (10_000_000 / commits) as usize));
            let newest = parts.last().map_or(0, |last| last.part.bytes);
            assert!(parts.len() <= 50 && times < 8.0, "of {commits}: {} parts, {times} times", parts.len());
            assert!(newest <= MERGED_BYTES_MAX);
        }
    }

    #[test]
    fn only_neighbours_are_merged() {
        let some = |count| (0..count).map(|at| part(1 + at * 1_000, 1_000, 100)).collect::<Vec<_>>();
        assert_eq!(merge(&some(7), &|_| false), None);
        assert_eq!(merge(&some(9), &|_| false).map(<[PlacedPart]>::len), Some(9));
        let mut parts = some(14);
        parts[7].part.bytes = MERGED_BYTES_MAX;
        assert_eq!(merge(&parts, &|_| false), None);
    }
}
