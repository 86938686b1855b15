//! A progress bar on standard error, for those who watch and wait for more than a second.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::parse::size;

/// Whoever waits no longer than this sees nothing.
const PATIENCE: Duration = Duration::from_secs(1);
const WITH_LENGTH: &str = "{bar:30} {bytes}/{total_bytes}, {msg}";
const WITHOUT_LENGTH: &str = "{spinner} {bytes}, {msg}";

/// How far the input has been sent.
pub(super) struct Progress {
    started: Instant,
    bytes_expected: Option<u64>,
    bar: Option<ProgressBar>,
    wanted: bool,
}

impl Progress {
    /// Progress of an input with this many bytes, if that is known.
    pub(super) fn new(bytes_expected: Option<u64>) -> Self {
        Self {
            started: Instant::now(),
            bytes_expected,
            bar: None,
            wanted: io::stderr().is_terminal(),
        }
    }

    /// Shows how many bytes and lines of the input have been sent so far.
    pub(super) fn update(&mut self, bytes: u64, lines: u64) {
        let elapsed = self.started.elapsed();
        if self.bar.is_none() && self.wanted && elapsed > PATIENCE {
            self.bar = Some(self.show());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            // The bar's own rate would count the first second, in which there was no bar, as no time at all.
            let rate = (bytes as f64 / elapsed.as_secs_f64()) as i64;
            bar.set_message(format!("{}/s, {lines} records", size::human(rate)));
        }
    }

    /// Removes the bar.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self) -> ProgressBar {
        let template = if self.bytes_expected.is_some() {
            WITH_LENGTH
        } else {
            WITHOUT_LENGTH
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        let target = ProgressDrawTarget::stderr();
        ProgressBar::with_draw_target(self.bytes_expected, target).with_style(style)
    }
}
