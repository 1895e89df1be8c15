//! Latencies in a table of fixed size, with two significant digits.
//!
//! Values up to 255 have a bucket each. Above, each power of two is cut into 128 buckets of equal width, so a bucket is
//! less than 1 % of its values wide.
//! ```text
//! value     0 .. 255    256 .. 511    512 .. 1023    ...    2^41 .. 2^42 - 1
//! width         1            2             4                      2^34
//! buckets      256          128           128        ...          128
//! ```

use std::time::Duration;

use crate::bench::limits::LATENCY_BITS_MAX;

/// Buckets of one power of two.
const HALF: usize = 128;
/// log2 of [`HALF`].
const HALF_BITS: u32 = 7;
/// Values below have a bucket each.
const EXACT: u64 = 2 * HALF as u64;
const BUCKETS: usize = HALF * (LATENCY_BITS_MAX - HALF_BITS + 1) as usize;
const VALUE_MAX: u64 = (1 << LATENCY_BITS_MAX) - 1;

/// How often each latency came, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: Box::new([0; BUCKETS]), count: 0, sum_ns: 0, max_ns: 0 }
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let value = value.min(VALUE_MAX);
    if value < EXACT {
        return value as usize;
    }
    let shift = value.ilog2() - HALF_BITS;
    HALF * shift as usize + (value >> shift) as usize
}

/// The largest value of a bucket.
fn last_value(bucket: usize) -> u64 {
    let shift = (bucket / HALF).saturating_sub(1);
    let part = (bucket - HALF * shift) as u64;
    ((part + 1) << shift) - 1
}

impl Histogram {
    /// Counts one latency.
    pub(super) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds the latencies of another one.
    pub(super) fn merge(&mut self, other: &Histogram) {
        for (ours, theirs) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *ours += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest, as it was.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The arithmetic mean; zero without a value.
    pub(super) fn mean(&self) -> Duration {
        let mean = self.sum_ns / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The smallest bucket's end below which `per_mille` thousandths of the values lie; zero without a value.
    pub(super) fn quantile(&self, per_mille: u64) -> Duration {
        assert!(per_mille <= 1_000, "a quantile is at most all values");
        let wanted = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1_000).max(1);
        let mut seen = 0u128;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(last_value(bucket).min(self.max_ns));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|ns| histogram.record(Duration::from_nanos(ns)));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut next = 0;
        for number in 0..BUCKETS {
            let last = last_value(number);
            assert_eq!((bucket(next), bucket(last)), (number, number), "bucket {number}");
            assert!(last - next < 1 + next / 100, "bucket {number} goes from {next} to {last}");
            next = last + 1;
        }
        assert_eq!(next, VALUE_MAX + 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_but_for_one_per_cent() {
        let values: Vec<u64> = (1..=10_000).map(|n| n * n).collect();
        let histogram = of(values.iter().copied());
        for per_mille in [1, 500, 900, 990, 999, 1_000] {
            let exact = values[(values.len() * per_mille as usize).div_ceil(1_000) - 1];
            let got = histogram.quantile(per_mille).as_nanos() as u64;
            assert!(exact <= got && got <= exact + exact / 100, "{per_mille}: {got} for {exact}");
        }
        assert_eq!(histogram.max(), Duration::from_nanos(100_000_000));
        assert_eq!(histogram.quantile(1_000), histogram.max());
        assert_eq!(histogram.mean().as_nanos() as u64, values.iter().sum::<u64>() / 10_000);
    }

    #[test]
    fn nothing_and_one_value_have_quantiles_too() {
        let empty = Histogram::default();
        assert_eq!((empty.quantile(500), empty.mean(), empty.max()), Default::default());
        for ns in [0, 1, 255, 256, 1_234_567, u64::MAX] {
            let one = of([ns]);
            let expected = Duration::from_nanos(ns.min(one.quantile(1).as_nanos() as u64));
            assert_eq!((one.quantile(1), one.quantile(500)), (one.quantile(1_000), expected));
        }
    }

    #[test]
    fn merging_is_counting_together() {
        let mut left = of((0..1_000).map(|n| n * 977));
        left.merge(&of((1_000..3_000).map(|n| n * 977)));
        assert_eq!(left, of((0..3_000).map(|n| n * 977)));
        assert_eq!(left.count(), 3_000);
    }
}
