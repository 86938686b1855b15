//! Counting while a measurement runs, and the report at its end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    failure::{Exit, Failure},
    output::{Output, pairs},
    parse::size,
};

/// Longest latency that is told apart, in microseconds: 100 s.
const LATENCY_MAX_MICROSECONDS: u64 = 100_000_000;

/// The time that counts: what is acknowledged before it warms up, what comes behind it drains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    start: Instant,
    end: Instant,
}

impl Window {
    /// A window that opens after the warm-up.
    pub(super) fn after(warm_up: Duration, length: Duration) -> Self {
        let start = Instant::now() + warm_up;
        Self {
            start,
            end: start + length,
        }
    }

    /// Whether the time is over.
    pub(super) fn is_over(self, now: Instant) -> bool {
        now >= self.end
    }

    /// Its length.
    pub(super) fn length(self) -> Duration {
        self.end - self.start
    }

    fn contains(self, now: Instant) -> bool {
        (self.start..self.end).contains(&now)
    }
}

/// What was counted, by one task or by all of them.
#[derive(Debug)]
pub(super) struct Tally {
    records: u64,
    bytes: u64,
    records_total: u64,
    bytes_total: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Histogram<u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        let latencies =
            Histogram::new_with_max(LATENCY_MAX_MICROSECONDS, 3).expect("the bounds are valid");
        Self {
            records: 0,
            bytes: 0,
            records_total: 0,
            bytes_total: 0,
            errors: 0,
            first_error: None,
            latencies,
        }
    }

    /// Counts records that are done now, inside the window or not.
    pub(super) fn done(
        &mut self,
        window: Window,
        records: u64,
        bytes: u64,
        since: Option<Instant>,
    ) {
        self.records_total += records;
        self.bytes_total += bytes;
        let now = Instant::now();
        if !window.contains(now) {
            return;
        }
        self.records += records;
        self.bytes += bytes;
        if let Some(since) = since {
            self.latency(now - since);
        }
    }

    /// Counts records outside any window.
    pub(super) fn count(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        self.records_total += records;
        self.bytes_total += bytes;
    }

    /// Counts a latency alone.
    pub(super) fn latency(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(microseconds);
    }

    /// Counts a failure.
    pub(super) fn error(&mut self, error: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.into());
    }

    /// Adds what another task has counted.
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.records_total += other.records_total;
        self.bytes_total += other.bytes_total;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latencies
            .add(other.latencies)
            .expect("both histograms have the same bounds");
    }

    /// The report on what was counted in this time.
    pub(super) fn report(self, time: Duration) -> Report {
        let seconds = time.as_secs_f64();
        let rate = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        Report {
            records: self.records,
            bytes: self.bytes,
            seconds,
            records_per_second: rate(self.records),
            bytes_per_second: rate(self.bytes),
            latency_ms: (!self.latencies.is_empty()).then(|| Latency::of(&self.latencies)),
            records_total: self.records_total,
            bytes_total: self.bytes_total,
            errors: self.errors,
            first_error: self.first_error,
        }
    }
}

/// What a measurement found. `bytes` counts the records' values, or packed bytes where records are not unpacked.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
    latency_ms: Option<Latency>,
    /// With those of the warm-up and of the end.
    records_total: u64,
    bytes_total: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max() as f64 / 1_000.0,
        }
    }
}

impl Report {
    /// Prints the report; errors make the command fail.
    pub(super) fn finish(self, output: Output) -> Result<(), Failure> {
        output.print(&self, Self::text)?;
        match self.first_error {
            None => Ok(()),
            Some(error) => {
                let message = format!("{} operations failed, the first with: {error}", self.errors);
                Err(Failure::new(Exit::Unacknowledged, message))
            }
        }
    }

    fn text(&self) -> String {
        let bytes_per_second = self.bytes_per_second as i64;
        let mut lines = vec![
            (
                "records",
                format!("{} in {:.2} s", self.records, self.seconds),
            ),
            (
                "rate",
                format!(
                    "{:.0} records/s, {}/s",
                    self.records_per_second,
                    size::human(bytes_per_second)
                ),
            ),
        ];
        if let Some(Latency {
            p50,
            p90,
            p99,
            p999,
            max,
        }) = &self.latency_ms
        {
            let text = format!(
                "p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2} ms"
            );
            lines.push(("latency", text));
        }
        lines.push(("errors", self.errors.to_string()));
        pairs(&lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_is_measured_but_all_is_counted() {
        let over = Window::after(Duration::ZERO, Duration::ZERO);
        let open = Window::after(Duration::ZERO, Duration::from_secs(3_600));
        let mut tally = Tally::new();
        tally.done(over, 5, 500, Some(Instant::now()));
        tally.done(open, 2, 200, Some(Instant::now()));
        let report = tally.report(Duration::from_secs(2));
        assert_eq!(
            (report.records, report.bytes, report.records_total),
            (2, 200, 7)
        );
        assert!((report.records_per_second - 1.0).abs() < 1e-9);
    }

    #[test]
    fn tallies_add_up_and_keep_the_first_error() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        one.count(1, 10);
        two.count(2, 20);
        two.error("refused");
        two.latency(Duration::from_millis(3));
        one.add(two);
        let report = one.report(Duration::from_secs(1));
        assert_eq!((report.records, report.bytes, report.errors), (3, 30, 1));
        assert_eq!(report.first_error.as_deref(), Some("refused"));
        let p50 = report.latency_ms.expect("a latency was recorded").p50;
        assert!((2.9..3.1).contains(&p50), "{p50}");
    }
}
