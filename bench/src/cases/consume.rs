//! Reading what is stored, out of the page cache.

use anyhow::Result;

use super::{KIB, MIB, batch_options, size};
use crate::{
    Plan,
    broker::Broker,
    report::{Goal, Measure},
};

/// Rate of one stream from the start to the end, also as a multiple of the rate at which it was written.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut measures = measure_size(plan, MIB)?;
    measures.extend(measure_size(plan, 64 * KIB)?);
    Ok(measures)
}

fn measure_size(plan: &Plan, bytes: usize) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("stored")?;
    let options = batch_options(bytes);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let written = client.load("stored", plan.run, &options)?;

    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        let read = client.read_to_end("stored")?;
        anyhow::ensure!(
            read.records_total >= written.records_total,
            "{} records were acknowledged, but {} read back",
            written.records_total,
            read.records_total
        );
        rates.push(read.bytes_per_second / 1e9);
        ratios.push(read.bytes_per_second / written.bytes_per_second);
    }
    let name = format!("consume of stored batches of {}", size(bytes));
    Ok(vec![
        Measure::new(format!("{name}, one stream"), "GB/s", rates).goal(Goal::AtLeast(1.0)),
        Measure::new(format!("{name}, one stream"), "x produce", ratios).goal(Goal::AtLeast(3.0)),
    ])
}
