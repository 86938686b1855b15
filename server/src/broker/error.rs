//! What can go wrong with a verb of the broker. One variant a fact; each maps to exactly one `ErrorReason`.

use kelda_proto::v1;

use crate::{
    consensus::ChangeError,
    types::{NodeId, Offset},
};

/// A field of a request that is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `records[3].headers`.
    pub field: String,
    /// What it must be.
    pub message: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Why a verb failed. The documentation of `kelda.v1.ErrorReason` says what a client should do about each.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "the fields are the numbers that the message shows"
)]
pub enum Error {
    #[error("invalid request: {}", describe(.0))]
    InvalidFields(Vec<Violation>),
    #[error("topic name {topic:?} must match [a-zA-Z0-9._-]{{1,249}} and not be . or ..")]
    InvalidTopicName { topic: String },
    #[error("topic {topic} does not exist: create it first")]
    UnknownTopic { topic: String },
    #[error("topic {topic} has no partition {partition}: choose one below {partition_count}")]
    UnknownPartition {
        topic: String,
        partition: i64,
        partition_count: u32,
    },
    #[error("topic {topic} exists already: choose another name, or use this topic")]
    TopicExists { topic: String },
    #[error(
        "record {record_index} has {size_bytes} bytes, more than the limit of {limit_bytes}: split it, or store it elsewhere and produce a reference"
    )]
    RecordTooLarge {
        record_index: usize,
        size_bytes: usize,
        limit_bytes: usize,
    },
    #[error(
        "batch has {size_bytes} bytes or records, more than the limit of {limit_bytes}: send fewer records at once"
    )]
    BatchTooLarge {
        size_bytes: usize,
        limit_bytes: usize,
    },
    #[error(
        "crc32c is {expected:#010x} but the bytes have {actual:#010x}: send the batch again, or correct how the client computes CRC-32C"
    )]
    ChecksumMismatch { expected: u32, actual: u32 },
    #[error(
        "record_count is {expected} but there are {actual} records: set record_count to the number of records"
    )]
    RecordCountMismatch { expected: i64, actual: u64 },
    #[error(
        "records can not be decoded ({detail}): send one encoded RecordSet, compressed as compression says"
    )]
    MalformedRecords { detail: String },
    #[error(
        "batch decompresses to more than the limit of {limit_bytes} bytes: send fewer records at once"
    )]
    DecompressedTooLarge { limit_bytes: usize },
    #[error("offset {offset} is outside [{log_start}, {end}]: use an offset in it")]
    OffsetOutOfRange {
        offset: i64,
        log_start: Offset,
        end: Offset,
    },
    #[error(
        "expected_offset is {expected} but the next offset is {next}: read what came in between, then decide"
    )]
    ExpectedOffsetMismatch { expected: i64, next: Offset },
    #[error(
        "session {session} epoch {epoch} is fenced by epoch {current_epoch}: stop this producer"
    )]
    ProducerFenced {
        session: String,
        epoch: i32,
        current_epoch: i32,
    },
    #[error(
        "session {session} sent sequence {sequence} but {expected_sequence} is next: send that first, or raise the epoch and start at 0"
    )]
    SequenceOutOfOrder {
        session: String,
        sequence: i64,
        expected_sequence: i64,
    },
    #[error("this node does not lead the partition: ask the leader")]
    NotLeader {
        leader: Option<NodeId>,
        address: Option<String>,
    },
    #[error("partition {partition} of topic {topic} has no leader now: try again")]
    NoLeader { topic: String, partition: u32 },
    #[error(
        "the catalog has no leader now, so nothing was changed: start the silent ones of kelda cluster nodes if there are any, and try again"
    )]
    NoCatalogLeader,
    #[error(
        "the catalog lost its leader meanwhile, so it is not known whether anything was changed: look before you repeat it"
    )]
    ChangeUnknown,
    #[error("the node is starting or stopping: try again or use another node")]
    NotReady,
    #[error("too much is in flight ({limit}): wait and try again")]
    Overloaded { limit: &'static str },
    #[error(
        "free disk space of {free_bytes} bytes is below the floor of {floor_bytes}: free space or lower --free-floor-bytes"
    )]
    DiskFull {
        free_bytes: u64,
        reusable_bytes: u64,
        floor_bytes: u64,
    },
    #[error("the deadline passed: allow more time, or ask for less")]
    DeadlineExceeded,
    #[error(
        "stored data of partition {partition} of topic {topic} fails its checksum and is not served: restore it"
    )]
    CorruptData { topic: String, partition: u32 },
    #[error("the limit of {limit} topics or partitions is reached: delete some first")]
    LimitReached { limit: usize },
    #[error(
        "replication factor {replication_factor} needs more nodes than the {nodes} there are: ask for fewer replicas, or add nodes"
    )]
    NotEnoughNodes {
        replication_factor: i32,
        nodes: usize,
    },
    #[error("there is no node {node}: list the nodes and choose one of them")]
    UnknownNode { node: NodeId },
    #[error(
        "{partitions} partitions have replicas on node {node}: drain it, wait until it is empty, then remove it"
    )]
    NodeInUse { node: NodeId, partitions: usize },
    #[error("node {node} is the last one of the cluster: stop it instead")]
    LastNode { node: NodeId },
    #[error(
        "node {node} lives, or was heard of less than half a minute ago: drain it first if it lives, else try again soon"
    )]
    NodeAlive { node: NodeId },
    #[error(
        "without node {node} there are {nodes} nodes for partitions that need {replication_factor} replicas: add a node, or lower the replication factor"
    )]
    TooFewNodesLeft {
        node: NodeId,
        replication_factor: usize,
        nodes: usize,
    },
    #[error(
        "node {node} has no replica of partition {partition} of topic {topic}: choose one that has"
    )]
    NotAReplica {
        topic: String,
        partition: u32,
        node: NodeId,
    },
    #[error(
        "most replicas of partition {partition} of topic {topic} are on silent nodes: start one of them, or delete the topic"
    )]
    QuorumLost { topic: String, partition: u32 },
    #[error(
        "node {node} lacks records of partition {partition} of topic {topic} or does not answer: try again"
    )]
    ReplicaBehind {
        topic: String,
        partition: u32,
        node: NodeId,
    },
    /// What the partition's leader said, to be handed on as it is.
    #[error("{}", .0.message)]
    Remote(Box<v1::Error>),
    #[error("internal error: {detail}")]
    Internal { detail: String },
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NoLeader => Self::NoCatalogLeader,
            ChangeError::Indefinite => Self::ChangeUnknown,
            ChangeError::Stopped => Self::NotReady,
            // Those that a client can bring about have errors of their own.
            ChangeError::Rejected(rejection) => Self::Internal {
                detail: rejection.to_string(),
            },
        }
    }
}

fn describe(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations
        .iter()
        .map(|v| format!("{} {}", v.field, v.message))
        .collect();
    lines.join("; ")
}

impl Error {
    /// One field at fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidFields(vec![Violation::new(field, message)])
    }

    /// Whether the same call may succeed later without a change.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::NoLeader { .. }
                | Self::NoCatalogLeader
                | Self::ChangeUnknown
                | Self::NotReady
                | Self::Overloaded { .. }
                | Self::DiskFull { .. }
                | Self::DeadlineExceeded
                | Self::ReplicaBehind { .. }
        )
    }
}
