//! Which small files are merged next: a pure function.
//!
//! Files are in the order of the stream, and a merge takes neighbours. So the rows of a partition stay in the order of
//! their offsets in every file. Large files stand aside: they are never merged, and they do not part neighbours.
//!
//! A file has a level, the logarithm of its rows. Rows become neither more nor fewer by merging, so the level of a row
//! only rises. There are three reasons to merge, in this order:
//!
//! 1. **Whole.** The oldest small files are enough for a large one. Their rows are not written again.
//! 2. **Tier.** [`Sizes::fan_in`] files of one level, with no higher one between them. Their rows rise by a level.
//! 3. **Stuck.** As many files stand before younger files of a higher level, so they have no neighbours of their own
//!    level. The oldest of them and the ones behind it are merged with the first of a higher level. That one rises only
//!    in size, but it is no neighbour of lower files before it any more.
//!
//! So, with `n` levels, a table has fewer than `fan_in * (n + 1)` small files, which together are smaller than a large
//! one, and a row is written again at most `2 n + 1` times, and about `n` times in a steady stream. `n` is the
//! logarithm of the rows of a large file, to the base `fan_in`.
//!
//! Sort orders and partitions will make groups of their own: this function is asked for one group at a time.

use std::ops::Range;

use crate::{limits, small::SmallFile};

/// The sizes that merging aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes of a file that readers like.
    pub(crate) target: u64,
    /// Files of one level that become one, at least 2.
    pub(crate) fan_in: usize,
}

impl Sizes {
    /// A file with fewer bytes is small.
    pub(crate) fn small_bytes(self) -> u64 {
        self.target / 2
    }

    /// Bytes at which a merge takes no more files. What becomes of them is large, unless merging saves a third.
    fn enough_bytes(self) -> u64 {
        self.target / 4 * 3
    }

    fn level(self, file: &SmallFile) -> u32 {
        file.rows.max(1).ilog(self.fan_in.max(2) as u64)
    }
}

/// The small files that are merged next, at least two, if any are. `files` are all small ones, in the order of the
/// stream.
pub(crate) fn next(files: &[SmallFile], sizes: Sizes) -> Option<Range<usize>> {
    let levels: Vec<u32> = files.iter().map(|file| sizes.level(file)).collect();
    let found = whole(files, sizes).or_else(|| tier(files, &levels, sizes));
    let mut found = found.or_else(|| stuck(&levels, sizes))?;
    // Files of one commit have one sequence number, and the merged file takes the last. None of them may stay behind
    // it, because it would be taken for an older one.
    while found.end < files.len() && files[found.end].sequence_number == files[found.end - 1].sequence_number
    {
        found.end += 1;
    }
    Some(found)
}

/// As many files from the begin of `run` as one merge takes, and whether they are enough for a large one.
fn take(files: &[SmallFile], run: Range<usize>, sizes: Sizes) -> (Range<usize>, bool) {
    let (mut end, mut bytes) = (run.start, 0);
    while end < run.end && end - run.start < limits::MERGE_FILES_MAX && bytes < sizes.enough_bytes() {
        bytes += files[end].bytes;
        end += 1;
    }
    // One alone is small, so it is not enough.
    (run.start..end, bytes >= sizes.enough_bytes())
}

fn whole(files: &[SmallFile], sizes: Sizes) -> Option<Range<usize>> {
    let (taken, is_enough) = take(files, 0..files.len(), sizes);
    is_enough.then_some(taken)
}

fn tier(files: &[SmallFile], levels: &[u32], sizes: Sizes) -> Option<Range<usize>> {
    for level in 0..=levels.iter().copied().max()? {
        let mut start = 0;
        for run in levels.split(|other| *other > level) {
            let whole_run = start..start + run.len();
            start = whole_run.end + 1;
            let (taken, _) = take(files, whole_run, sizes);
            let of_level = levels[taken.clone()].iter().filter(|other| **other == level).count();
            if of_level >= sizes.fan_in {
                return Some(taken);
            }
        }
    }
    None
}

fn stuck(levels: &[u32], sizes: Sizes) -> Option<Range<usize>> {
    let (mut highest, mut count, mut first) = (0, 0, None);
    for (at, level) in levels.iter().enumerate().rev() {
        if *level < highest {
            (count, first) = (count + 1, Some(at));
        }
        highest = highest.max(*level);
    }
    let first = first.filter(|_| count >= sizes.fan_in)?;
    let higher = (first..levels.len()).find(|at| levels[*at] > levels[first]);
    let end = higher.expect("a stuck file has a higher one behind it") + 1;
    Some(first..end.min(first + limits::MERGE_FILES_MAX))
}

#[cfg(test)]
mod tests {
    use floe_env::Env;

    use super::*;

    /// A table as a model: what is in each file, and how often each row was written.
    struct Model {
        sizes: Sizes,
        /// Bytes of a file that do not depend on its rows.
        overhead: u64,
        files: Vec<(SmallFile, Vec<Range<u64>>)>,
        commits: i64,
        rows: u64,
        /// Rows that merges wrote.
        rewritten: u64,
        levels: u32,
    }

    const ROW_BYTES: u64 = 10;

    impl Model {
        fn new(fan_in: usize, target: u64, overhead: u64) -> Model {
            let sizes = Sizes { target, fan_in };
            let levels = (target / ROW_BYTES).ilog(fan_in as u64) + 1;
            Model { sizes, overhead, files: Vec::new(), commits: 0, rows: 0, rewritten: 0, levels }
        }

        fn add(&mut self, number: usize, sequence_number: i64, rows: Vec<Range<u64>>) {
            let count = rows.iter().map(|part| part.end - part.start).sum::<u64>();
            let url = format!("{:010}-{number:05}", self.commits);
            let bytes = self.overhead + count * ROW_BYTES;
            self.files.push((SmallFile { sequence_number, url, bytes, rows: count }, rows));
        }

        /// One commit of so many rows for each of its files.
        fn append(&mut self, files: &[u64]) {
            self.commits += 1;
            for (number, count) in files.iter().enumerate() {
                let rows = self.rows..self.rows + count;
                self.rows = rows.end;
                self.add(number, self.commits, vec![rows]);
            }
        }

        fn small(&self) -> Vec<SmallFile> {
            let small = self.files.iter().filter(|(file, _)| file.bytes < self.sizes.small_bytes());
            let mut small: Vec<SmallFile> = small.map(|(file, _)| file.clone()).collect();
            small.sort();
            small
        }

        /// Merges until nothing is left to do.
        fn settle(&mut self) {
            let mut small = self.small();
            while let Some(range) = next(&small, self.sizes) {
                assert!(range.len() >= 2, "a merge makes fewer files");
                let chosen = &small[range];
                let mut rows = Vec::new();
                for file in chosen {
                    let at = self.files.iter().position(|(known, _)| known == file).expect("it is live");
                    rows.extend(self.files.swap_remove(at).1);
                }
                let last = chosen.last().expect("there are two").sequence_number;
                self.rewritten += chosen.iter().map(|file| file.rows).sum::<u64>();
                self.commits += 1;
                self.add(0, last, rows);
                small = self.small();
            }
        }

        fn check(&self) {
            let mut all: Vec<Range<u64>> = self.files.iter().flat_map(|(_, rows)| rows.clone()).collect();
            all.sort_by_key(|part| part.start);
            let ends: Vec<u64> = std::iter::once(0).chain(all.iter().map(|part| part.end)).collect();
            assert!(all.iter().zip(&ends).all(|(part, end)| part.start == *end), "each row is there once");
            assert_eq!(ends.last(), Some(&self.rows), "each row is there once");
            for (file, rows) in &self.files {
                assert!(
                    rows.is_sorted_by(|a, b| a.end <= b.start),
                    "{file:?} is not in the order of the stream"
                );
            }
            let small = self.small();
            let most = self.sizes.fan_in * (self.levels as usize + 1);
            assert!(small.len() < most, "{} small files, {most} are too many", small.len());
            let bytes: u64 = small.iter().map(|file| file.bytes).sum();
            assert!(bytes < self.sizes.target, "{bytes} bytes in small files");
        }

        /// How often a row was written by merges, on average.
        fn amplification(&self) -> f64 {
            self.rewritten as f64 / self.rows as f64
        }
    }

    #[test]
    fn a_steady_stream_has_few_files_and_is_written_again_once_for_each_level() {
        for (fan_in, rows, overhead) in [(8, 100, 0), (8, 100, 4_000), (8, 1, 0), (2, 7, 0), (4, 1_000, 100)]
        {
            let mut model = Model::new(fan_in, 1 << 20, overhead);
            for commit in 0..4_000 {
                model.append(&[rows]);
                model.settle();
                if commit % 64 == 0 {
                    model.check();
                }
            }
            let levels = f64::from(model.levels);
            assert!(model.amplification() <= levels, "{} with {fan_in} and {rows}", model.amplification());
        }
    }

    #[test]
    fn whatever_comes_the_files_are_few_and_rows_are_rarely_written_again() {
        for seed in 0..24 {
            let env = Env::simulated(seed);
            let below = |n: u64| env.random_u64() % n;
            let fan_in = 2 + below(8) as usize;
            let mut model = Model::new(fan_in, 1 << (14 + below(6)), below(200));
            // Trickles and bursts, and commits of several files.
            let mut exponent = 0;
            for commit in 0..400 {
                if below(5) == 0 {
                    exponent = below(14);
                }
                let files: Vec<u64> = (0..1 + below(10) / 7 * 3).map(|_| 1 + below(1 << exponent)).collect();
                model.append(&files);
                // A broker that was away for a while has more to do.
                if below(20) != 0 || commit == 399 {
                    model.settle();
                    model.check();
                }
            }
            let most = f64::from(2 * model.levels + 1);
            assert!(model.amplification() <= most, "seed {seed}: {}", model.amplification());
        }
    }

    #[test]
    fn many_old_files_are_merged_many_at_a_time() {
        let mut model = Model::new(8, 128 << 20, 4_000);
        for _ in 0..10_000 {
            model.append(&[100]);
        }
        let before = model.commits;
        model.settle();
        model.check();
        assert!(model.commits - before < 60, "{} merges", model.commits - before);
        assert!(model.amplification() < 3.0, "{}", model.amplification());
    }

    #[test]
    fn no_file_of_a_commit_stays_behind_the_others() {
        let file = |sequence_number, rows| SmallFile { sequence_number, url: String::new(), bytes: 1, rows };
        let sizes = Sizes { target: 1 << 20, fan_in: 3 };
        let files = [file(1, 1), file(2, 1), file(3, 1), file(3, 900), file(3, 900), file(4, 1)];
        assert_eq!(next(&files, sizes), Some(0..5));
        assert_eq!(next(&files[3..], sizes), None);
        assert_eq!(next(&[], sizes), None);
    }
}
