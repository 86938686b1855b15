//! What an idle cluster of three costs by component: as an untuned system that looks and tells at fixed intervals, and as
//! Kelda comes.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use super::cluster_idle::PATIENCE;
use crate::{
    Plan,
    cluster::Cluster,
    report::{Goal, Measure},
};

/// Partitions, each with a replica on every node.
const PARTITIONS: u32 = 100;
/// Idle times that it is watched for: some is done every five minutes only.
const IDLE_TIMES: u32 = 5;
/// A component: the name of its threads, and the part of its CPU time that tuning has to save, in percent.
const COMPONENTS: [(&str, f64); 4] = [
    ("gossip", 70.0),
    ("metadata", 60.0),
    ("background", 50.0),
    ("logging", 40.0),
];

/// The untuned system: it looks and tells again and again, whether anything changed or not. One report has both leaders,
/// which that system sends every 2 s, and load, which it sends every 30 s. There is nothing in Kelda that its fetch of
/// assignments every 30 s could be set to: the catalog is pushed. What it does about old records is not known, so retention
/// is put off, lest Kelda's own be counted for it.
const UNTUNED: [&str; 21] = [
    "--gossip-interval",
    "200ms",
    "--gossip-push-pull-interval",
    "10s",
    "--gossip-probe-interval",
    "1s",
    "--gossip-probe-timeout",
    "500ms",
    "--gossip-metadata-interval",
    "1s",
    "--gossip-metadata-refresh",
    "1s",
    "--load-report-interval",
    "2s",
    "--rebalance-interval",
    "10s",
    "--membership-interval",
    "5s",
    "--retention-interval",
    "1h",
    "--look-while-asleep",
];

/// CPU time of all nodes by component and in all, in milliseconds a minute, and what tuning saves of it.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut untuned = Vec::new();
    let mut tuned = Vec::new();
    for _ in 0..plan.repeat {
        let options = [&UNTUNED[..], &["--log", "debug"]].concat();
        untuned.push(run(plan, &options)?);
        tuned.push(run(plan, &[])?);
    }
    let names = COMPONENTS.iter().map(|(name, goal)| (*name, Some(*goal)));
    let names = names.chain([("whole process", None)]);
    let mut measures = Vec::new();
    for (place, (name, goal)) in names.enumerate() {
        let of = |runs: &[Vec<f64>]| -> Vec<f64> {
            runs.iter()
                .filter_map(|run| run.get(place))
                .copied()
                .collect()
        };
        let (before, after) = (of(&untuned), of(&tuned));
        let saved = before.iter().zip(&after);
        let saved = saved.map(|(before, after)| (1.0 - after / before) * 100.0);
        let saved = Measure::new(format!("{name}, saved"), "%", saved.collect());
        measures.extend([
            Measure::new(format!("{name}, untuned"), "ms of CPU/min", before),
            Measure::new(format!("{name}, as it comes"), "ms of CPU/min", after),
            match goal {
                Some(goal) => saved.goal(Goal::AtLeast(goal)),
                None => saved,
            },
        ]);
    }
    Ok(measures)
}

/// CPU time of each component over all nodes, and last that of the processes.
fn run(plan: &Plan, options: &[&str]) -> Result<Vec<f64>> {
    let directory = plan.workspace.directory()?;
    let cluster = Cluster::start(&plan.workspace, directory.path(), options)?;
    let client = cluster.client(&plan.workspace);
    client.create_placed("idle", PARTITIONS, 3)?;
    cluster.wait_until_quiet(PARTITIONS, PATIENCE)?;
    let before = look(&cluster)?;
    let idle = plan.idle * IDLE_TIMES;
    thread::sleep(idle);
    let after = look(&cluster)?;
    let minutes = idle.as_secs_f64() / 60.0;
    let used = after.iter().zip(&before);
    let used = used.map(|(after, before)| after.checked_sub(*before));
    used.map(|used| {
        let used = used.context("a thread of a node has ended")?;
        Ok(used.as_secs_f64() * 1000.0 / minutes)
    })
    .collect()
}

fn look(cluster: &Cluster) -> Result<Vec<Duration>> {
    let components = COMPONENTS.iter().map(|(name, _)| {
        let nodes = cluster.nodes().iter();
        nodes.map(|node| node.cpu_of_threads(name)).sum()
    });
    components.chain([cluster.cpu()]).collect()
}
