//! Messages from the other nodes. What does not come from a member is refused before openraft sees it: it could
//! raise a group's term and depose its leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;
use kelda_proto::internal::v1::{RaftRequest, raft_request as request, raft_response as response};
use openraft::{alias::SnapshotOf, async_runtime::WatchReceiver, raft::AppendEntriesResponse};
use tokio::sync::watch;

use super::{
    CatalogView, Raft, TypeConfig, encode, quiesce, seat::Seat, signs::Signs, stir::Stir, wire,
};
use crate::types::{CATALOG_GROUP, GroupId, NodeId};

/// Why a message did not reach its group.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no such group here")]
    NoGroup,
    #[error("node {0} is not a member of the group")]
    NotAMember(NodeId),
    #[error("this node has left the group, and does not have it again yet")]
    NotBack,
    #[error("node {from} speaks for node {claimed}")]
    Impostor { from: NodeId, claimed: NodeId },
    #[error("node {0} leads the quiesced group and lives")]
    LeaderLives(NodeId),
    #[error("this node has just started, and may have promised to elect nobody")]
    MayHavePromised,
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
    groups: Arc<RwLock<BTreeMap<GroupId, Arc<Seat>>>>,
    catalog: Arc<OnceLock<watch::Receiver<CatalogView>>>,
    signs: Signs,
    stir: Arc<Stir>,
}

impl Inbox {
    pub(super) fn add(&self, seat: Arc<Seat>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(seat.id, seat);
        self.stir.stir();
    }

    /// For what wakes a group, or tells of a node that has come or gone.
    pub(super) fn stir(&self) -> &Arc<Stir> {
        &self.stir
    }

    pub(super) fn remove(&self, group: GroupId) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.remove(&group);
    }

    /// All groups, in order of their ids.
    pub(super) fn seats(&self) -> Vec<Arc<Seat>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().cloned().collect()
    }

    /// When other nodes were heard of.
    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }

    /// Whom the catalog knows, to tell members from strangers. Only the first one counts.
    pub(super) fn set_catalog(&self, catalog: watch::Receiver<CatalogView>) {
        let _ = self.catalog.set(catalog);
    }

    /// Hands a message to its group.
    pub(super) async fn receive(&self, from: NodeId, request: RaftRequest) -> response::Message {
        let group = GroupId(request.group);
        if self.knows(from) {
            self.signs.hear(from);
        }
        if let Some(request::Message::Pulse(_)) = request.message {
            return response::Message::Pulse(response::Pulse {});
        }
        match self.hand_over(from, group, request.message).await {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::debug!(node = %from, %group, error = %refusal, "message refused");
                response::Message::Error(refusal.to_string())
            }
        }
    }

    /// The nodes of the catalog that are alive, this one too if it was ever heard of.
    pub(super) fn living(&self) -> BTreeSet<NodeId> {
        let catalog = self.catalog.get().map(|catalog| catalog.borrow());
        let nodes = catalog.iter().flat_map(|catalog| catalog.nodes());
        let nodes = nodes.map(|node| node.id);
        nodes.filter(|node| self.signs.lives(*node)).collect()
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

    fn seat(&self, group: GroupId) -> Option<Arc<Seat>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&group).cloned()
    }

    async fn hand_over(
        &self,
        from: NodeId,
        group: GroupId,
        message: Option<request::Message>,
    ) -> Result<response::Message, Refusal> {
        let seat = self.seat(group).ok_or(Refusal::NoGroup)?;
        let message = message.ok_or(wire::Malformed("content"))?;
        let is_back = seat.has_come_back();
        if !self.is_member((&seat.raft, is_back), group, from, &message) {
            return Err(Refusal::NotAMember(from));
        }
        let elects = matches!(
            message,
            request::Message::Vote(_)
                | request::Message::PreVote(_)
                | request::Message::Transfer(_)
        );
        if elects && !is_back {
            return Err(Refusal::NotBack);
        }
        if elects {
            // Whoever agrees meanwhile that all is quiet has not seen what comes of it.
            seat.touch();
        }
        let quiesces = matches!(message, request::Message::Quiesce(_));
        let answer = self.carry_out(from, &seat, message).await;
        if !quiesces && answer.is_ok() {
            // Only now: a clock that starts before the group has heard of its leader would call an election.
            seat.wake().await;
        }
        answer
    }

    async fn carry_out(
        &self,
        from: NodeId,
        seat: &Seat,
        message: request::Message,
    ) -> Result<response::Message, Refusal> {
        let raft = &seat.raft;
        let failed = |error: &dyn std::fmt::Display| Refusal::Group(error.to_string());
        match message {
            request::Message::Vote(vote) => {
                let vote = wire::from_vote_request(vote)?;
                speaks_for_itself(from, vote.vote.leader_id().node_id)?;
                if !vote.leadership_transfer {
                    self.may_elect(from, seat).await?;
                }
                let answer = raft.vote(vote).await.map_err(|error| failed(&error))?;
                Ok(wire::vote_response(&answer))
            }
            request::Message::PreVote(vote) => {
                let vote = wire::from_vote_request(vote)?;
                speaks_for_itself(from, vote.vote.leader_id().node_id)?;
                self.may_elect(from, seat).await?;
                let answer = raft.pre_vote(vote).await.map_err(|error| failed(&error))?;
                Ok(wire::vote_response(&answer))
            }
            request::Message::Append(append) => {
                let append = wire::from_append_request(append)?;
                speaks_for_itself(from, append.vote.leader_id().node_id)?;
                // Before the leader can hear of it, and once more for one that is new here.
                if seat.leader() == Some(from) {
                    seat.follow(from);
                }
                let answer = raft.append_entries(append).await;
                let answer = answer.map_err(|error| failed(&error))?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    seat.follow(from);
                }
                Ok(wire::append_response(&answer))
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
            request::Message::Quiesce(quiesce) => {
                let (vote, last) = wire::from_quiesce_request(quiesce)?;
                speaks_for_itself(from, vote.leader_id().node_id)?;
                Ok(quiesce::agree(seat, &vote, &last))
            }
            request::Message::Pulse(_) => Ok(response::Message::Pulse(response::Pulse {})),
        }
    }

    /// Whether another leader may be elected: not while one lives whose heartbeats have ended because its group has
    /// nothing to do, and not by a node that may have promised a leader its lease before it was started again.
    async fn may_elect(&self, candidate: NodeId, seat: &Seat) -> Result<(), Refusal> {
        if self.signs.may_have_promised() {
            return Err(Refusal::MayHavePromised);
        }
        // openraft forgets what it has promised a leader once its lease was ended.
        let promised = seat.promised_to().filter(|leader| *leader != candidate);
        if let Some(leader) = promised {
            return Err(Refusal::LeaderLives(leader));
        }
        let leader = seat.leader().filter(|leader| *leader != candidate);
        let Some(leader) = leader.filter(|_| seat.is_quiesced()) else {
            return Ok(());
        };
        let lives = leader == seat.node() || self.signs.lives(leader);
        // The candidate has not heard of the leader: now it will, or both elect another.
        seat.wake().await;
        if lives {
            Err(Refusal::LeaderLives(leader))
        } else {
            Ok(())
        }
    }

    /// Whether a node may say this to a group.
    ///
    /// What this node knows of the members may be old, so the catalog's word counts too. A replica that does not know yet
    /// that it is a member takes entries of any leader: it begins with those of long ago, when others were, and the one
    /// that leads now may be about to leave. A node that was removed is a member of nothing, whatever groups that
    /// have not left it out yet say.
    fn is_member(
        &self,
        (raft, is_back): (&Raft, bool),
        group: GroupId,
        from: NodeId,
        message: &request::Message,
    ) -> bool {
        if !self.knows(from) {
            return false;
        }
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        if members.get_node(&from).is_some() {
            return true;
        }
        let is_outside = !is_back || members.get_node(&metrics.id).is_none();
        drop(metrics);
        let from_leader = matches!(
            message,
            request::Message::Append(_) | request::Message::Snapshot(_)
        );
        if is_outside && from_leader {
            return true;
        }
        if group == CATALOG_GROUP {
            return true;
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
