//! One producer, one record of 1 KiB in flight: how much the broker adds to the disk's own time.

use anyhow::Result;

use super::{KIB, raw::until};
use crate::{
    Plan,
    broker::Broker,
    raw::{Until, append_and_sync},
    report::{Goal, Measure},
};

/// Records a run, and raw writes a run.
const COUNT: u32 = 2_000;

/// Median ack, alone and beyond the raw disk's median of the same run.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let broker = Broker::start(&plan.workspace, directory.path())?;
    let client = broker.client(&plan.workspace);
    client.create_topic("latency")?;

    let (mut p50, mut p99, mut raw_p50, mut beyond) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        let raw = append_and_sync(
            &plan.workspace,
            KIB,
            Until {
                writes: COUNT,
                ..until(plan)
            },
        )?;
        let acks = client.latency("latency", COUNT)?.latency()?;
        raw_p50.push(raw.p50_ms);
        p50.push(acks.p50);
        p99.push(acks.p99);
        beyond.push(acks.p50 - raw.p50_ms);
    }
    Ok(vec![
        Measure::new(
            "1 KiB, one in flight, ack p50 beyond the raw fdatasync",
            "ms",
            beyond,
        )
        .goal(Goal::AtMost(1.0)),
        Measure::new("1 KiB, one in flight, ack p50", "ms", p50),
        Measure::new("1 KiB, one in flight, ack p99", "ms", p99),
        Measure::new("1 KiB, raw fdatasync p50", "ms", raw_p50),
    ])
}
