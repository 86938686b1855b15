//! A node that leaves a group, and may come back to it.
//!
//! A node that deletes its replica forgets what it has acknowledged. If it then voted as if it had never been there, a
//! candidate that missed the entries which moved the group could win, with those of a quorum that no longer has them. So
//! the node keeps, beside its vote, the entry that left it out. When it comes back it founds nothing, and takes no part
//! in elections until it has a later entry: whatever then names it as a voter, means the replica that it is now.

use openraft::async_runtime::WatchReceiver;

use super::{Group, Groups, OpenError, Raft, Vote, encode};
use crate::types::{GroupId, LogIndex, NodeId};

/// What this node has of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it was never opened here.
    Never,
    /// The group is on other nodes, and what was here is deleted.
    Left,
    /// Its log, or a vote in it.
    Held,
}

/// Whether a node that once was left out with the entry `left` has a later one.
pub(super) fn has_come_back(raft: &Raft, left: Option<LogIndex>) -> bool {
    let Some(left) = left else { return true };
    let data = raft.data_metrics();
    let data = data.borrow_watched();
    data.last_log.as_ref().is_some_and(|id| id.index > left.0)
}

impl Group {
    /// The entry that left a node out, if this node leads the group and it has neither that member nor is about to lose
    /// it: then the group never asks that node for anything again that it had before.
    pub async fn left_out(&self, node: NodeId) -> Option<LogIndex> {
        if !self.confirm_lead().await {
            return None;
        }
        let members = self.raft.with_raft_state(move |state| {
            let (effective, committed) = (
                state.membership_state.effective(),
                state.membership_state.committed(),
            );
            let is_member = effective.membership().get_node(&node).is_some();
            let settled = effective.log_id() == committed.log_id();
            let entry = committed.log_id().as_ref().map(|id| LogIndex(id.index));
            entry.filter(|_| settled && !is_member)
        });
        let entry = members.await.ok().flatten()?;
        // Asked once more, since what was found is only true of a leader that nobody has replaced.
        self.leads().then_some(entry)
    }

    /// Lets a node that came back hear everything, and takes no part in elections before it has come far enough.
    pub(super) fn come_back(&self, left: LogIndex) {
        self.raft.runtime_config().elect(false);
        self.raft.runtime_config().tick(true);
        let raft = self.raft.clone();
        tokio::spawn(async move {
            let mut data = raft.data_metrics();
            while !has_come_back(&raft, Some(left)) {
                // The group has stopped.
                if data.changed().await.is_err() {
                    return;
                }
            }
            raft.runtime_config().elect(true);
        });
    }
}

impl Groups {
    /// What this node has of a group that is not open.
    ///
    /// # Errors
    /// If it can not be read.
    pub async fn standing(&self, id: GroupId) -> Result<Standing, OpenError> {
        let state = self.storage.group(id).load().await?;
        let vote = state.vote.as_ref().map(encode::decode_vote).transpose()?;
        let is_empty = state.last.is_none() && state.snapshot.is_none();
        Ok(match vote {
            None if is_empty => Standing::Never,
            Some((_, Some(_))) if is_empty => Standing::Left,
            _ => Standing::Held,
        })
    }

    /// Deletes the data of a group that is not open, and that has left this node out with the entry `left`.
    ///
    /// # Errors
    /// If it can not be written.
    pub async fn leave(&self, id: GroupId, left: LogIndex) -> Result<(), OpenError> {
        let state = self.storage.group(id).load().await?;
        let vote = state.vote.as_ref().map(encode::decode_vote).transpose()?;
        let (vote, before) = vote.unwrap_or_else(|| (Vote::new(0, NodeId(0)), None));
        // No entry of a group is older than the first, which names its founders; 0 is kept for a group that was not left.
        let left = left.max(LogIndex(1));
        let kept = encode::encode_vote(&vote, before.max(Some(left)));
        self.storage.empty_group(id, kept).await?;
        Ok(())
    }
}
