//! Takes over a group whose leader's node is dead, without waiting for the group's own election by timeout.

use std::{sync::Arc, time::Duration};

use openraft::{async_runtime::WatchReceiver, raft::TransferLeaderRequest};
use tokio::time::{sleep, timeout};

use super::{seat::Seat, signs::Signs};
use crate::types::NodeId;

/// How long the survivor whose turn is next waits for the one before.
const TURN: Duration = Duration::from_millis(150);
/// Rounds of turns after which the group's own elections have to do.
const ROUNDS: u32 = 8;

/// Elects another leader than `dead`. The survivors take turns, in an order that differs from group to group, so that
/// they neither split the vote nor all end up at one node. A survivor that lacks entries is refused its pre-vote, which
/// changes nothing, and the next one has its turn: the longest log wins.
pub(super) async fn run(seat: Arc<Seat>, signs: Signs, dead: NodeId) {
    if let Some((turn, turns)) = turn(&seat, &signs) {
        // Elections by timeout would cut in.
        seat.hold();
        for round in 0..ROUNDS {
            let wait = if round == 0 { turn } else { turns };
            release(&seat, dead).await;
            if led_by_another(&seat, dead, TURN * wait).await || signs.lives(dead) {
                break;
            }
            if seat.promised_to().is_some() {
                continue;
            }
            release(&seat, dead).await;
            // It fails only with the group.
            let _ = seat.raft.trigger().elect(true).await;
        }
        led_by_another(&seat, dead, TURN).await;
        seat.release();
    }
    seat.wake().await;
}

/// This node's turn among the survivors, and how many they are; `None` if it has no vote.
fn turn(seat: &Seat, signs: &Signs) -> Option<(u32, u32)> {
    if !seat.has_come_back() {
        return None;
    }
    let metrics = seat.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let me = metrics.id;
    let voters = metrics.membership_config.membership().voter_ids();
    let survivors: Vec<NodeId> = voters
        .filter(|node| *node == me || signs.lives(*node))
        .collect();
    let mine = survivors.iter().position(|node| *node == me)?;
    let first = usize::try_from(seat.id.0).unwrap_or_default() % survivors.len();
    let turn = (mine + survivors.len() - first) % survivors.len();
    Some((
        u32::try_from(turn).ok()?,
        u32::try_from(survivors.len()).ok()?,
    ))
}

/// The dead leader's lease ends here, so that this node may vote for another: it was silent for longer than it may answer
/// reads.
async fn release(seat: &Seat, dead: NodeId) {
    let vote = seat.raft.server_metrics().borrow_watched().vote;
    if vote.leader_id().node_id != dead {
        return;
    }
    let release = TransferLeaderRequest::new(vote, dead, None);
    // It fails only with the group.
    let _ = seat.raft.handle_transfer_leader(release).await;
}

async fn led_by_another(seat: &Seat, dead: NodeId, patience: Duration) -> bool {
    let mut metrics = seat.raft.server_metrics();
    let changed = async {
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if leader.is_some_and(|leader| leader != dead) {
                return true;
            }
            if metrics.changed().await.is_err() {
                sleep(patience).await;
                return false;
            }
        }
    };
    timeout(patience, changed).await.unwrap_or(false)
}
