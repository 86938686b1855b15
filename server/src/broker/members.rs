//! Keeps groups that this node leads at the members they are to have: the catalog's group the nodes of the cluster, a
//! partition's group the replicas that the catalog says.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::directory::Directory;
use crate::{
    consensus::{CatalogGroup, CatalogView, Group, Groups, Members},
    machine::catalog::Node,
    types::{GroupId, NodeId},
};

/// Most voters of the catalog: more would only make its commits slower.
const CATALOG_VOTERS_MAX: usize = 5;
/// When a step that is not the last is followed by the next.
const NEXT_STEP: Duration = Duration::from_millis(200);
/// How often to look whether this node leads a group by now whose members are to change.
const MAY_LEAD: Duration = Duration::from_secs(1);
/// Partitions' groups that make a step at a time.
const STEPS_AT_ONCE: usize = 64;
/// How long a new leader replaces no voter.
const GRACE: Duration = Duration::from_secs(60);
/// How long a node that was removed still gets the catalog, so that it hears of that.
const FAREWELL: Duration = Duration::from_secs(2);

/// Keeps the members of the catalog's group, and looks every `look_again` although nothing changed: nodes may have gone
/// silent.
pub(super) async fn keep_catalog(catalog: CatalogGroup, groups: Groups, look_again: Duration) {
    let mut view = catalog.watch();
    let group = catalog.group();
    let mut leading_since = None;
    let mut leaving = HashMap::new();
    loop {
        let wanted = view.borrow_and_update().clone();
        let leader = group.leader();
        let asleep = groups.asleep();
        let mut settled = true;
        if group.may_lead() {
            let since: &mut Instant = leading_since.get_or_insert_with(Instant::now);
            let mut members = catalog_members(&wanted, group, since.elapsed() > GRACE);
            settled = !say_farewell(&mut members, group, &mut leaving);
            settled &= settle(group, &members).await;
        } else {
            leading_since = None;
        }
        // All only watch, so nothing is lost with those that are dropped.
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = group.leader_changed(leader) => {}
            // What depends on time, such as who is silent for too long, is of nodes that are silent, and then no node sleeps.
            () = groups.rest(look_again, asleep), if settled => {}
            () = sleep(NEXT_STEP), if !settled => {}
        }
    }
}

/// Keeps the members of the partitions' groups, and looks every `look_again` although nothing changed.
pub(super) async fn keep_partitions(
    directory: watch::Receiver<Arc<Directory>>,
    groups: Groups,
    look_again: Duration,
) {
    let keeper = Keeper {
        directory,
        groups,
        look_again,
        steps: JoinSet::new(),
        under_way: HashSet::new(),
        had_turn: HashSet::new(),
    };
    keeper.run().await;
}

/// Makes steps of many groups at a time, one of each. A group whose step takes long, or that can not get on, holds up no
/// other: each gets its next turn when all have had theirs.
struct Keeper {
    directory: watch::Receiver<Arc<Directory>>,
    groups: Groups,
    look_again: Duration,
    steps: JoinSet<GroupId>,
    under_way: HashSet<GroupId>,
    had_turn: HashSet<GroupId>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let asleep = self.groups.asleep();
            let settled = self.begin_steps();
            let wait = async {
                match settled {
                    true => self.groups.rest(self.look_again, asleep).await,
                    // Another node leads it, until it hands over to this one.
                    false if self.had_turn.is_empty() => sleep(MAY_LEAD).await,
                    false => sleep(NEXT_STEP).await,
                }
            };
            // All only watch, or hand out what has ended.
            tokio::select! {
                changed = self.directory.changed() => if changed.is_err() { return },
                Some(ended) = self.steps.join_next() => match ended {
                    Ok(group) => {
                        self.under_way.remove(&group);
                    }
                    // Which group it was is not known; the others are found again.
                    Err(_) => self.under_way.clear(),
                },
                () = wait => {
                    // With room left, all have had their turn.
                    if self.steps.len() < STEPS_AT_ONCE {
                        self.had_turn.clear();
                    }
                }
            }
        }
    }

    /// Begins the next step of groups that are not as they are to be; whether there is none.
    fn begin_steps(&mut self) -> bool {
        let mut settled = true;
        let now = self.directory.borrow_and_update().clone();
        for topic in now.topics() {
            for (placed, slot) in topic.topic.partitions.iter().zip(topic.slots()) {
                let Ok(partition) = slot else { continue };
                let group = partition.group.group();
                if group.is_of(&placed.replicas) {
                    continue;
                }
                settled = false;
                if !group.may_lead() {
                    continue;
                }
                if self.steps.len() >= STEPS_AT_ONCE {
                    return false;
                }
                let id = group.id();
                if self.under_way.contains(&id) || !self.had_turn.insert(id) {
                    continue;
                }
                self.under_way.insert(id);
                let group = group.clone();
                let wanted = Members {
                    voters: placed.replicas.iter().copied().collect(),
                    ..Members::default()
                };
                self.steps.spawn(async move {
                    if group.confirm_lead().await {
                        settle(&group, &wanted).await;
                    }
                    id
                });
            }
        }
        settled
    }
}

/// Says once that this node was removed from the cluster, if it ever hears of it.
pub(super) async fn notice_removal(catalog: CatalogGroup, me: NodeId) {
    let mut view = catalog.watch();
    let removed = |catalog: &CatalogView| catalog.node(me).is_none() && me < catalog.next_node();
    if view.wait_for(removed).await.is_ok() {
        tracing::error!(
            node = %me,
            "this node was removed from the cluster, and no other one listens to it: stop it; to add it again, start it with an empty --data-dir and with --seeds"
        );
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
        ..choose(&nodes, &staying(catalog), &group.members().voters, &present)
    }
}

/// Keeps nodes that were just removed as learners for a while; whether there are any. `leaving` has since when.
fn say_farewell(
    members: &mut Members,
    group: &Group,
    leaving: &mut HashMap<NodeId, Instant>,
) -> bool {
    let now = group.members();
    let all = now.voters.iter().chain(&now.learners).copied();
    let removed =
        all.filter(|node| !members.voters.contains(node) && !members.learners.contains(node));
    let removed: BTreeSet<NodeId> = removed.collect();
    leaving.retain(|node, _| removed.contains(node));
    for node in &removed {
        leaving.entry(*node).or_insert_with(Instant::now);
    }
    let kept = leaving
        .iter()
        .filter(|(_, since)| since.elapsed() < FAREWELL);
    let kept: Vec<NodeId> = kept.map(|(node, _)| *node).collect();
    members.learners.extend(&kept);
    !kept.is_empty()
}

/// The nodes that are not emptied to be taken out: once one is removed, the others listen to it no more, and it could
/// not hand its vote over.
fn staying(catalog: &CatalogView) -> BTreeSet<NodeId> {
    let leaves = |node: &&Node| node.draining && catalog.replicas_on(node.id) == 0;
    let staying = catalog.nodes().filter(|node| !leaves(node));
    staying.map(|node| node.id).collect()
}

fn choose(
    nodes: &BTreeSet<NodeId>,
    staying: &BTreeSet<NodeId>,
    voters: &BTreeSet<NodeId>,
    present: &BTreeSet<NodeId>,
) -> Members {
    let able = if staying.is_empty() { nodes } else { staying };
    let count = match able.len().min(CATALOG_VOTERS_MAX) {
        0 => 0,
        count => count - (count + 1) % 2,
    };
    let mut ranked: Vec<NodeId> = able.iter().copied().collect();
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
        choose(&set(nodes), &set(nodes), &set(voters), &set(present)).voters
    }

    #[test]
    fn an_odd_number_votes_on_the_catalog_and_at_most_five() {
        for (nodes, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
            let all: Vec<u64> = (1..=nodes).collect();
            let members = choose(&set(&all), &set(&all), &set(&[1]), &set(&all));
            assert_eq!(members.voters.len(), expected, "{nodes}");
            assert_eq!(members.learners.len() + expected, all.len());
        }
    }

    #[test]
    fn who_is_about_to_go_has_no_vote() {
        let both = set(&[1, 2]);
        let members = choose(&both, &set(&[2]), &set(&[1]), &both);
        assert_eq!(members.voters, set(&[2]));
        assert_eq!(members.learners, set(&[1]));
        let members = choose(&both, &set(&[]), &set(&[1]), &both);
        assert_eq!(members.voters, set(&[1]), "somebody has to");
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
