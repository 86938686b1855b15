//! Evens out how many replicas nodes have. A move is made only between nodes that differ by two or more and never crowds
//! a rack, so each makes the cluster more even and none is taken back.

use std::cmp::Reverse;

use super::state::{Node, State};
use super::{Moves, Reason};
use crate::types::NodeId;

pub(super) fn even_out(state: &mut State, moves: &mut Moves) {
    while !moves.is_full() {
        let pairs = state.uneven_pairs(|node: &Node| node.held.len());
        let found = pairs
            .into_iter()
            .find_map(|(from, to)| Some((candidate(state, from, to)?, from, to)));
        let Some((at, from, to)) = found else { return };
        let change = (Some(from), Some(to));
        state.replace(at, change, Reason::ReplicasUnbalanced, moves);
    }
}

/// The replica to move: of the topic that is most uneven between the two, and rather one that does not lead.
fn candidate(state: &State, from: NodeId, to: NodeId) -> Option<usize> {
    let (source, target) = (&state.nodes[&from], &state.nodes[&to]);
    let held = source.held.iter().copied();
    let free = held.filter(|at| !target.held.contains(at) && state.is_movable(*at));
    free.filter(|at| state.keeps_racks(*at, from, to))
        .max_by_key(|at| {
            let partition = &state.partitions[*at];
            let here = source.of_topic(partition.topic);
            // One more than either can have, so that the difference is never negative.
            let uneven = here + target.held.len() - target.of_topic(partition.topic);
            (uneven, partition.leader != Some(from), Reverse(*at))
        })
}
