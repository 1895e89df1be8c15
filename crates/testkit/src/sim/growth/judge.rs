//! Whether something grows with what was done: a pure function of the samples.
//!
//! A figure stands still if its median over the last third of the run exceeds that of the third before by no more than
//! a part of it and some slack. What grew with the run in the second third has grown by two thirds in the last. The
//! history is kept for ever, so its bytes are shown and not judged; but of its parts there may be only some for each
//! power of eight.

use std::collections::BTreeMap;

use super::figure::Figure;
use super::sample::Sample;

/// The part of a figure by which it may exceed itself, in hundredths.
const GROWTH_MAX: u64 = 15;
/// Fewer samples say nothing.
const SAMPLES_MIN: usize = 9;
/// Parts of the history for each power of eight in the commits, in units of [`HISTORY_UNIT`].
const HISTORY_PARTS: u64 = 9;
/// Commits of the smallest parts that are told apart.
const HISTORY_UNIT: u64 = 1_000;

/// What grows, and what is more than it may be.
pub fn judge(samples: &[Sample]) -> Vec<String> {
    if samples.len() < SAMPLES_MIN {
        return vec![format!("{} samples say nothing", samples.len())];
    }
    let third = samples.len() / 3;
    let (before, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let mut found = Vec::new();
    for figure in Figure::ALL {
        let Some(slack) = figure.slack() else { continue };
        let (was, is) = (median(before, figure), median(last, figure));
        if is > was + was * GROWTH_MAX / 100 + slack {
            found.push(format!("{figure}: {was} in the second third of the run, {is} in the last"));
        }
    }
    if !found.is_empty() {
        found.push(format!("records of the map by kind: {}", kinds(before, last)));
    }
    for sample in samples {
        let parts = sample.figures.get(&Figure::HistoryParts).copied().unwrap_or_default();
        let powers = u64::from((sample.commits / HISTORY_UNIT).max(1).ilog(8)) + 2;
        if parts > HISTORY_PARTS * powers {
            found.push(format!("the history has {parts} parts after {} commits", sample.commits));
            break;
        }
    }
    found
}

fn median(samples: &[Sample], figure: Figure) -> u64 {
    let mut values: Vec<u64> =
        samples.iter().map(|sample| sample.figures.get(&figure).copied().unwrap_or_default()).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The kinds of records of which there are more in the last sample than in that of the third before.
fn kinds(before: &[Sample], last: &[Sample]) -> String {
    let of = |samples: &[Sample]| samples.last().map(|sample| sample.kinds.clone()).unwrap_or_default();
    let (before, last): (BTreeMap<u8, u64>, BTreeMap<u8, u64>) = (of(before), of(last));
    let grown = last.iter().filter(|(kind, count)| before.get(kind).is_none_or(|before| *count > before));
    let shown = grown.map(|(kind, count)| {
        format!("{kind}: {} and {count}", before.get(kind).copied().unwrap_or_default())
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixty samples of a run, of which this figure has this value at each.
    fn series(figure: Figure, value: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |at: u64| {
            let mut figures: BTreeMap<Figure, u64> = Figure::ALL.map(|figure| (figure, 10)).into();
            figures.insert(figure, value(at));
            Sample { commits: (at + 1) * 1_000, figures, kinds: BTreeMap::new() }
        };
        (0..60).map(sample).collect()
    }

    #[test]
    fn what_stands_still_or_swings_is_no_growth() {
        assert_eq!(judge(&series(Figure::Extents, |_| 5_000)), Vec::<String>::new());
        assert_eq!(judge(&series(Figure::Extents, |at| 5_000 + at * 997 % 1_000)), Vec::<String>::new());
        // It grows until the first records go.
        assert_eq!(judge(&series(Figure::MapRecords, |at| at.min(10) * 1_000)), Vec::<String>::new());
        assert_eq!(judge(&series(Figure::HistoryBytes, |at| at * 1_000)), Vec::<String>::new());
    }

    #[test]
    fn what_grows_with_the_run_is_found_whatever_it_is() {
        for figure in Figure::ALL.into_iter().filter(|figure| figure.slack().is_some()) {
            let slack = figure.slack().unwrap_or_default();
            let found = judge(&series(figure, |at| 50 * slack + slack * at));
            assert!(found.iter().any(|what| what.starts_with(&figure.to_string())), "{figure}: {found:?}");
        }
        // Half of it stands still.
        assert!(!judge(&series(Figure::Objects, |at| 3_000 + at * 100)).is_empty());
    }

    #[test]
    fn a_history_of_many_parts_is_found() {
        assert!(!judge(&series(Figure::HistoryParts, |_| 60)).is_empty());
        assert!(!judge(&series(Figure::HistoryParts, |_| 20)[..5]).is_empty(), "a few samples");
    }
}
