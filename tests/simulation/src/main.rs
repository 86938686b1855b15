//! Runs seeds of the simulation and says what came of them:
//!
//! ```text
//! kelda-simulation SEEDS [--faults mixed|power] [--from SEED] [--report FILE]
//! kelda-simulation trace SEED [--faults mixed|power]
//! ```
//!
//! Each seed is a run of its own, see `run.rs`; what may go wrong is in `schedule.rs`, what must hold in
//! `invariants.rs`, `world.rs` and the checker. A seed that fails becomes a test in `named.rs`.

// The checker is for tests, and says when it is used wrongly by a panic.
#[path = "../../support/checker/mod.rs"]
mod checker;
mod client;
#[path = "../../../server/src/storage/tests/disk.rs"]
mod disk;
mod invariants;
mod keeper;
#[cfg(test)]
mod named;
mod network;
mod node;
mod options;
mod panics;
mod report;
mod run;
mod schedule;
mod trace;
mod watching;
mod world;

use std::process::ExitCode;

use options::{Command, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("kelda-simulation: {error}");
            return ExitCode::from(2);
        }
    };
    panics::record();
    match options.command {
        Command::Trace(seed) => {
            let outcome = run::run(seed, options.faults, true);
            println!("{outcome:#?}");
            ExitCode::from(u8::from(!outcome.violations.is_empty()))
        }
        Command::Seeds { from, count } => {
            let report = report::run(options.faults, from, count);
            print!("{report}");
            if let Some(path) = options.report
                && let Err(error) = report.append_to(&path)
            {
                eprintln!("kelda-simulation: {}: {error}", path.display());
                return ExitCode::from(2);
            }
            ExitCode::from(u8::from(!report.is_valid()))
        }
    }
}
