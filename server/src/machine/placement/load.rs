//! Evens out the load that nodes report: the busiest node exchanges a replica for a smaller one, or gives one away where
//! the counts allow it. Loads move all the time, so only what is clearly uneven is touched.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::state::State;
use super::{Moves, Reason};
use crate::types::NodeId;

/// A node is too busy with more than this many hundredths of the mean: below it, moving bytes costs more than it gains.
const TOO_BUSY_PERCENT: u64 = 125;
/// An exchange must shift at least this part of the mean.
const GAIN_MIN_PART: u64 = 20;
/// Replicas of the busy node that are tried, heaviest first: a plan must not take long in a large cluster.
const CANDIDATES_MAX: usize = 32;

/// Two replicas that change places, or one that moves.
struct Exchange {
    gives: usize,
    gets: Option<usize>,
    shifts: u64,
}

pub(super) fn even_out(state: &mut State, moves: &mut Moves) {
    while !moves.is_full() {
        let Some((busy, idle, exchange)) = find(state) else {
            return;
        };
        let reason = Reason::LoadUnbalanced;
        let there = (Some(busy), Some(idle));
        state.replace(exchange.gives, there, reason, moves);
        if let Some(at) = exchange.gets {
            state.replace(at, (Some(idle), Some(busy)), reason, moves);
        }
    }
}

fn find(state: &State) -> Option<(NodeId, NodeId, Exchange)> {
    let (count, total) = state
        .usable()
        .fold((0u64, 0u64), |(count, total), (_, node)| {
            (count + 1, total + node.load)
        });
    let mean = total.checked_div(count).filter(|mean| *mean > 0)?;
    let (busy, load) = state
        .usable()
        .map(|(id, node)| (id, node.load))
        .max_by_key(|(id, load)| (*load, Reverse(*id)))?;
    if load * 100 <= mean * TOO_BUSY_PERCENT {
        return None;
    }
    let mut others: Vec<_> = state.usable().map(|(id, node)| (node.load, id)).collect();
    others.sort_unstable();
    let others = others.into_iter().filter(|(other, _)| *other < load);
    let mut found = others.map(|(other, idle)| {
        let exchange = best(state, (busy, idle), load - other, mean / GAIN_MIN_PART);
        exchange.map(|exchange| (busy, idle, exchange))
    });
    found.find_map(|exchange| exchange)
}

/// The exchange that comes nearest to making both the same.
fn best(
    state: &State,
    (busy, idle): (NodeId, NodeId),
    difference: u64,
    gain_min: u64,
) -> Option<Exchange> {
    let (source, target) = (&state.nodes[&busy], &state.nodes[&idle]);
    let free = |at: &usize, here: NodeId, there: NodeId, others: &BTreeSet<usize>| {
        !others.contains(at) && state.is_movable(*at) && state.keeps_racks(*at, here, there)
    };
    let gets = target.held.iter().copied();
    let gets: Vec<usize> = gets
        .filter(|at| free(at, idle, busy, &source.held))
        .collect();
    let most = gets.iter().map(|at| state.partitions[*at].load).max();
    let mut gives: Vec<usize> = source.held.iter().copied().collect();
    gives.retain(|at| {
        let load = state.partitions[*at].load;
        load > gain_min
            && load < difference.saturating_add(most.unwrap_or_default())
            && free(at, busy, idle, &target.held)
    });
    gives.sort_by_key(|at| (Reverse(state.partitions[*at].load), *at));
    gives.truncate(CANDIDATES_MAX);
    // With one replica less the busy node has at least as many as the other had.
    let may_give = source.held.len() > target.held.len();
    let mut found: Option<Exchange> = None;
    for give in gives {
        let load = state.partitions[give].load;
        let alone = may_give.then_some((None, 0));
        let swaps = gets
            .iter()
            .map(|at| (Some(*at), state.partitions[*at].load));
        for (get, back) in alone.into_iter().chain(swaps) {
            let shifts = load.saturating_sub(back);
            if shifts < gain_min.max(1) || shifts >= difference {
                continue;
            }
            let off = |shifts: u64| (difference / 2).abs_diff(shifts);
            if found.as_ref().is_none_or(|it| off(shifts) < off(it.shifts)) {
                found = Some(Exchange {
                    gives: give,
                    gets: get,
                    shifts,
                });
            }
        }
    }
    found
}
