//! What was measured, against what was aimed at: a table for people, JSON for programs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::machine::Machine;

/// A benchmark run with everything that is needed to judge and repeat it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    date: String,
    command: String,
    machine: Machine,
    measures: Vec<Measure>,
}

/// One figure, measured several times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
    median: f64,
    goal: Option<Goal>,
    /// Absent where there is no goal.
    met: Option<bool>,
}

/// What a median should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {}", number(bound)),
            Self::AtMost(bound) => format!("at most {}", number(bound)),
        }
    }
}

impl Measure {
    /// A figure of at least one run.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        assert!(!runs.is_empty(), "a figure has been measured at least once");
        let median = median(&runs);
        Self {
            name: name.into(),
            unit,
            runs,
            median,
            goal: None,
            met: None,
        }
    }

    /// The same figure with a goal for its median.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self {
            met: Some(goal.met(self.median)),
            goal: Some(goal),
            ..self
        }
    }

    fn row(&self) -> String {
        let low = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let goal = self.goal.map_or_else(|| "-".to_owned(), Goal::text);
        let met = self
            .met
            .map_or("-", |met| if met { "yes" } else { "**no**" });
        let range = format!("{} to {}", number(low), number(high));
        format!(
            "| {} | {} {} | {range} | {goal} | {met} |\n",
            self.name,
            number(self.median),
            self.unit
        )
    }
}

impl Report {
    /// An empty report; `settings` are the arguments of the program.
    pub(crate) fn new(name: &'static str, machine: Machine, settings: &str) -> Self {
        let command = format!("cargo run --release -p kelda-bench -- {settings}");
        Self {
            name,
            date: String::new(),
            command,
            machine,
            measures: Vec::new(),
        }
    }

    /// Adds what a case measured.
    pub(crate) fn add(&mut self, measures: Vec<Measure>) {
        for measure in &measures {
            eprint!("{}", measure.row());
        }
        self.measures.extend(measures);
    }

    /// The report for people.
    pub(crate) fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!("# Kelda benchmark: {}\n\n", self.name);
        text += &format!(
            "Made by `{}`, after `cargo build --release -p kelda-cli`.\n",
            self.command
        );
        text += "Clients, broker and the raw disk's rig share the machine. Compare ratios, not absolute figures.\n\n";
        text += &format!(
            "- {} cores, {}\n- {} GiB of memory\n",
            machine.cores, machine.processor, machine.memory_gib
        );
        text += &format!(
            "- {}\n- disk: {}; {}\n\n",
            machine.kernel, machine.disk, machine.file_system
        );
        text += "| figure | median | lowest to highest run | goal | met |\n|---|---|---|---|---|\n";
        text.extend(self.measures.iter().map(Measure::row));
        text
    }

    /// Writes the report as JSON and as text, named by date and case.
    pub(crate) fn write(&mut self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).context("cannot make the directory of --results")?;
        self.date = today()?;
        let file = directory.join(format!("{}-{}", self.date, self.name));
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(file.with_extension("json"), json).context("cannot write to --results")?;
        fs::write(file.with_extension("md"), self.markdown())
            .context("cannot write to --results")?;
        Ok(())
    }
}

/// Middle of the runs; of an even number, the mean of the two in the middle.
fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Three digits that count, without an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 || size == value.trunc().abs() => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The date in UTC, from the system's own program: it is a file's name, not a measurement.
fn today() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .context("cannot run date")?;
    ensure!(output.status.success(), "date failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_runs_is_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let measure = Measure::new("rate", "x", vec![0.1, 0.7, 0.8]);
        assert_eq!(measure.clone().goal(Goal::AtLeast(0.6)).met, Some(true));
        assert_eq!(measure.clone().goal(Goal::AtMost(0.6)).met, Some(false));
        assert_eq!(measure.met, None);
    }

    #[test]
    fn a_row_says_when_a_goal_is_missed() {
        let row = Measure::new("rate", "x", vec![0.5])
            .goal(Goal::AtLeast(0.6))
            .row();
        assert_eq!(
            row,
            "| rate | 0.500 x | 0.500 to 0.500 | at least 0.600 | **no** |\n"
        );
    }

    #[test]
    fn numbers_keep_about_three_digits() {
        assert_eq!(number(35_000.4), "35000");
        assert_eq!(number(123.456), "123.5");
        assert_eq!(number(1.256), "1.26");
        assert_eq!(number(0.0123), "0.012");
        assert_eq!(number(0.0), "0");
    }
}
