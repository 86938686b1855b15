//! A node that dies with a third of a thousand leaders, until all partitions are writable again.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use kelda_proto::partitioner::partition_for_key;

use super::cluster_idle::{PARTITIONS, PATIENCE};
use crate::{
    Plan,
    client::Client,
    cluster::Cluster,
    report::{Goal, Measure},
};

/// Clients that share the partitions: one alone has 8 batches under way, so that a thousand would wait for each other.
const CLIENTS: usize = 16;

/// Time from kill -9 to the ack of a record in every partition, by runs of `kelda produce` through the nodes that are
/// left. It includes the start of these processes and their finding the leaders.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let (mut quiet, mut awake) = (Vec::new(), Vec::new());
    let (mut seconds, mut led) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        let directory = plan.workspace.directory()?;
        let mut cluster = Cluster::start(&plan.workspace, directory.path(), &[])?;
        let client = cluster.client(&plan.workspace);
        client.create_placed("all", PARTITIONS, 3)?;
        cluster.wait_until_quiet(PARTITIONS, PATIENCE)?;
        let lines = one_for_each();
        for undisturbed in [&mut quiet, &mut awake] {
            let started = Instant::now();
            to_each(&client, &lines)?;
            undisturbed.push(started.elapsed().as_secs_f64());
        }
        cluster.wait_until_quiet(PARTITIONS, PATIENCE)?;

        let doomed = client.led_by("node3", "all")?;
        led.push(doomed as f64);
        let started = Instant::now();
        cluster.kill_last()?;
        to_each(&cluster.client(&plan.workspace), &lines)?;
        seconds.push(started.elapsed().as_secs_f64());
        let partitions = cluster.client(&plan.workspace).partitions("all")?;
        ensure!(
            partitions.iter().all(|it| it.end_offset == 3),
            "a partition does not have the three records that it was given"
        );
    }
    let name = format!("{PARTITIONS} partitions RF 3");
    Ok(vec![
        Measure::new(
            format!("{name}, undisturbed and quiet, a record to each"),
            "s",
            quiet,
        ),
        Measure::new(
            format!("{name}, undisturbed and awake, a record to each"),
            "s",
            awake,
        ),
        Measure::new(format!("{name}, led by the node that is killed"), "", led),
        Measure::new(
            format!("{name}, kill -9 of a node until each has taken a record"),
            "s",
            seconds,
        )
        .goal(Goal::AtMost(Duration::from_secs(2).as_secs_f64())),
    ])
}

/// Writes all lines, by several clients at a time.
fn to_each(client: &Client<'_>, lines: &[String]) -> Result<()> {
    thread::scope(|scope| {
        let shares = lines.chunks(lines.len().div_ceil(CLIENTS));
        let runs: Vec<_> = shares
            .map(|share| scope.spawn(move || client.produce_keyed("all", &share.concat())))
            .collect();
        runs.into_iter()
            .try_for_each(|run| run.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

/// A line for `kelda produce` for each partition, with a key that belongs there.
fn one_for_each() -> Vec<String> {
    let mut keys = BTreeMap::new();
    let mut number = 0_u64;
    while keys.len() < PARTITIONS as usize {
        let key = number.to_string();
        keys.entry(partition_for_key(key.as_bytes(), PARTITIONS))
            .or_insert(key);
        number += 1;
    }
    keys.values().map(|key| format!("{key} x\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_gets_a_line() {
        let lines = one_for_each();
        let places = lines
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(key, _)| partition_for_key(key.as_bytes(), PARTITIONS));
        let mut places: Vec<u32> = places.collect();
        places.sort_unstable();
        assert_eq!(places, (0..PARTITIONS).collect::<Vec<_>>());
    }
}
