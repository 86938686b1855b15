//! openraft's types as they are stored, and back. Decoding is total: the disk's content never panics.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kelda_proto::internal::v1 as stored;
use openraft::{EntryPayload, vote::leader_id_adv::CommittedLeaderId};
use prost::Message;

use super::{Command, LogId, Member, Membership, RaftEntry, SnapshotMeta, StoredMembership, Vote};
use crate::{
    storage::{Entry, EntryId, EntryKind},
    types::{LogIndex, NodeId},
};

/// Stored bytes that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored {what} of the group can not be decoded: restore the data directory from a copy")]
pub struct Invalid {
    what: &'static str,
}

impl Invalid {
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

impl From<Invalid> for std::io::Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, invalid)
    }
}

pub(super) fn log_id(id: EntryId) -> LogId {
    LogId::new(
        CommittedLeaderId {
            term: id.term,
            node_id: id.leader,
        },
        id.index.0,
    )
}

pub(super) fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: LogIndex(id.index),
    }
}

pub(super) fn stored_log_id(id: &LogId) -> stored::LogId {
    stored::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id.0,
        index: id.index,
    }
}

pub(super) fn from_stored_log_id(id: &stored::LogId) -> LogId {
    LogId::new(
        CommittedLeaderId {
            term: id.term,
            node_id: NodeId(id.node),
        },
        id.index,
    )
}

pub(super) fn stored_vote(vote: &Vote) -> stored::Vote {
    let leader = vote.leader_id();
    stored::Vote {
        term: leader.term,
        node: leader.node_id.0,
        committed: vote.is_committed(),
    }
}

pub(super) fn from_stored_vote(vote: stored::Vote) -> Vote {
    let node = NodeId(vote.node);
    if vote.committed {
        Vote::new_committed(vote.term, node)
    } else {
        Vote::new(vote.term, node)
    }
}

/// A vote, and the entry that once left this node out, see `leaving.rs`.
pub(super) fn encode_vote(vote: &Vote, left: Option<LogIndex>) -> Bytes {
    let stored::Vote {
        term,
        node,
        committed,
    } = stored_vote(vote);
    let vote = stored::StoredVote {
        term,
        node,
        committed,
        left_index: left.map_or(0, |left| left.0),
    };
    vote.encode_to_vec().into()
}

pub(super) fn decode_vote(bytes: &Bytes) -> Result<(Vote, Option<LogIndex>), Invalid> {
    let vote = stored::StoredVote::decode(bytes.clone()).map_err(|_| Invalid::new("vote"))?;
    let left = (vote.left_index != 0).then_some(LogIndex(vote.left_index));
    let vote = stored::Vote {
        term: vote.term,
        node: vote.node,
        committed: vote.committed,
    };
    Ok((from_stored_vote(vote), left))
}

pub(super) fn stored_membership(
    membership: &Membership,
    log_id: Option<&LogId>,
) -> stored::Membership {
    stored::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| stored::Voters {
                nodes: voters.iter().map(|node| node.0).collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, member)| stored::Member {
                node: node.0,
                address: member.address.clone(),
            })
            .collect(),
        log_id: log_id.map(stored_log_id),
    }
}

pub(super) fn from_stored_membership(
    membership: stored::Membership,
) -> Result<StoredMembership, Invalid> {
    let log_id = membership.log_id.as_ref().map(from_stored_log_id);
    let configs: Vec<BTreeSet<NodeId>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.nodes.into_iter().map(NodeId).collect())
        .collect();
    let members: BTreeMap<NodeId, Member> = membership
        .members
        .into_iter()
        .map(|member| {
            (
                NodeId(member.node),
                Member {
                    address: member.address,
                },
            )
        })
        .collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(StoredMembership::new(log_id, Membership::default()));
    }
    let membership = Membership::new(configs, members).map_err(|_| Invalid::new("membership"))?;
    Ok(StoredMembership::new(log_id, membership))
}

/// An entry as storage takes it.
pub(super) fn encode_entry(entry: &RaftEntry) -> Entry {
    let (kind, header, parts) = match &entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new(), Vec::new()),
        EntryPayload::Normal(command) => (
            EntryKind::Command,
            command.header.clone(),
            command.parts.clone(),
        ),
        EntryPayload::Membership(membership) => (
            EntryKind::Membership,
            stored_membership(membership, None).encode_to_vec().into(),
            Vec::new(),
        ),
    };
    Entry {
        id: entry_id(&entry.log_id),
        kind,
        header,
        parts,
    }
}

/// An entry as Raft takes it.
pub(super) fn decode_entry(entry: Entry) -> Result<RaftEntry, Invalid> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Command => EntryPayload::Normal(Command {
            header: entry.header,
            parts: entry.parts,
        }),
        EntryKind::Membership => EntryPayload::Membership(decode_membership(&entry.header)?),
    };
    Ok(RaftEntry {
        log_id: log_id(entry.id),
        payload,
    })
}

/// The members that a membership entry's header holds.
pub(super) fn decode_membership(header: &Bytes) -> Result<Membership, Invalid> {
    let membership =
        stored::Membership::decode(header.clone()).map_err(|_| Invalid::new("membership"))?;
    Ok(from_stored_membership(membership)?.membership().clone())
}

/// How far a group has applied its log.
#[derive(Clone, Debug, Default)]
pub(super) struct AppliedState {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) machine: Bytes,
}

pub(super) fn encode_applied(state: &AppliedState) -> Bytes {
    stored::AppliedState {
        applied: state.applied.as_ref().map(stored_log_id),
        membership: Some(stored_membership(
            state.membership.membership(),
            state.membership.log_id().as_ref(),
        )),
        machine: state.machine.clone(),
    }
    .encode_to_vec()
    .into()
}

pub(super) fn decode_applied(bytes: &Bytes) -> Result<AppliedState, Invalid> {
    let state =
        stored::AppliedState::decode(bytes.clone()).map_err(|_| Invalid::new("applied state"))?;
    Ok(AppliedState {
        applied: state.applied.as_ref().map(from_stored_log_id),
        membership: from_stored_membership(state.membership.unwrap_or_default())?,
        machine: state.machine,
    })
}

pub(super) fn stored_snapshot(meta: &SnapshotMeta, machine: &Bytes) -> stored::Snapshot {
    stored::Snapshot {
        last: meta.last_log_id.as_ref().map(stored_log_id),
        membership: Some(stored_membership(
            meta.last_membership.membership(),
            meta.last_membership.log_id().as_ref(),
        )),
        machine: machine.clone(),
    }
}

pub(super) fn from_stored_snapshot(
    snapshot: stored::Snapshot,
) -> Result<(SnapshotMeta, Bytes), Invalid> {
    let meta = SnapshotMeta {
        last_log_id: snapshot.last.as_ref().map(from_stored_log_id),
        last_membership: from_stored_membership(snapshot.membership.unwrap_or_default())?,
    };
    Ok((meta, snapshot.machine))
}

pub(super) fn encode_snapshot(meta: &SnapshotMeta, machine: &Bytes) -> Bytes {
    stored_snapshot(meta, machine).encode_to_vec().into()
}

pub(super) fn decode_snapshot(bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), Invalid> {
    let snapshot = stored::Snapshot::decode(bytes.clone()).map_err(|_| Invalid::new("snapshot"))?;
    from_stored_snapshot(snapshot)
}
