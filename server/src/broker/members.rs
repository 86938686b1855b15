//! Keeps groups that this node leads at the members they are to have: the catalog's group the nodes of the cluster, a
//! partition's group the replicas that the catalog says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::directory::Directory;
use crate::{
    consensus::{CatalogGroup, CatalogView, Group, Members},
    types::NodeId,
};

/// Most voters of the catalog: more would only make its commits slower.
const CATALOG_VOTERS_MAX: usize = 5;
/// When a step that is not the last is followed by the next.
const NEXT_STEP: Duration = Duration::from_millis(200);
/// How long a new leader replaces no voter.
const GRACE: Duration = Duration::from_secs(60);
/// How often to look where nothing has changed: nodes may have gone silent.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Keeps the members of the catalog's group.
pub(super) async fn keep_catalog(catalog: CatalogGroup) {
    let mut view = catalog.watch();
    let group = catalog.group();
    let mut leading_since = None;
    loop {
        let wanted = view.borrow_and_update().clone();
        let leader = group.leader();
        let mut pause = LOOK_AGAIN;
        if group.may_lead() {
            let since: &mut Instant = leading_since.get_or_insert_with(Instant::now);
            let members = catalog_members(&wanted, group, since.elapsed() > GRACE);
            if !settle(group, &members).await {
                pause = NEXT_STEP;
            }
        } else {
            leading_since = None;
        }
        // All only watch, so nothing is lost with those that are dropped.
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = group.leader_changed(leader) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Keeps the members of the partitions' groups.
pub(super) async fn keep_partitions(mut directory: watch::Receiver<Arc<Directory>>) {
    loop {
        let now = directory.borrow_and_update().clone();
        let mut settled = true;
        for topic in now.topics() {
            for (placed, slot) in topic.topic.partitions.iter().zip(topic.slots()) {
                let Ok(partition) = slot else { continue };
                let group = partition.group.group();
                let wanted = Members {
                    voters: placed.replicas.iter().copied().collect(),
                    ..Members::default()
                };
                if group.may_lead() && group.members() != wanted {
                    settled &= settle(group, &wanted).await;
                }
            }
        }
        let pause = if settled { LOOK_AGAIN } else { NEXT_STEP };
        tokio::select! {
            changed = directory.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes a step; whether it was the last.
async fn settle(group: &Group, wanted: &Members) -> bool {
    group.approach(wanted).await.unwrap_or_else(|error| {
        tracing::debug!(group = %group.id(), %error, "members are not changed yet");
        false
    })
}

/// Every node gets the catalog, and an odd number of them votes on it, those who do already first. A voter that has gone
/// silent is replaced by a node that answers, if there is one; a new leader has heard of nobody yet, and waits.
fn catalog_members(catalog: &CatalogView, group: &Group, replace_silent: bool) -> Members {
    let nodes: BTreeSet<NodeId> = catalog.nodes().map(|node| node.id).collect();
    let present = if replace_silent {
        group.present()
    } else {
        nodes.clone()
    };
    let addresses = catalog.nodes().filter(|node| !node.raft_address.is_empty());
    Members {
        addresses: addresses
            .map(|node| (node.id, node.raft_address.clone()))
            .collect(),
        ..choose(&nodes, &group.members().voters, &present)
    }
}

fn choose(
    nodes: &BTreeSet<NodeId>,
    voters: &BTreeSet<NodeId>,
    present: &BTreeSet<NodeId>,
) -> Members {
    let count = match nodes.len().min(CATALOG_VOTERS_MAX) {
        0 => 0,
        count => count - (count + 1) % 2,
    };
    let mut ranked: Vec<NodeId> = nodes.iter().copied().collect();
    ranked.sort_by_key(|node| (!present.contains(node), !voters.contains(node), *node));
    let voters: BTreeSet<NodeId> = ranked.into_iter().take(count).collect();
    Members {
        learners: nodes.difference(&voters).copied().collect(),
        voters,
        ..Members::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn voters(nodes: &[u64], voters: &[u64], present: &[u64]) -> BTreeSet<NodeId> {
        choose(&set(nodes), &set(voters), &set(present)).voters
    }

    #[test]
    fn an_odd_number_votes_on_the_catalog_and_at_most_five() {
        for (nodes, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
            let all: Vec<u64> = (1..=nodes).collect();
            let members = choose(&set(&all), &set(&[1]), &set(&all));
            assert_eq!(members.voters.len(), expected, "{nodes}");
            assert_eq!(members.learners.len() + expected, all.len());
        }
    }

    #[test]
    fn voters_stay_as_long_as_they_answer() {
        assert_eq!(
            voters(&[1, 2, 3, 4], &[2, 3, 4], &[1, 2, 3, 4]),
            set(&[2, 3, 4])
        );
        assert_eq!(
            voters(&[1, 2, 3, 4], &[2, 3, 4], &[1, 2, 3]),
            set(&[1, 2, 3])
        );
        // Nobody is there to replace it.
        assert_eq!(voters(&[1, 2, 3], &[1, 2, 3], &[1, 2]), set(&[1, 2, 3]));
    }

    #[test]
    fn a_node_that_was_removed_is_no_member() {
        assert_eq!(voters(&[1, 2, 4], &[1, 2, 3], &[1, 2, 4]), set(&[1, 2, 4]));
    }
}
