//! Takes leaders off nodes that are drained, and evens out how many partitions nodes lead.

use super::state::{Node, State};
use super::{Moves, Reason};
use crate::types::NodeId;

pub(super) fn even_out(state: &mut State, moves: &mut Moves) {
    leave_drained(state, moves);
    while !moves.is_full() {
        let pairs = state.uneven_pairs(|node: &Node| node.leaders);
        let found = pairs
            .into_iter()
            .find_map(|(from, to)| Some((candidate(state, from, to)?, to)));
        let Some((at, to)) = found else { return };
        state.lead(at, to, Reason::LeadersUnbalanced, moves);
    }
}

/// A node that can not be emptied, since others are too few, can still be relieved of leading.
fn leave_drained(state: &mut State, moves: &mut Moves) {
    for at in 0..state.partitions.len() {
        if moves.is_full() {
            return;
        }
        let Some(leader) = state.partitions[at].leader else {
            continue;
        };
        let drained = state.nodes.get(&leader);
        if drained.is_some_and(|node| node.draining)
            && state.is_movable(at)
            && let Some(next) = state.best_leader(at, leader)
        {
            state.lead(at, next, Reason::NodeDraining, moves);
        }
    }
}

fn candidate(state: &State, from: NodeId, to: NodeId) -> Option<usize> {
    let target = &state.nodes[&to];
    let mut shared = target.held.iter().copied();
    shared.find(|at| state.partitions[*at].leader == Some(from) && state.is_movable(*at))
}
