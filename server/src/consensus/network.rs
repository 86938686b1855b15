//! openraft's way to the other members of a group: over the lanes of [`Peers`].

use std::{future::Future, time::Duration};

use bytes::Bytes;
use kelda_proto::internal::v1::{RaftRequest, raft_request as request, raft_response as response};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::SnapshotOf,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use super::{Member, TypeConfig, Vote, encode, wire};
use crate::{
    peers::{Lane, PeerError, Peers},
    types::{GroupId, NodeId},
};

/// How long a follower may take to store what it was sent; a frozen one is given up, and asked again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);
/// Committed entries that a replica must lack for its appends to go by the bulk lane.
const FAR_BEHIND: u64 = 1000;

type RpcError = RPCError<TypeConfig>;

/// Makes the ways of one group.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) peers: Peers,
    pub(super) group: GroupId,
}

/// The way to one member.
pub(super) struct Way {
    peers: Peers,
    group: GroupId,
    to: NodeId,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: NodeId, _: &Member) -> Way {
        Way {
            peers: self.peers.clone(),
            group: self.group,
            to,
        }
    }
}

impl Way {
    async fn send(
        &self,
        lane: Lane,
        message: request::Message,
        timeout: Duration,
    ) -> Result<response::Message, RpcError> {
        let request = RaftRequest {
            call: 0,
            group: self.group.0,
            message: Some(message),
        };
        let answer = self.peers.raft(self.to, lane, request, timeout).await;
        match answer {
            Ok(response::Message::Error(detail)) => Err(unreachable(&PeerError::Unreachable {
                node: self.to,
                detail,
            })),
            Ok(answer) => Ok(answer),
            Err(error @ PeerError::Timeout(_)) => Err(RPCError::Network(NetworkError::new(&error))),
            Err(error) => Err(unreachable(&error)),
        }
    }
}

fn unreachable(error: &PeerError) -> RpcError {
    RPCError::Unreachable(Unreachable::new(error))
}

fn malformed(error: wire::Malformed) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn lane_of(append: &AppendEntriesRequest<TypeConfig>) -> Lane {
    let Some(last) = append.entries.last() else {
        return Lane::Control;
    };
    let commit = append.leader_commit.map_or(0, |id| id.index);
    if commit > last.log_id.index.saturating_add(FAR_BEHIND) {
        Lane::Bulk
    } else {
        Lane::Append
    }
}

impl RaftNetworkV2<TypeConfig> for Way {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        append: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let lane = lane_of(&append);
        let timeout = match lane {
            Lane::Control => option.hard_ttl(),
            Lane::Append | Lane::Bulk => APPEND_TIMEOUT,
        };
        let message = request::Message::Append(wire::append_request(&append));
        let answer = self.send(lane, message, timeout).await?;
        wire::from_append_response(&answer).map_err(malformed)
    }

    async fn vote(
        &mut self,
        vote: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = request::Message::Vote(wire::vote_request(&vote));
        let answer = self.send(Lane::Control, message, option.hard_ttl()).await?;
        wire::from_vote_response(&answer).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        vote: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = request::Message::PreVote(wire::vote_request(&vote));
        let answer = self.send(Lane::Control, message, option.hard_ttl()).await?;
        wire::from_vote_response(&answer).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
        closed: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let message = request::Message::Snapshot(request::SnapshotRequest {
            vote: Some(encode::stored_vote(&vote)),
            snapshot: Some(encode::stored_snapshot(&snapshot.meta, &snapshot.snapshot)),
        });
        let answer = tokio::select! {
            answer = self.send(Lane::Bulk, message, SNAPSHOT_TIMEOUT) => answer,
            // Dropping the call only stops the waiting.
            closed = closed => return Err(closed.into()),
        };
        let answer =
            answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let response::Message::Snapshot(vote) = answer else {
            let error = wire::Malformed("answer to a snapshot");
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        Ok(SnapshotResponse::new(encode::from_stored_vote(vote)))
    }

    async fn transfer_leader(
        &mut self,
        transfer: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = request::Message::Transfer(wire::transfer_request(&transfer));
        let answer = self.send(Lane::Control, message, option.hard_ttl()).await?;
        match answer {
            response::Message::Transfer(answer) if answer.refusal.is_empty() => Ok(Ok(())),
            response::Message::Transfer(answer) => Err(unreachable(&PeerError::Unreachable {
                node: self.to,
                detail: answer.refusal,
            })),
            _ => Err(malformed(wire::Malformed("answer to a transfer"))),
        }
    }
}
