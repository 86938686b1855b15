//! The long run of faults, `make chaos`: each fault of the list many times on clusters under load, with a report.
//!
//! `make chaos CHAOS="[--scale FACTOR] [--results DIRECTORY] [KIND]..."`. Without kinds all are injected, as often as
//! they say, times the factor. Exit code 1 means that something was lost, or that a fault was never really there.

mod support;

#[path = "cluster/faults/mod.rs"]
mod faults;
/// As the benchmarks describe it.
#[allow(unused_imports, reason = "its tests are run with the benchmarks")]
#[path = "../bench/src/machine.rs"]
mod machine;

mod long_run {
    pub(crate) mod arguments;
    pub(crate) mod report;
    pub(crate) mod tally;
}

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

use futures::FutureExt as _;

use faults::{Kind, Outcome, Stage};
use long_run::{arguments::Arguments, report::Report, tally::Tally};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    // It is built with all other tests, and called with what is meant for them.
    if arguments.next().as_deref() != Some("inject-faults") {
        println!("the long run of faults is `make chaos`");
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse(arguments)?;
    let machine = machine::describe(&std::env::temp_dir())?;
    let mut report = Report::new(machine, &arguments);
    for kind in &arguments.kinds {
        let tally = run(*kind, arguments.count(*kind)).await;
        report.add(tally);
        // After each kind, so that a run that is stopped has told what it has found.
        report.write(&arguments.results)?;
    }
    print!("{}", report.markdown());
    Ok(if report.faults().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Injects a fault many times, on several clusters one after the other.
async fn run(kind: Kind, count: u32) -> Tally {
    let mut tally = Tally::new(kind, count);
    let started = Instant::now();
    while tally.injected < count {
        let left = (count - tally.injected).min(kind.count_per_cluster());
        let ended = AssertUnwindSafe(stage(kind, left, tally.injected, count));
        // What never recovers panics, and says why on standard error. The other kinds are still worth a try.
        match ended.catch_unwind().await {
            Ok(Some(outcome)) => tally.add(outcome),
            Ok(None) => tally.fail("this user can not make networks: run it as root"),
            Err(_) => tally.fail("a cluster did not recover: standard error says how"),
        }
        if tally.has_failed() {
            break;
        }
    }
    tally.seconds = started.elapsed().as_secs();
    tally
}

async fn stage(kind: Kind, count: u32, done: u32, planned: u32) -> Option<Outcome> {
    let mut stage = Stage::start(kind, kind.lasts()).await?;
    for number in 1..=count {
        let seen = stage.gaps().len();
        stage.inject(kind).await;
        let gaps = stage.gaps()[seen..].iter();
        let gaps: Vec<_> = gaps
            .map(|gap| format!("{:.3} s", gap.as_secs_f64()))
            .collect();
        println!(
            "{} {}/{planned}: gap {}, {} records acknowledged",
            kind.name(),
            done + number,
            gaps.join(", "),
            stage.acknowledged()
        );
    }
    Some(stage.finish().await)
}
