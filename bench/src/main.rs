//! Measures Kelda beside the raw disk of the same machine in the same run, and writes `bench/results/`.
//!
//! Broker and clients are the real `kelda` binary, each a process of its own. Runs of Kelda and of the raw disk take
//! turns, so that a disk that gets slower gets slower for both. Only ratios travel from one machine to another.
//! Start reading at `cases/mod.rs`.

mod broker;
mod cases;
mod client;
mod cluster;
mod machine;
mod process;
mod raw;
mod report;
mod workspace;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{cases::Case, report::Report, workspace::Workspace};

/// Measures Kelda beside the raw disk and writes bench/results/.
#[derive(Debug, Parser)]
#[command(name = "kelda-bench", version)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = Case::All)]
    case: Case,
    /// The binary to measure [default: `kelda` beside this program]
    #[arg(long)]
    kelda: Option<PathBuf>,
    /// Where data is written: a directory on the disk that is to be measured
    #[arg(long, default_value = "target")]
    disk: PathBuf,
    /// Where results are written; nothing is written with `-`
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// How often each figure is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=101))]
    repeat: u32,
    /// How long one run under load takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How long the idle node is watched
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle_seconds: u64,
    /// How much is stored before the restart, in MiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    restart_mib: u64,
}

/// What every case needs to know.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where to run.
    pub(crate) workspace: Workspace,
    /// Runs per figure.
    pub(crate) repeat: u32,
    /// Length of one run under load.
    pub(crate) run: Duration,
    /// Length of the idle watch.
    pub(crate) idle: Duration,
    /// Payload to store before the restart.
    pub(crate) restart_bytes: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kelda = match &arguments.kelda {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("kelda"),
    };
    let plan = Plan {
        workspace: Workspace::new(kelda, arguments.disk.clone())?,
        repeat: arguments.repeat,
        run: Duration::from_secs(arguments.seconds),
        idle: Duration::from_secs(arguments.idle_seconds),
        restart_bytes: arguments.restart_mib << 20,
    };
    let machine = machine::describe(&arguments.disk).context("cannot describe this machine")?;
    let mut report = Report::new(arguments.case.name(), machine, &arguments.settings());
    for case in arguments.case.each() {
        eprintln!("== {}", case.name());
        report.add(
            case.measure(&plan)
                .with_context(|| format!("{} cannot be measured", case.name()))?,
        );
    }
    println!("{}", report.markdown());
    if arguments.results.as_os_str() != "-" {
        report.write(&arguments.results)?;
    }
    Ok(())
}

impl Arguments {
    /// The options that decide about the figures, as they were in force.
    fn settings(&self) -> String {
        format!(
            "{} --repeat {} --seconds {} --idle-seconds {} --restart-mib {}",
            self.case.name(),
            self.repeat,
            self.seconds,
            self.idle_seconds,
            self.restart_mib
        )
    }
}
