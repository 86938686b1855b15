//! Says an error of the broker in gRPC: the one place that turns [`broker::Error`](Error) into a status.

use std::time::Duration;

use kelda_proto::v1::{self, ErrorReason};
use tonic::Status;

use crate::{
    broker::Error,
    middleware::{from_decoder, reply::Reply},
};

/// How long to wait for a new leader: less than an election takes, as some of it has passed.
const LEADER_RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long to wait for room in flight.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_millis(100);

/// As the end of a call or a stream.
pub(super) fn status(error: &Error) -> Status {
    reply(error).into_status()
}

/// As an error inside a stream that goes on.
pub(super) fn item(error: &Error) -> v1::Error {
    reply(error).into_item()
}

/// The end of a stream whose next message could not be received.
pub(super) fn received(status: Status) -> Status {
    from_decoder(&status).map_or(status, Reply::into_status)
}

/// For a service that health does not know, as the health protocol has it.
pub(super) fn unknown_service() -> Status {
    Status::not_found("no such service")
}

/// For a service that this node does not have, as gRPC has it.
pub(super) fn unimplemented() -> Status {
    Status::unimplemented("no such service")
}

#[allow(
    clippy::too_many_lines,
    reason = "one arm a reason, which is best read in one table"
)]
fn reply(error: &Error) -> Reply {
    let say = |reason| Reply::new(reason, error.to_string());
    match error {
        Error::InvalidFields(violations) => violations
            .iter()
            .fold(say(ErrorReason::InvalidField), |reply, violation| {
                reply.with_violation(&*violation.field, &*violation.message)
            }),
        Error::InvalidTopicName { topic } => {
            say(ErrorReason::InvalidTopicName).with("topic", topic)
        }
        Error::UnknownTopic { topic } => say(ErrorReason::UnknownTopic).with("topic", topic),
        Error::UnknownPartition {
            topic,
            partition,
            partition_count,
        } => say(ErrorReason::UnknownPartition)
            .with("topic", topic)
            .with("partition", partition)
            .with("partition_count", partition_count),
        Error::TopicExists { topic } => say(ErrorReason::TopicExists).with("topic", topic),
        Error::RecordTooLarge {
            record_index,
            size_bytes,
            limit_bytes,
        } => say(ErrorReason::RecordTooLarge)
            .with("record_index", record_index)
            .with("size_bytes", size_bytes)
            .with("limit_bytes", limit_bytes),
        Error::BatchTooLarge {
            size_bytes,
            limit_bytes,
        } => say(ErrorReason::BatchTooLarge)
            .with("size_bytes", size_bytes)
            .with("limit_bytes", limit_bytes),
        Error::ChecksumMismatch { expected, actual } => say(ErrorReason::ChecksumMismatch)
            .with("expected", expected)
            .with("actual", actual),
        Error::RecordCountMismatch { expected, actual } => say(ErrorReason::RecordCountMismatch)
            .with("expected", expected)
            .with("actual", actual),
        Error::MalformedRecords { detail } => {
            say(ErrorReason::MalformedRecords).with("detail", detail)
        }
        Error::DecompressedTooLarge { limit_bytes } => {
            say(ErrorReason::DecompressedTooLarge).with("limit_bytes", limit_bytes)
        }
        Error::OffsetOutOfRange {
            offset,
            log_start,
            end,
        } => say(ErrorReason::OffsetOutOfRange)
            .with("offset", offset)
            .with("log_start_offset", log_start)
            .with("end_offset", end),
        Error::ExpectedOffsetMismatch { expected, next } => {
            say(ErrorReason::ExpectedOffsetMismatch)
                .with("expected_offset", expected)
                .with("next_offset", next)
        }
        Error::ProducerFenced {
            session,
            epoch,
            current_epoch,
        } => say(ErrorReason::ProducerFenced)
            .with("session", session)
            .with("epoch", epoch)
            .with("current_epoch", current_epoch),
        Error::SequenceOutOfOrder {
            session,
            sequence,
            expected_sequence,
        } => say(ErrorReason::SequenceOutOfOrder)
            .with("session", session)
            .with("sequence", sequence)
            .with("expected_sequence", expected_sequence),
        Error::NotLeader { leader, address } => {
            let mut reply = say(ErrorReason::NotLeader);
            if let Some(leader) = leader {
                reply = reply.with("leader_id", leader);
            }
            if let Some(address) = address {
                reply = reply.with("leader_address", address);
            }
            reply
        }
        Error::NoLeader { topic, partition } => say(ErrorReason::NoLeader)
            .with("topic", topic)
            .with("partition", partition)
            .with_retry_after(LEADER_RETRY_AFTER),
        Error::NoCatalogLeader => {
            say(ErrorReason::NoCatalogLeader).with_retry_after(LEADER_RETRY_AFTER)
        }
        Error::ChangeUnknown => {
            say(ErrorReason::ChangeUnknown).with_retry_after(LEADER_RETRY_AFTER)
        }
        Error::NotReady => say(ErrorReason::NotReady),
        Error::Overloaded { limit } => say(ErrorReason::Overloaded)
            .with("limit", limit)
            .with_quota(limit)
            .with_retry_after(OVERLOAD_RETRY_AFTER),
        Error::DiskFull {
            free_bytes,
            reusable_bytes,
            floor_bytes,
        } => say(ErrorReason::DiskFull)
            .with("free_bytes", free_bytes)
            .with("reusable_bytes", reusable_bytes)
            .with("floor_bytes", floor_bytes)
            .with_quota("disk"),
        Error::DeadlineExceeded => say(ErrorReason::DeadlineExceeded),
        Error::CorruptData { topic, partition } => say(ErrorReason::CorruptData)
            .with("topic", topic)
            .with("partition", partition),
        Error::LimitReached { limit } => say(ErrorReason::LimitReached)
            .with("limit", limit)
            .with_quota("topics and partitions"),
        Error::NotEnoughNodes {
            replication_factor,
            nodes,
        } => say(ErrorReason::NotEnoughNodes)
            .with("replication_factor", replication_factor)
            .with("nodes", nodes),
        Error::UnknownNode { node } => say(ErrorReason::UnknownNode).with("node", node),
        Error::NodeInUse { node, partitions } => say(ErrorReason::NodeInUse)
            .with("node", node)
            .with("partitions", partitions),
        Error::LastNode { node } => say(ErrorReason::LastNode).with("node", node),
        Error::NodeAlive { node } => say(ErrorReason::NodeAlive).with("node", node),
        Error::TooFewNodesLeft {
            node,
            replication_factor,
            nodes,
        } => say(ErrorReason::TooFewNodesLeft)
            .with("node", node)
            .with("replication_factor", replication_factor)
            .with("nodes", nodes),
        Error::NotAReplica {
            topic,
            partition,
            node,
        } => say(ErrorReason::NotAReplica)
            .with("topic", topic)
            .with("partition", partition)
            .with("node", node),
        Error::QuorumLost { topic, partition } => say(ErrorReason::QuorumLost)
            .with("topic", topic)
            .with("partition", partition),
        Error::ReplicaBehind {
            topic,
            partition,
            node,
        } => say(ErrorReason::ReplicaBehind)
            .with("topic", topic)
            .with("partition", partition)
            .with("node", node)
            .with_retry_after(LEADER_RETRY_AFTER),
        Error::Remote(error) => Reply::from_item(error),
        Error::Internal { .. } => say(ErrorReason::Internal),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        broker::Violation,
        types::{NodeId, Offset},
    };

    /// One of each.
    #[allow(clippy::too_many_lines, reason = "a list")]
    fn errors() -> Vec<Error> {
        let topic = || "orders".to_owned();
        let session = || "session-1".to_owned();
        vec![
            Error::InvalidFields(vec![Violation::new("topic", "must be given")]),
            Error::InvalidTopicName { topic: topic() },
            Error::UnknownTopic { topic: topic() },
            Error::UnknownPartition {
                topic: topic(),
                partition: -1,
                partition_count: 3,
            },
            Error::TopicExists { topic: topic() },
            Error::RecordTooLarge {
                record_index: 1,
                size_bytes: 2,
                limit_bytes: 3,
            },
            Error::BatchTooLarge {
                size_bytes: 2,
                limit_bytes: 3,
            },
            Error::ChecksumMismatch {
                expected: 1,
                actual: 2,
            },
            Error::RecordCountMismatch {
                expected: 1,
                actual: 2,
            },
            Error::MalformedRecords {
                detail: "no".to_owned(),
            },
            Error::DecompressedTooLarge { limit_bytes: 1 },
            Error::OffsetOutOfRange {
                offset: 9,
                log_start: Offset(1),
                end: Offset(2),
            },
            Error::ExpectedOffsetMismatch {
                expected: 1,
                next: Offset(2),
            },
            Error::ProducerFenced {
                session: session(),
                epoch: 1,
                current_epoch: 2,
            },
            Error::SequenceOutOfOrder {
                session: session(),
                sequence: 1,
                expected_sequence: 2,
            },
            Error::NotLeader {
                leader: Some(NodeId(2)),
                address: Some("host:1".to_owned()),
            },
            Error::NoLeader {
                topic: topic(),
                partition: 1,
            },
            Error::NoCatalogLeader,
            Error::ChangeUnknown,
            Error::NotReady,
            Error::Overloaded { limit: "bytes" },
            Error::DiskFull {
                free_bytes: 1,
                reusable_bytes: 0,
                floor_bytes: 2,
            },
            Error::DeadlineExceeded,
            Error::CorruptData {
                topic: topic(),
                partition: 1,
            },
            Error::LimitReached { limit: 1 },
            Error::NotEnoughNodes {
                replication_factor: 3,
                nodes: 1,
            },
            Error::UnknownNode { node: NodeId(9) },
            Error::NodeInUse {
                node: NodeId(2),
                partitions: 1,
            },
            Error::LastNode { node: NodeId(1) },
            Error::NodeAlive { node: NodeId(2) },
            Error::TooFewNodesLeft {
                node: NodeId(2),
                replication_factor: 3,
                nodes: 2,
            },
            Error::NotAReplica {
                topic: topic(),
                partition: 1,
                node: NodeId(2),
            },
            Error::QuorumLost {
                topic: topic(),
                partition: 1,
            },
            Error::ReplicaBehind {
                topic: topic(),
                partition: 1,
                node: NodeId(2),
            },
            Error::Internal {
                detail: "bug".to_owned(),
            },
        ]
    }

    /// Metadata keys by reason, as the contract's comments list them.
    fn promised_keys(reason: &str) -> BTreeSet<String> {
        let contract = include_str!("../../../proto/kelda/v1/errors.proto");
        let mut comment = String::new();
        for line in contract.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment.push_str(text);
            } else if line.starts_with(&format!("ERROR_REASON_{reason} =")) {
                break;
            } else {
                comment.clear();
            }
        }
        let keys = comment
            .split_once("Metadata: ")
            .map_or("", |(_, keys)| keys);
        keys.trim_end_matches('.')
            .replace("where known", "")
            .split(',')
            .map(|key| key.trim().to_owned())
            .filter(|key| !key.is_empty())
            .collect()
    }

    #[test]
    fn every_error_has_a_reason_of_its_own_and_the_metadata_that_the_contract_promises() {
        let mut reasons = BTreeSet::new();
        for error in errors() {
            let status = status(&error);
            let info = status.get_details_error_info().unwrap();
            let keys: BTreeSet<_> = info.metadata.into_keys().collect();
            let promised = promised_keys(&info.reason);
            assert_eq!(keys, promised, "{error:?}");
            assert!(reasons.insert(info.reason), "{error:?}");
            let item = item(&error);
            assert_eq!(item.code, status.code() as i32);
            assert_eq!(item.message, status.message());
        }
        assert_eq!(reasons.len(), 35);
    }

    #[test]
    fn what_is_worth_repeating_soon_says_when() {
        for error in errors() {
            let says_when = status(&error).get_details_retry_info().is_some();
            let soon = matches!(
                error,
                Error::NoLeader { .. }
                    | Error::NoCatalogLeader
                    | Error::ChangeUnknown
                    | Error::Overloaded { .. }
                    | Error::ReplicaBehind { .. }
            );
            assert_eq!(says_when, soon, "{error:?}");
        }
    }

    #[test]
    fn all_fields_at_fault_are_listed() {
        let error = Error::InvalidFields(vec![
            Violation::new("topic", "must be given"),
            Violation::new("partition", "must not be negative"),
        ]);
        let bad_request = status(&error).get_details_bad_request().unwrap();
        let fields: Vec<_> = bad_request
            .field_violations
            .iter()
            .map(|v| &*v.field)
            .collect();
        assert_eq!(fields, ["topic", "partition"]);
    }

    #[test]
    fn a_message_that_can_not_be_decoded_is_the_clients_fault() {
        let made_by_tonic = Status::internal("failed to decode Protobuf message");
        let status = received(made_by_tonic);
        assert_eq!(status.code(), Code::InvalidArgument);
        let given_up = received(Status::cancelled("gone"));
        assert_eq!(given_up.code(), Code::Cancelled);
    }
}
