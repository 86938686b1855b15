//! What simulations need of Raft: its random numbers from a seed, and what it knows, to check its invariants.

use std::{collections::BTreeSet, future::Future};

use openraft::{
    RaftMetrics, ServerState, alias::WatchReceiverOf, async_runtime::WatchReceiver,
    impls::TokioRuntime, rt::deterministic_rng::DeterministicRng,
};

use super::{Group, TypeConfig, encode::entry_id};
use crate::{
    storage::{EntryId, GroupStore},
    types::{LogIndex, NodeId},
};

/// Tokio, with random numbers that follow from a seed and from who spawned whom.
pub(super) type Seeded = DeterministicRng<TokioRuntime>;

/// Runs a future; the groups that it opens draw their random numbers from `seed`.
pub fn seeded<F: Future>(seed: u64, future: F) -> impl Future<Output = F::Output> {
    Seeded::scope(seed, future)
}

/// What a member of a group says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Term of its vote.
    pub term: u64,
    /// The node that its vote is for.
    pub candidate: NodeId,
    /// Whether that node has won the election.
    pub elected: bool,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Last entry of its log.
    pub last: Option<LogIndex>,
    /// Last entry that it knows to be committed.
    pub committed: Option<EntryId>,
    /// Last entry that it has applied.
    pub applied: Option<EntryId>,
    /// Last entry that its snapshot stands for.
    pub snapshot: Option<EntryId>,
    /// Last entry that it has purged.
    pub purged: Option<EntryId>,
    /// Those who vote, in both configurations if it is between two.
    pub voters: BTreeSet<NodeId>,
    /// Whether it is between two configurations.
    pub is_joint: bool,
    /// Why it has stopped.
    pub stopped: Option<String>,
}

/// What a member says of itself, as it changes.
pub struct Observations(WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>);

impl Observations {
    /// What it says now.
    pub fn now(&self) -> Observation {
        let metrics = self.0.borrow_watched();
        let leader = metrics.vote.leader_id();
        let membership = metrics.membership_config.membership();
        Observation {
            term: leader.term,
            candidate: leader.node_id,
            elected: metrics.vote.is_committed(),
            is_leader: metrics.state == ServerState::Leader,
            last: metrics.last_log_index.map(LogIndex),
            committed: metrics.local_committed.as_ref().map(entry_id),
            applied: metrics.last_applied.as_ref().map(entry_id),
            snapshot: metrics.snapshot.as_ref().map(entry_id),
            purged: metrics.purged.as_ref().map(entry_id),
            voters: membership.voter_ids().collect(),
            is_joint: membership.get_joint_config().len() > 1,
            stopped: metrics
                .running_state
                .as_ref()
                .err()
                .map(ToString::to_string),
        }
    }

    /// Waits until it says something else. Returns whether it will ever again.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Group {
    /// Where its log is.
    pub fn stored(&self) -> &GroupStore {
        &self.store
    }

    /// What this node says of its part in the group.
    pub fn observations(&self) -> Observations {
        Observations(self.raft.metrics())
    }
}
