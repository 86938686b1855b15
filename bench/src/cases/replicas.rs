//! Three replicas beside one, in the same cluster, taking turns: what replication costs.

use anyhow::Result;

use super::{KIB, MIB, batch_options, size};
use crate::{
    Plan,
    client::Load,
    cluster::Cluster,
    report::{Goal, Measure},
};

/// What a run cost the nodes.
struct Run {
    load: Load,
    /// Cores that the three nodes kept busy.
    cores: f64,
    /// Bytes that they wrote to the disk for each byte of payload.
    written: f64,
}

/// Rates of packed batches with quorum fsync. The client talks to the leader, so that nothing is forwarded.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let directory = plan.workspace.directory()?;
    let cluster = Cluster::start(&plan.workspace, directory.path(), &[])?;
    let client = cluster.client(&plan.workspace);
    client.create_placed("single", 1, 1)?;
    client.create_placed("triple", 1, 3)?;
    let mut measures = measure_size(plan, &cluster, MIB)?;
    measures.extend(measure_size(plan, &cluster, 64 * KIB)?);
    Ok(measures)
}

fn measure_size(plan: &Plan, cluster: &Cluster, bytes: usize) -> Result<Vec<Measure>> {
    let (mut single, mut triple) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        single.push(run(plan, cluster, "single", bytes)?);
        triple.push(run(plan, cluster, "triple", bytes)?);
    }
    let ratios = triple.iter().zip(&single);
    let ratios =
        ratios.map(|(triple, single)| triple.load.bytes_per_second / single.load.bytes_per_second);
    let name = format!("batches of {}, RF 3", size(bytes));
    let mut measures = vec![
        Measure::new(format!("{name}, rate"), "x RF 1", ratios.collect()).goal(Goal::AtLeast(0.3)),
    ];
    for (replicas, runs) in [(1, &single), (3, &triple)] {
        let name = format!("batches of {}, RF {replicas}", size(bytes));
        let of = |figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<f64>>();
        let p99: Result<Vec<f64>> = runs.iter().map(|run| Ok(run.load.latency()?.p99)).collect();
        measures.extend([
            Measure::new(
                format!("{name}, rate"),
                "MB/s",
                of(|run| run.load.bytes_per_second / 1e6),
            ),
            Measure::new(format!("{name}, ack p99"), "ms", p99?),
            Measure::new(
                format!("{name}, CPU of the nodes"),
                "cores",
                of(|run| run.cores),
            ),
            Measure::new(
                format!("{name}, written by the nodes"),
                "x payload",
                of(|run| run.written),
            ),
        ]);
    }
    Ok(measures)
}

fn run(plan: &Plan, cluster: &Cluster, topic: &str, bytes: usize) -> Result<Run> {
    let options = batch_options(bytes);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let client = cluster.client(&plan.workspace).of_leader(topic)?;
    let (cpu, written) = (cluster.cpu()?, cluster.written()?);
    let started = std::time::Instant::now();
    let load = client.load(topic, plan.run, &options)?;
    let elapsed = started.elapsed().as_secs_f64();
    Ok(Run {
        cores: (cluster.cpu()? - cpu).as_secs_f64() / elapsed,
        written: (cluster.written()? - written) as f64 / load.bytes_total as f64,
        load,
    })
}
