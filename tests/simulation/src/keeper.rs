//! Keeps the groups that a node leads at the members they are to have, as the broker does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kelda_proto::internal::v1::{
    PartitionCommand,
    partition_command::{Command as Kind, Trim},
};
use kelda_server::{
    consensus::{Command, Group, Members},
    types::NodeId,
};
use tokio::time::{sleep, timeout};

use crate::{disk::Random, node::Life, world::World};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a deletion waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Makes every node a member of the catalog's group.
pub(crate) async fn keep_catalog(world: Arc<World>, life: Arc<Life>) {
    let Some(catalog) = life.catalog() else {
        return;
    };
    while life.pulse.beats() {
        let nodes: BTreeSet<NodeId> = catalog.view().nodes().map(|node| node.id).collect();
        // An odd number votes.
        let voters = nodes.len().saturating_sub((nodes.len() + 1) % 2);
        let members = Members {
            voters: nodes.iter().copied().take(voters).collect(),
            learners: nodes.iter().copied().skip(voters).collect(),
            ..Members::default()
        };
        approach(&world, &life, catalog.group(), &members).await;
        sleep(PAUSE).await;
    }
}

/// Gives the partition's group the members that the schedule wants.
pub(crate) async fn keep_partition(world: Arc<World>, life: Arc<Life>) {
    let Some(partition) = life.partition() else {
        return;
    };
    while life.pulse.beats() {
        let members = Members {
            voters: world.replicas(),
            ..Members::default()
        };
        approach(&world, &life, partition.group(), &members).await;
        sleep(PAUSE).await;
    }
}

/// Deletes old records and then their log, as the broker does, in runs that have that.
pub(crate) async fn retain(world: Arc<World>, life: Arc<Life>) {
    let Some(partition) = life.partition() else {
        return;
    };
    let mut random = Random::new(world.seed ^ (life.node.0 << 41) ^ (life.number << 21));
    while world.retains && life.pulse.beats() {
        sleep(Duration::from_millis(200 + random.below(2000))).await;
        let view = partition.view();
        let (node, start, end) = (life.node, view.log_start.0, view.end.0);
        if partition.group().may_lead() && start < end {
            let log_start = start + random.below(end - start + 1);
            let trim = PartitionCommand {
                command: Some(Kind::Trim(Trim {
                    log_start_offset: i64::try_from(log_start).unwrap_or(i64::MAX),
                })),
            };
            let trim = Command::partition(&trim, Vec::new());
            if let Ok(proposal) = partition.group().propose(trim).await {
                let _ = timeout(PATIENCE, proposal.wait()).await;
            }
        }
        match partition.compact().await {
            Ok(true) => world.count(|counts| counts.purges += 1),
            Ok(false) => {}
            Err(error) => world
                .trace
                .note(format_args!("{node} did not purge: {error}")),
        }
    }
}

async fn approach(world: &World, life: &Life, group: &Group, wanted: &Members) {
    if wanted.voters.is_empty() || !group.may_lead() || group.members() == *wanted {
        return;
    }
    let id = group.id();
    match group.approach(wanted).await {
        Ok(settled) => world.trace.note(format_args!(
            "{} changed members of {id}, settled: {settled}",
            life.node
        )),
        Err(error) => world.trace.note(format_args!(
            "{} did not change members of {id}: {error}",
            life.node
        )),
    }
}
