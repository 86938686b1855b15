//! Many producers that each wait for the fsynced ack of one small record.

use std::time::Instant;

use anyhow::Result;

use super::UNARY_OPTIONS;
use crate::{
    Plan,
    broker::Broker,
    process::cpu_of_ended_children,
    report::{Goal, Measure},
};

/// Rate, tail latency and memory under this load, and who uses the CPU.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("unary")?;

    let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    let (mut broker_cpu, mut client_cpu) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        let before = (Instant::now(), broker.cpu()?, cpu_of_ended_children()?);
        let load = client.load("unary", plan.run, &UNARY_OPTIONS)?;
        let percent = 100.0 / before.0.elapsed().as_secs_f64();
        broker_cpu.push((broker.cpu()? - before.1).as_secs_f64() * percent);
        client_cpu.push((cpu_of_ended_children()? - before.2).as_secs_f64() * percent);
        rates.push(load.records_per_second);
        p50.push(load.latency()?.p50);
        p99.push(load.latency()?.p99);
    }
    let peak = broker.memory()?.resident_peak as f64 / 1e6;
    let name = "200 producers of 50 B a call";
    Ok(vec![
        Measure::new(format!("{name}, rate"), "records/s", rates).goal(Goal::AtLeast(35_000.0)),
        Measure::new(format!("{name}, ack p50"), "ms", p50),
        Measure::new(format!("{name}, ack p99"), "ms", p99).goal(Goal::AtMost(20.0)),
        Measure::new(format!("{name}, broker's peak memory"), "MB", vec![peak])
            .goal(Goal::AtMost(150.0)),
        Measure::new(
            format!("{name}, CPU of the broker"),
            "% of a core",
            broker_cpu,
        ),
        Measure::new(
            format!("{name}, CPU of the clients"),
            "% of a core",
            client_cpu,
        ),
    ])
}
