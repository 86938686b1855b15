//! Packed batches, fsynced acks, several in flight, beside the raw disk.

use anyhow::Result;

use super::{KIB, MIB, batch_options, raw::until, size};
use crate::{
    Plan,
    broker::Broker,
    raw::append_and_sync,
    report::{Goal, Measure},
};

/// Rates as multiples of what the raw disk did just before.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut measures = measure_size(plan, MIB, Goal::AtLeast(0.6))?;
    measures.extend(measure_size(plan, 64 * KIB, Goal::AtLeast(1.0))?);
    Ok(measures)
}

fn measure_size(plan: &Plan, bytes: usize, goal: Goal) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("batches")?;
    let options = batch_options(bytes);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();

    let (mut ratios, mut rates, mut p50, mut p99) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        let raw = append_and_sync(&plan.workspace, bytes, until(plan))?;
        let load = client.load("batches", plan.run, &options)?;
        ratios.push(load.bytes_per_second / raw.bytes_per_second);
        rates.push(load.bytes_per_second / 1e6);
        p50.push(load.latency()?.p50);
        p99.push(load.latency()?.p99);
    }
    let peak = broker.memory()?.resident_peak as f64 / 1e6;
    let name = format!("batches of {}", size(bytes));
    Ok(vec![
        Measure::new(format!("{name}, rate"), "x raw", ratios).goal(goal),
        Measure::new(format!("{name}, rate"), "MB/s", rates),
        Measure::new(format!("{name}, ack p50"), "ms", p50),
        Measure::new(format!("{name}, ack p99"), "ms", p99),
        Measure::new(format!("{name}, broker's peak memory"), "MB", vec![peak]),
    ])
}
