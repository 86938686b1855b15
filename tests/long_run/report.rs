//! The report: a table for people, JSON for programs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use super::{arguments::Arguments, tally::Tally};
use crate::{faults::Kind, machine::Machine};

/// Longest gap in seconds that a share of the faults of a kind may leave.
const GOALS: [(Kind, &str, f64, f64); 3] = [
    (Kind::KillLeader, "p50", 0.5, 1.5),
    (Kind::KillLeader, "p99", 0.99, 3.0),
    (Kind::Roll, "p99", 0.99, 0.3),
];

/// A run.
pub(crate) struct Report {
    machine: Machine,
    command: String,
    tallies: Vec<Tally>,
}

impl Report {
    pub(crate) fn new(machine: Machine, arguments: &Arguments) -> Self {
        let command = match arguments.given.as_str() {
            "" => "make chaos".to_owned(),
            given => format!("make chaos CHAOS=\"{given}\""),
        };
        Self {
            machine,
            command,
            tallies: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, tally: Tally) {
        self.tallies.push(tally);
    }

    /// Why the run has not passed.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.tallies.iter().flat_map(Tally::faults).collect()
    }

    /// Writes both forms, named by date.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory).context("cannot make the directory of --results")?;
        let date = today()?;
        let file = directory.join(format!("{date}-chaos"));
        let json = serde_json::to_string_pretty(&self.json(&date))? + "\n";
        fs::write(file.with_extension("json"), json).context("cannot write to --results")?;
        fs::write(file.with_extension("md"), self.markdown())
            .context("cannot write to --results")?;
        Ok(())
    }

    fn json(&self, date: &str) -> Json {
        json!({
            "name": "chaos",
            "date": date,
            "command": self.command,
            "machine": self.machine,
            "kinds": self.tallies.iter().map(Tally::json).collect::<Vec<_>>(),
            "violations": self.tallies.iter().map(Tally::violations).sum::<usize>(),
            "faults": self.faults(),
        })
    }

    pub(crate) fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = String::from("# Kelda under faults\n\n");
        text += &format!(
            "Made by `{}`. Three nodes, three partitions with three replicas each, and all clients share the machine.\n\n",
            self.command
        );
        text += &format!(
            "- {} cores, {}\n- {} GiB of memory\n- {}\n- disk: {}; {}\n\n",
            machine.cores,
            machine.processor,
            machine.memory_gib,
            machine.kernel,
            machine.disk,
            machine.file_system
        );
        text += "The gap is the time from a fault to the first acknowledgement that each of three retrying producers gets for an attempt that it began after the fault; that of the slowest counts. For `roll` it is that of stopping a leader in order; for `grow` there is one each for joining, draining, and leaving.\n\n";
        text += "| fault | injected | operations ok | failed | unknown | ok outside of faults | violations | repeats stored once | entries compared | gap p50 | gap p99 | longest | minutes |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
        text.extend(self.tallies.iter().map(row));
        text += "\n| goal | reached | met |\n|---|---|---|\n";
        text.extend(GOALS.iter().filter_map(|goal| self.goal(goal)));
        text += "\n";
        let faults = self.faults();
        if faults.is_empty() {
            text += "Nothing was lost, doubled, reordered or invented, and all replicas agree.\n";
        }
        text.extend(faults.iter().map(|fault| format!("- **{fault}**\n")));
        text
    }

    fn goal(&self, (kind, name, share, most): &(Kind, &str, f64, f64)) -> Option<String> {
        let tally = self.tallies.iter().find(|tally| tally.kind == *kind)?;
        let gap = tally.gap(*share)?;
        let met = if gap <= *most { "yes" } else { "**no**" };
        let kind = kind.name();
        Some(format!(
            "| {kind}, gap {name} at most {most} s | {gap:.3} s | {met} |\n"
        ))
    }
}

fn row(tally: &Tally) -> String {
    let seconds =
        |gap: Option<f64>| gap.map_or_else(|| "-".to_owned(), |gap| format!("{gap:.3} s"));
    format!(
        "| {} | {} of {} | {} | {} | {} | {:.1} % | {} | {} | {} | {} | {} | {} | {:.1} |\n",
        tally.kind.name(),
        tally.injected,
        tally.planned,
        tally.all.ok,
        tally.all.failed,
        tally.all.unknown,
        tally.calm_ok() * 100.0,
        tally.violations(),
        tally.repeats,
        tally.compared,
        seconds(tally.gap(0.5)),
        seconds(tally.gap(0.99)),
        seconds(tally.gap(1.0)),
        tally.seconds as f64 / 60.0
    )
}

/// The date in UTC, from the system's own program: it is a file's name, not a measurement.
fn today() -> anyhow::Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    let output = output.context("cannot run date")?;
    ensure!(output.status.success(), "date failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
