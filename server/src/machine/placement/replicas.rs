//! What must be moved: replicas that have to leave a node, are too few or too many, or share a rack without need.

use std::cmp::Reverse;

use super::state::State;
use super::{Moves, Reason};
use crate::types::NodeId;

/// Corrects one partition after the other.
pub(super) fn correct(state: &mut State, moves: &mut Moves) {
    for at in 0..state.partitions.len() {
        if !state.is_movable(at) {
            continue;
        }
        while !moves.is_full() && step(state, at, moves) {}
    }
}

/// Makes the first change that a partition needs, if there is one.
fn step(state: &mut State, at: usize, moves: &mut Moves) -> bool {
    let partition = &state.partitions[at];
    let (count, wanted) = (partition.replicas.len(), partition.replication_factor);
    // First, so that nothing is copied that is then left out, and nothing is left out before it is copied.
    if count > wanted {
        let leaving = surplus(state, at);
        state.replace(at, (leaving, None), Reason::ReplicationFactor, moves);
        return leaving.is_some();
    }
    if count < wanted {
        let Some(target) = state.best_target(at, None) else {
            return false;
        };
        let change = (None, Some(target));
        state.replace(at, change, Reason::ReplicationFactor, moves);
        return true;
    }
    if let Some((leaving, reason)) = unwanted(state, at)
        && let Some(target) = state.best_target(at, Some(leaving))
    {
        state.replace(at, (Some(leaving), Some(target)), reason, moves);
        return true;
    }
    if let Some((leaving, target)) = better_rack(state, at) {
        let change = (Some(leaving), Some(target));
        state.replace(at, change, Reason::RackRepeated, moves);
        return true;
    }
    false
}

/// The replica that is missed least.
fn surplus(state: &State, at: usize) -> Option<NodeId> {
    let partition = &state.partitions[at];
    let replicas = partition.replicas.iter().copied();
    replicas.max_by_key(|id| {
        let node = state.nodes.get(id);
        (
            node.is_none(),
            node.is_some_and(|node| node.draining),
            node.is_some_and(|node| !node.alive),
            node.map_or(0, |node| state.rack_count(at, node.rack, None)),
            partition.leader != Some(*id),
            node.map_or(0, |node| node.held.len()),
            *id,
        )
    })
}

/// A replica whose node shall not have it.
fn unwanted(state: &State, at: usize) -> Option<(NodeId, Reason)> {
    let mut replicas = state.partitions[at].replicas.iter();
    replicas.find_map(|id| match state.nodes.get(id) {
        None => Some((*id, Reason::NodeRemoved)),
        Some(node) if node.draining => Some((*id, Reason::NodeDraining)),
        Some(_) => None,
    })
}

/// A replica in a crowded rack, and a node in one that has at least two fewer.
fn better_rack(state: &State, at: usize) -> Option<(NodeId, NodeId)> {
    let partition = &state.partitions[at];
    let known = partition.replicas.iter();
    let known = known.filter_map(|id| Some((*id, state.nodes.get(id)?)));
    let (leaving, node) = known
        .filter(|(_, node)| node.is_usable())
        .max_by_key(|(id, node)| {
            (
                state.rack_count(at, node.rack, None),
                partition.leader != Some(*id),
                node.held.len(),
                Reverse(*id),
            )
        })?;
    let target = state.best_target(at, Some(leaving))?;
    let now = state.rack_count(at, node.rack, None);
    let then = state.rack_count(at, state.nodes[&target].rack, None);
    (then + 1 < now).then_some((leaving, target))
}
