//! Three nodes with a thousand partitions of three replicas that have nothing to do.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    Plan,
    cluster::{Cluster, Node},
    report::{Goal, Measure},
};

/// Partitions, each with a replica on every node.
pub(super) const PARTITIONS: u32 = 1000;
/// How long the nodes may take to fall quiet.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// CPU, memory and messages of each node; the node that costs most counts.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let (mut cpu, mut resident, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let directory = plan.workspace.directory()?;
    let cluster = Cluster::start(&plan.workspace, directory.path(), &[])?;
    cluster
        .client(&plan.workspace)
        .create_placed("idle", PARTITIONS, 3)?;
    cluster.wait_until_quiet(PARTITIONS, PATIENCE)?;
    for _ in 0..plan.repeat {
        let messages = each(&cluster, messages)?;
        let before: Vec<Duration> = each(&cluster, |node| node.cpu())?;
        thread::sleep(plan.idle);
        let after: Vec<Duration> = each(&cluster, |node| node.cpu())?;
        let more = each(&cluster, self::messages)?;
        let more = more
            .iter()
            .zip(&messages)
            .map(|(after, before)| after - before);
        sent.push(more.fold(0.0, f64::max) / plan.idle.as_secs_f64());
        let used = after
            .iter()
            .zip(&before)
            .map(|(after, before)| (*after - *before).as_secs_f64() / plan.idle.as_secs_f64());
        cpu.push(used.fold(0.0, f64::max) * 100.0);
        let memory = each(&cluster, |node| node.memory())?.into_iter();
        resident.push(
            memory
                .map(|it| it.resident as f64 / 1e6)
                .fold(0.0, f64::max),
        );
    }
    let name = format!(
        "3 idle nodes, {PARTITIONS} partitions RF 3, over {} s",
        plan.idle.as_secs()
    );
    Ok(vec![
        Measure::new(format!("{name}, CPU of a node"), "% of a core", cpu).goal(Goal::AtMost(1.0)),
        Measure::new(format!("{name}, memory of a node"), "MB", resident).goal(Goal::AtMost(250.0)),
        Measure::new(format!("{name}, messages of a node to others"), "1/s", sent)
            .goal(Goal::AtMost(20.0)),
    ])
}

/// Raft messages, answers and calls that a node has sent to others; packets of gossip are not among them.
fn messages(node: &Node) -> Result<f64> {
    let sent = node.metric("kelda_peer_messages_total")?;
    sent.context("the node does not count its messages")
}

fn each<T>(cluster: &Cluster, look: impl Fn(&Node) -> Result<T>) -> Result<Vec<T>> {
    cluster.nodes().iter().map(look).collect()
}
