//! Messages from the other nodes. What does not come from a member is refused before openraft sees it: it could
//! raise a group's term and depose its leader.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;
use kelda_proto::internal::v1::{RaftRequest, raft_request as request, raft_response as response};
use openraft::{alias::SnapshotOf, async_runtime::WatchReceiver};
use tokio::sync::watch;

use super::{CatalogView, Raft, TypeConfig, encode, wire};
use crate::types::{CATALOG_GROUP, GroupId, NodeId};

/// Why a message did not reach its group.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no such group here")]
    NoGroup,
    #[error("node {0} is not a member of the group")]
    NotAMember(NodeId),
    #[error("node {from} speaks for node {claimed}")]
    Impostor { from: NodeId, claimed: NodeId },
    #[error(transparent)]
    Malformed(#[from] wire::Malformed),
    #[error(transparent)]
    Invalid(#[from] encode::Invalid),
    #[error("the group failed: {0}")]
    Group(String),
}

/// The groups that run on this node, for what other nodes say to them. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    groups: Arc<RwLock<HashMap<GroupId, Raft>>>,
    catalog: Arc<OnceLock<watch::Receiver<CatalogView>>>,
}

impl Inbox {
    pub(super) fn add(&self, group: GroupId, raft: Raft) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group, raft);
    }

    pub(super) fn remove(&self, group: GroupId) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.remove(&group);
    }

    /// Whom the catalog knows, to tell members from strangers. Only the first one counts.
    pub(super) fn set_catalog(&self, catalog: watch::Receiver<CatalogView>) {
        let _ = self.catalog.set(catalog);
    }

    /// Hands a message to its group.
    pub(super) async fn receive(&self, from: NodeId, request: RaftRequest) -> response::Message {
        let group = GroupId(request.group);
        match self.hand_over(from, group, request.message).await {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::debug!(node = %from, %group, error = %refusal, "message refused");
                response::Message::Error(refusal.to_string())
            }
        }
    }

    /// Whether a node belongs to the cluster. This one may have missed anything but that ids are never given twice: one
    /// that is higher than all it knows belongs to a node that joined meanwhile.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        let Some(catalog) = self.catalog.get() else {
            return true;
        };
        let catalog = catalog.borrow();
        catalog.node(node).is_some() || node >= catalog.next_node()
    }

    fn group(&self, group: GroupId) -> Option<Raft> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&group).cloned()
    }

    async fn hand_over(
        &self,
        from: NodeId,
        group: GroupId,
        message: Option<request::Message>,
    ) -> Result<response::Message, Refusal> {
        let raft = self.group(group).ok_or(Refusal::NoGroup)?;
        let message = message.ok_or(wire::Malformed("content"))?;
        if !self.is_member(&raft, group, from, &message) {
            return Err(Refusal::NotAMember(from));
        }
        let failed = |error: &dyn std::fmt::Display| Refusal::Group(error.to_string());
        match message {
            request::Message::Vote(vote) => {
                let vote = wire::from_vote_request(vote)?;
                speaks_for_itself(from, vote.vote.leader_id().node_id)?;
                let answer = raft.vote(vote).await.map_err(|error| failed(&error))?;
                Ok(wire::vote_response(&answer))
            }
            request::Message::PreVote(vote) => {
                let vote = wire::from_vote_request(vote)?;
                speaks_for_itself(from, vote.vote.leader_id().node_id)?;
                let answer = raft.pre_vote(vote).await.map_err(|error| failed(&error))?;
                Ok(wire::vote_response(&answer))
            }
            request::Message::Append(append) => {
                let append = wire::from_append_request(append)?;
                speaks_for_itself(from, append.vote.leader_id().node_id)?;
                let answer = raft.append_entries(append).await;
                Ok(wire::append_response(
                    &answer.map_err(|error| failed(&error))?,
                ))
            }
            request::Message::Snapshot(snapshot) => {
                let vote = wire::vote(snapshot.vote)?;
                speaks_for_itself(from, vote.leader_id().node_id)?;
                let snapshot = snapshot.snapshot.ok_or(wire::Malformed("snapshot"))?;
                let (meta, machine) = encode::from_stored_snapshot(snapshot)?;
                let snapshot = SnapshotOf::<TypeConfig, Bytes> {
                    meta,
                    snapshot: machine,
                };
                let answer = raft.install_full_snapshot(vote, snapshot).await;
                let answer = answer.map_err(|error| failed(&error))?;
                Ok(response::Message::Snapshot(encode::stored_vote(
                    &answer.vote,
                )))
            }
            request::Message::Transfer(transfer) => {
                let transfer = wire::from_transfer_request(transfer)?;
                speaks_for_itself(from, transfer.from_leader().leader_id().node_id)?;
                let answer = raft.handle_transfer_leader(transfer).await;
                let refusal = match answer.map_err(|error| failed(&error))? {
                    Ok(()) => String::new(),
                    Err(refusal) => refusal.to_string(),
                };
                Ok(response::Message::Transfer(response::TransferResponse {
                    refusal,
                }))
            }
        }
    }

    /// Whether a node may say this to a group.
    ///
    /// What this node knows of the members may be old, so the catalog's word counts too. A leader's entries are also
    /// taken by a replica that has no members yet.
    fn is_member(
        &self,
        raft: &Raft,
        group: GroupId,
        from: NodeId,
        message: &request::Message,
    ) -> bool {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        if members.get_node(&from).is_some() {
            return true;
        }
        let is_new = members.nodes().next().is_none();
        drop(metrics);
        let from_leader = matches!(
            message,
            request::Message::Append(_) | request::Message::Snapshot(_)
        );
        if is_new && from_leader {
            return true;
        }
        if group == CATALOG_GROUP {
            return self.knows(from);
        }
        let Some(catalog) = self.catalog.get() else {
            return false;
        };
        let catalog = catalog.borrow();
        catalog
            .replicas_of_group(group)
            .is_some_and(|replicas| replicas.contains(&from))
    }
}

fn speaks_for_itself(from: NodeId, claimed: NodeId) -> Result<(), Refusal> {
    if from == claimed {
        Ok(())
    } else {
        Err(Refusal::Impostor { from, claimed })
    }
}
