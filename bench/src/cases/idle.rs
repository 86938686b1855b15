//! A node that has nothing to do.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    Plan,
    broker::Broker,
    report::{Goal, Measure},
};

/// After the last call, until the node counts as idle.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory and CPU of a node with one topic that was used once.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("idle")?;
    client.produce_one("idle")?;
    thread::sleep(SETTLE);

    let before = broker.cpu()?;
    thread::sleep(plan.idle);
    let used = broker.cpu()? - before;
    let resident = broker.memory()?.resident as f64 / 1e6;
    let percent = used.as_secs_f64() / plan.idle.as_secs_f64() * 100.0;
    let name = format!("idle node over {} s", plan.idle.as_secs());
    Ok(vec![
        Measure::new(format!("{name}, memory"), "MB", vec![resident]).goal(Goal::AtMost(35.0)),
        Measure::new(format!("{name}, CPU"), "% of a core", vec![percent]).goal(Goal::AtMost(0.3)),
    ])
}
