//! Bytes on the disk for each byte of payload.

use anyhow::Result;

use super::{KIB, MIB, UNARY_OPTIONS, batch_options, size};
use crate::{
    Plan,
    broker::Broker,
    report::{Goal, Measure},
    workspace::occupied_bytes,
};

/// Disk blocks used per payload byte, for batches and for small records under load.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    for bytes in [MIB, 64 * KIB] {
        let options = batch_options(bytes);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let name = format!("disk per payload byte, batches of {}", size(bytes));
        measures
            .push(Measure::new(name, "B/B", vec![factor(plan, &options)?]).goal(Goal::AtMost(1.3)));
    }
    let name = "disk per payload byte, 200 producers of 50 B a call";
    measures.push(
        Measure::new(name, "B/B", vec![factor(plan, &UNARY_OPTIONS)?]).goal(Goal::AtMost(3.0)),
    );
    Ok(measures)
}

/// One load, long enough that what an empty database takes does not count.
fn factor(plan: &Plan, options: &[&str]) -> Result<f64> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("space")?;
    let load = client.load("space", plan.run * 2, options)?;
    Ok(occupied_bytes(&directory.path().join("data"))? as f64 / load.bytes_total as f64)
}
