//! How a group that was opened takes part: it leads alone, waits for the others, or founds the group with them.

use std::{collections::BTreeMap, io, time::Duration};

use openraft::{
    RaftMetrics, ServerState,
    errors::{InitializeError, RaftError},
};

use super::{Group, Member, Raft, TypeConfig, leaving::has_come_back};
use crate::types::{LogIndex, NodeId};

/// How long a group of one voter may take to lead and to apply its log when it is opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the founders behind the first wait for it to found the group and to lead it.
const FOUND_AFTER: Duration = Duration::from_secs(2);

impl Group {
    /// Takes part in a group that was just opened. `founders` found it if it is new; none: others have.
    ///
    /// A single voter needs neither heartbeats nor elections by timeout, so its clock stays off: idle costs nothing.
    pub(super) async fn take_part(
        &self,
        me: NodeId,
        founders: &[NodeId],
        left: Option<LogIndex>,
    ) -> io::Result<()> {
        let (voters, has_learners) = self.stored_members().await?;
        if let Some(left) = left
            && !has_come_back(&self.raft, Some(left))
        {
            // What its log says of voters is of a time before it left, and others have the group.
            self.come_back(left);
            return Ok(());
        }
        if voters == [me] || (voters.is_empty() && founders == [me]) {
            self.lead_alone(me).await?;
            // Learners hear by heartbeats what is committed.
            self.raft.runtime_config().tick(has_learners);
            return Ok(());
        }
        self.raft.runtime_config().tick(true);
        if voters.is_empty() && founders.contains(&me) {
            self.found_together(me, founders).await?;
        }
        Ok(())
    }

    /// The voters as the log has them, and whether there are learners. Metrics may not know them yet.
    async fn stored_members(&self) -> io::Result<(Vec<NodeId>, bool)> {
        let members = self.raft.with_raft_state(|state| {
            let membership = state.membership_state.effective().membership();
            let has_learners = membership.learner_ids().next().is_some();
            (membership.voter_ids().collect(), has_learners)
        });
        members.await.map_err(io::Error::other)
    }

    /// Founds the group with this node as its one voter if it is new, takes the lead, and applies its log.
    async fn lead_alone(&self, node: NodeId) -> io::Result<()> {
        let members = BTreeMap::from([(node, Member::default())]);
        match self.raft.initialize(members).await {
            // A new group elects its first leader by itself.
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) if self.raft.is_leader() => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                let elected = self.raft.trigger().elect(false).await;
                elected.map_err(io::Error::other)?;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        let wait = self.raft.wait(Some(OPEN_TIMEOUT));
        wait.state(ServerState::Leader, "the only voter leads")
            .await
            .map_err(io::Error::other)?;
        // What is behind the log is this leader's first entry; once that is applied, the log is.
        let applied = |metrics: &RaftMetrics<TypeConfig>| {
            let term = metrics.vote.leader_id().term;
            metrics
                .last_applied
                .is_some_and(|id| id.leader_id.term == term)
        };
        wait.metrics(applied, "the log is applied")
            .await
            .map_err(io::Error::other)?;
        Ok(())
    }

    /// Founds the group with all its founders as voters. Each of them may, since all name the same members and only one
    /// of their first entries can be committed; the first does at once, so that there is one election, and the others
    /// only if it does not.
    async fn found_together(&self, me: NodeId, founders: &[NodeId]) -> io::Result<()> {
        let members: BTreeMap<NodeId, Member> = founders
            .iter()
            .map(|founder| (*founder, Member::default()))
            .collect();
        if founders.first() == Some(&me) {
            return found(&self.raft, members).await;
        }
        let (raft, id) = (self.raft.clone(), self.id());
        tokio::spawn(async move {
            tokio::time::sleep(FOUND_AFTER).await;
            // It fails only with the group, which says so itself.
            if let Err(error) = found(&raft, members).await {
                tracing::debug!(group = %id, %error, "group is not founded from here");
            }
        });
        Ok(())
    }
}

async fn found(raft: &Raft, members: BTreeMap<NodeId, Member>) -> io::Result<()> {
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}
