//! A small stand-in for the crate `base2histogram`, as far as openraft uses it: it takes the other's place by
//! `[patch.crates-io]`.
//!
//! Why: the original fills look-up tables of 27 MB in every process that makes one histogram, two thirds of what an
//! idle node may take, and each openraft group has fifteen histograms of 2 KiB that nobody of ours reads. Here a
//! value costs nothing but its bucket, and a histogram nothing before its first value. Remove it when the original
//! no longer needs those tables.

use std::{fmt, marker::PhantomData};

/// Buckets for each power of two.
const STEPS: u64 = 4;
/// Values below this have a bucket each.
const EXACT: u64 = 2 * STEPS;

/// Counts of values in buckets whose width is at most a quarter of their value.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    total: u64,
    marker: PhantomData<T>,
}

/// Some percentiles of a histogram: lower bounds of the buckets that they fall in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the names of the fields say which percentile they are"
)]
pub struct PercentileStats {
    /// Number of values.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            ..
        } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99}")
    }
}

impl<T> Histogram<T> {
    /// Makes an empty histogram.
    pub fn new() -> Self {
        Self {
            counts: Vec::new(),
            total: 0,
            marker: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = bucket_of(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
        self.total = self.total.saturating_add(times);
    }

    /// The usual percentiles; all 0 of an empty histogram.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.per_mille(1),
            p1: self.per_mille(10),
            p5: self.per_mille(50),
            p10: self.per_mille(100),
            p50: self.per_mille(500),
            p90: self.per_mille(900),
            p99: self.per_mille(990),
            p99_9: self.per_mille(999),
        }
    }

    /// Lower bound of the bucket up to which at least so many thousandths of the values lie.
    fn per_mille(&self, per_mille: u128) -> u64 {
        let wanted = (u128::from(self.total) * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted && seen > 0 {
                return lower_bound(bucket);
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percentile_stats().fmt(f)
    }
}

fn bucket_of(value: u64) -> usize {
    let bucket = if value < EXACT {
        value
    } else {
        let power = u64::from(value.ilog2());
        let step = (value >> (power - u64::from(STEPS.ilog2()))) - STEPS;
        (power - 1) * STEPS + step
    };
    // At most 62 powers of four steps.
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn lower_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let power = bucket / STEPS + 1;
    (STEPS + bucket % STEPS) << (power - u64::from(STEPS.ilog2()))
}

/// Named histograms, to be shown together.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Makes an empty chart.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram.
    #[must_use]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "openraft calls the original's signature"
    )]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        let stats = histogram.percentile_stats();
        self.rows.push((name.into(), stats));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.rows {
            writeln!(f, "{name}: {stats}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_at_most_a_quarter_wide() {
        let mut last = 0;
        for value in (0..100_000).chain((17..64).map(|power| 1 << power)) {
            let bucket = bucket_of(value);
            assert!(bucket >= last, "{value}");
            let low = lower_bound(bucket);
            assert!(low <= value && value - low <= value / 4, "{value} in {low}");
            last = bucket;
        }
        assert!(bucket_of(u64::MAX) < 256);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        for (found, exact) in [
            (stats.p0_1, 1),
            (stats.p50, 500),
            (stats.p99, 990),
            (stats.p99_9, 999),
        ] {
            assert!(
                found <= exact && exact - found <= exact / 4,
                "{found} for {exact}"
            );
        }
    }
}
