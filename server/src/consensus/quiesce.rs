//! Groups that have nothing to do fall quiet: no heartbeats, no elections by timeout. Idle partitions cost nothing.
//!
//! A leader quiesces its group when nothing was asked of it for a while, every member that lives has everything and
//! has said that it expects no more. From then on the nodes' pulse stands in for the group's heartbeats, see
//! `pulse.rs`. It wakes when it is asked something, when another node's message comes, and when its leader's node dies
//! or a node comes back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, future, stream};
use kelda_proto::internal::v1::{RaftRequest, raft_request as request, raft_response as response};
use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::time::{Instant, sleep};

use super::{Groups, LogId, Vote, groups::Home, seat::Seat, wire};
use crate::{peers::Lane, types::NodeId};

/// How often to look for groups that have nothing to do, while there is one that is not quiesced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Looks without anything asked after which a group is quiesced.
const QUIET_LOOKS: u64 = 5;
/// How often to look whether quiesced groups have a leader, though all nodes are as they were and others are awake.
const LED_LOOK: Duration = Duration::from_secs(30);
/// Groups that are quiesced at a time.
const AT_ONCE: usize = 32;
/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Groups {
    /// Quiesces groups that this node leads as they fall idle.
    pub async fn quiesce_idle(self) {
        let mut living = BTreeSet::new();
        let mut led_look = Instant::now();
        let stir = Arc::clone(self.home.inbox.stir());
        loop {
            let count = stir.count();
            let before = std::mem::replace(&mut living, self.home.inbox.living());
            let (quiet, awake): (Vec<_>, Vec<_>) = self
                .home
                .inbox
                .seats()
                .into_iter()
                .partition(|seat| seat.is_quiesced());
            let mut all_quiet = awake.is_empty();
            if all_quiet || led_look.elapsed() >= LED_LOOK || living != before {
                led_look = Instant::now();
                for seat in quiet.iter().filter(|seat| !is_led(&self, seat)) {
                    seat.rouse();
                    all_quiet = false;
                }
            }
            let idle = awake
                .into_iter()
                .filter(|seat| seat.quiet_looks() >= QUIET_LOOKS);
            stream::iter(idle)
                .for_each_concurrent(AT_ONCE, |seat| quiesce(&self.home, seat))
                .await;
            if all_quiet {
                stir.found_asleep(count);
                // All have a leader. Who asks something of them wakes them, and so does what may leave them without one.
                stir.stirred(count).await;
            } else {
                sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Whether a quiesced group has a leader whose node lives, as far as this node knows.
fn is_led(groups: &Groups, seat: &Seat) -> bool {
    let leader = seat.leader();
    leader.is_some_and(|leader| {
        leader == seat.node() || (groups.knows(leader) && groups.lives(leader))
    })
}

/// What all members of an idle group have.
struct Idle {
    vote: Vote,
    last: LogId,
    others: Vec<NodeId>,
}

async fn quiesce(home: &Home, seat: Arc<Seat>) {
    let activity = seat.activity();
    let Some(idle) = idle(home, &seat) else {
        return;
    };
    let asked = idle
        .others
        .iter()
        .map(|member| ask(home, &seat, &idle, *member));
    let agreed = future::join_all(asked)
        .await
        .into_iter()
        .all(|agreed| agreed);
    // A member may have come back meanwhile, that was not asked.
    let same = self::idle(home, &seat).is_some_and(|now| now.others == idle.others);
    if agreed && same {
        seat.quiesce(activity);
    }
}

/// The group, if this node leads it and everything is done that was begun. Members that are dead do not count while the
/// rest is a quorum: the group wakes when one of them comes back.
fn idle(home: &Home, seat: &Seat) -> Option<Idle> {
    let metrics = seat.raft.metrics();
    let metrics = metrics.borrow_watched();
    if metrics.state != ServerState::Leader {
        return None;
    }
    let last = metrics.last_applied?;
    if metrics.last_log_index != Some(last.index) {
        return None;
    }
    let membership = metrics.membership_config.membership();
    // A change of members is under way.
    if membership.get_joint_config().len() != 1 {
        return None;
    }
    let others = membership.nodes().map(|(node, _)| *node);
    let others = others.filter(|node| *node != metrics.id && home.inbox.signs().lives(*node));
    let others: Vec<NodeId> = others.collect();
    let has_all = |node: &NodeId| {
        let replication = metrics.replication.as_ref();
        replication.and_then(|matched| matched.get(node)?.as_ref()) == Some(&last)
    };
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let living = voters
        .iter()
        .filter(|node| **node == metrics.id || others.contains(node));
    // Alone it is quiet already, see `founding.rs`.
    let is_quorum = voters.len() > 1 && living.count() * 2 > voters.len();
    (is_quorum && others.iter().all(has_all)).then_some(Idle {
        vote: metrics.vote,
        last,
        others,
    })
}

/// Asks a member to expect no heartbeats; whether it agrees.
async fn ask(home: &Home, seat: &Seat, idle: &Idle, member: NodeId) -> bool {
    let quiesce = wire::quiesce_request(&idle.vote, &idle.last);
    let request = RaftRequest {
        call: 0,
        group: seat.id.0,
        message: Some(request::Message::Quiesce(quiesce)),
    };
    let answer = home
        .peers
        .raft(member, Lane::Control, request, ANSWER_TIMEOUT)
        .await;
    matches!(answer, Ok(response::Message::Quiesce(answer)) if answer.refusal.is_empty())
}

/// A leader asks for it: agrees if this member has all that the leader has.
pub(super) fn agree(seat: &Seat, vote: &Vote, last: &LogId) -> response::Message {
    let activity = seat.activity();
    let same = {
        let metrics = seat.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.vote == *vote
            && metrics.last_applied.as_ref() == Some(last)
            && metrics.last_log_index == Some(last.index)
    };
    let refusal = if same && seat.quiesce(activity) {
        String::new()
    } else {
        "not everything is applied here".to_owned()
    };
    response::Message::Quiesce(response::QuiesceResponse { refusal })
}
