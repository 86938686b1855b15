//! openraft's messages as nodes send them, and back. Decoding is total: another node's bytes never panic.

use kelda_proto::{
    batch::crc32c,
    internal::v1::{
        self as wire, ReplicatedEntry, raft_request as request, raft_response as response,
        raft_response::append_response::Result as AppendResult, replicated_entry as entry,
    },
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::{
    LogId, RaftEntry, TypeConfig, Vote,
    encode::{
        self, decode_entry, encode_entry, from_stored_log_id, from_stored_vote, stored_log_id,
        stored_vote,
    },
};
use crate::{
    storage::{Entry, EntryKind, Part},
    types::NodeId,
};

/// A message that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message between nodes has no valid {0}: run the same version on all nodes")]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) fn vote(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    vote.map(from_stored_vote).ok_or(Malformed("vote"))
}

fn log_id(id: Option<&LogId>) -> Option<wire::LogId> {
    id.map(stored_log_id)
}

fn from_log_id(id: Option<wire::LogId>) -> Option<LogId> {
    id.as_ref().map(from_stored_log_id)
}

pub(super) fn vote_request(asked: &VoteRequest<TypeConfig>) -> request::VoteRequest {
    request::VoteRequest {
        vote: Some(stored_vote(&asked.vote)),
        last: log_id(asked.last_log_id.as_ref()),
        leadership_transfer: asked.leadership_transfer,
    }
}

pub(super) fn from_vote_request(
    asked: request::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut vote = VoteRequest::new(vote(asked.vote)?, from_log_id(asked.last));
    vote.leadership_transfer = asked.leadership_transfer;
    Ok(vote)
}

pub(super) fn vote_response(answer: &VoteResponse<TypeConfig>) -> response::Message {
    response::Message::Vote(response::VoteResponse {
        vote: Some(stored_vote(&answer.vote)),
        granted: answer.vote_granted,
        last: log_id(answer.last_log_id.as_ref()),
    })
}

pub(super) fn from_vote_response(
    answer: &response::Message,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let response::Message::Vote(answer) = answer else {
        return Err(Malformed("answer to a vote"));
    };
    let given = vote(answer.vote)?;
    Ok(VoteResponse::new(
        given,
        from_log_id(answer.last),
        answer.granted,
    ))
}

pub(super) fn quiesce_request(vote: &Vote, last: &LogId) -> request::QuiesceRequest {
    request::QuiesceRequest {
        vote: Some(stored_vote(vote)),
        last: Some(stored_log_id(last)),
    }
}

pub(super) fn from_quiesce_request(
    asked: request::QuiesceRequest,
) -> Result<(Vote, LogId), Malformed> {
    let last = from_log_id(asked.last).ok_or(Malformed("last entry"))?;
    Ok((vote(asked.vote)?, last))
}

pub(super) fn append_request(append: &AppendEntriesRequest<TypeConfig>) -> request::AppendRequest {
    request::AppendRequest {
        vote: Some(stored_vote(&append.vote)),
        previous: log_id(append.prev_log_id.as_ref()),
        entries: append.entries.iter().map(replicated).collect(),
        commit: log_id(append.leader_commit.as_ref()),
    }
}

pub(super) fn from_append_request(
    append: request::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let entries = append.entries.into_iter().map(from_replicated);
    let entries = entries.collect::<Result<Vec<RaftEntry>, _>>()?;
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: vote(append.vote)?,
        prev_log_id: from_log_id(append.previous),
        entries,
        leader_commit: from_log_id(append.commit),
    };
    // openraft takes for granted that entries follow each other.
    let first = request.prev_log_id.map_or(0, |id| id.index + 1);
    let mut placed = (first..).zip(&request.entries);
    if placed.any(|(index, entry)| entry.log_id.index != index) {
        return Err(Malformed("order of entries"));
    }
    Ok(request)
}

fn replicated(from: &RaftEntry) -> ReplicatedEntry {
    let Entry {
        kind,
        header,
        parts,
        ..
    } = encode_entry(from);
    let kind = match kind {
        EntryKind::Blank => entry::Kind::Blank,
        EntryKind::Membership => entry::Kind::Membership,
        EntryKind::Command => entry::Kind::Command,
    };
    let part = |part: Part| entry::Part {
        bytes: part.bytes,
        crc32c: part.crc32c,
    };
    ReplicatedEntry {
        id: Some(stored_log_id(&from.log_id)),
        kind: kind.into(),
        header,
        parts: parts.into_iter().map(part).collect(),
    }
}

fn from_replicated(from: ReplicatedEntry) -> Result<RaftEntry, Malformed> {
    let kind = match from.kind() {
        entry::Kind::Unspecified => return Err(Malformed("kind of entry")),
        entry::Kind::Blank => EntryKind::Blank,
        entry::Kind::Membership => EntryKind::Membership,
        entry::Kind::Command => EntryKind::Command,
    };
    let parts = from.parts.into_iter().map(|part| {
        // What was damaged on its way must not be stored: the leader sends it again.
        if crc32c(&part.bytes) != part.crc32c {
            return Err(Malformed("checksum of records"));
        }
        Ok(Part {
            bytes: part.bytes,
            crc32c: part.crc32c,
        })
    });
    let id = from_log_id(from.id).ok_or(Malformed("entry id"))?;
    let entry = Entry {
        id: encode::entry_id(&id),
        kind,
        header: from.header,
        parts: parts.collect::<Result<Vec<_>, _>>()?,
    };
    decode_entry(entry).map_err(|_| Malformed("entry"))
}

pub(super) fn append_response(answer: &AppendEntriesResponse<TypeConfig>) -> response::Message {
    let (result, last, vote) = match answer {
        AppendEntriesResponse::Success => (AppendResult::Success, None, None),
        AppendEntriesResponse::PartialSuccess(last) => (AppendResult::Partial, last.as_ref(), None),
        AppendEntriesResponse::Conflict => (AppendResult::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => (AppendResult::HigherVote, None, Some(vote)),
    };
    response::Message::Append(response::AppendResponse {
        result: result.into(),
        last: log_id(last),
        vote: vote.map(stored_vote),
    })
}

pub(super) fn from_append_response(
    answer: &response::Message,
) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    let response::Message::Append(answer) = answer else {
        return Err(Malformed("answer to an append"));
    };
    Ok(match answer.result() {
        AppendResult::Unspecified => return Err(Malformed("result of an append")),
        AppendResult::Success => AppendEntriesResponse::Success,
        AppendResult::Partial => AppendEntriesResponse::PartialSuccess(from_log_id(answer.last)),
        AppendResult::Conflict => AppendEntriesResponse::Conflict,
        AppendResult::HigherVote => AppendEntriesResponse::HigherVote(vote(answer.vote)?),
    })
}

pub(super) fn transfer_request(
    transfer: &TransferLeaderRequest<TypeConfig>,
) -> request::TransferRequest {
    request::TransferRequest {
        vote: Some(stored_vote(transfer.from_leader())),
        to: transfer.to_node_id().0,
        last: log_id(transfer.last_log_id()),
    }
}

pub(super) fn from_transfer_request(
    transfer: request::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    Ok(TransferLeaderRequest::new(
        vote(transfer.vote)?,
        NodeId(transfer.to),
        from_log_id(transfer.last),
    ))
}
