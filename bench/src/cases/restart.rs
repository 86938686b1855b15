//! From kill -9 with much stored to serving again.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{MIB, batch_options};
use crate::{
    Plan,
    broker::Broker,
    report::{Goal, Measure},
};

/// Longest that a broker may take until it does what it is asked.
const SERVE_MAX: Duration = Duration::from_secs(120);

/// Time from starting the process again until it has read an old record and acknowledged a new one.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let mut broker = Broker::start(&plan.workspace, directory.path())?;
    broker.client(&plan.workspace).create_topic("stored")?;
    let stored = fill(plan, &broker)?;

    let mut seconds = Vec::new();
    let mut cold = true;
    for _ in 0..plan.repeat {
        broker.kill()?;
        cold &= forget_page_cache();
        broker = Broker::start(&plan.workspace, directory.path())?;
        let client = broker.client(&plan.workspace);
        repeat_until_done(|| client.consume_one("stored"))?;
        repeat_until_done(|| client.produce_one("stored"))?;
        seconds.push(broker.age().as_secs_f64());
    }
    let cache = if cold { "cold" } else { "warm" };
    let gib = stored as f64 / (1024.0 * MIB as f64);
    let name = format!(
        "restart after kill -9 with {gib:.1} GiB stored, page cache {cache}, to read and ack"
    );
    Ok(vec![
        Measure::new(name, "s", seconds).goal(Goal::AtMost(1.0)),
    ])
}

/// Appends until there is as much payload as planned.
fn fill(plan: &Plan, broker: &Broker) -> Result<u64> {
    let client = broker.client(&plan.workspace);
    let options = batch_options(MIB);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut stored = 0;
    while stored < plan.restart_bytes {
        stored += client.load("stored", plan.run, &options)?.bytes_total;
    }
    Ok(stored)
}

/// Repeats what fails while a broker is getting ready.
pub(super) fn repeat_until_done(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > SERVE_MAX => {
                return Err(error)
                    .context(format!("the broker does not serve after {SERVE_MAX:?}"));
            }
            Err(_) => {}
        }
    }
}

/// Makes the kernel read from the disk again, as after a boot. Only root may: false where it could not be done.
fn forget_page_cache() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}
