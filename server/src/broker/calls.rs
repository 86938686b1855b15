//! What the verbs take and give: the contract's messages, checked and with the room's own types.

use std::time::Duration;

use bytes::Bytes;
use kelda_proto::v1;

use crate::types::Offset;

/// Records to append.
#[derive(Clone, Debug)]
pub enum Content {
    /// As the producer wrote them; the broker packs them.
    Records(Vec<v1::Record>),
    /// Packed by the producer.
    Batch(v1::RecordBatch),
}

/// Place of an append in a producer session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Id.
    pub id: String,
    /// Epoch.
    pub epoch: i32,
    /// Sequence of this append.
    pub sequence: i64,
}

/// What an ack waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Fsynced and committed on a majority.
    Quorum,
    /// Taken into memory.
    None,
}

/// A produce.
#[derive(Clone, Debug)]
pub struct Produce {
    /// Topic.
    pub topic: String,
    /// Partition, or the broker chooses.
    pub partition: Option<i32>,
    /// Records.
    pub content: Content,
    /// What to wait for.
    pub acks: Acks,
    /// Session, if any.
    pub session: Option<Session>,
    /// Offset that the first record must get.
    pub expected_offset: Option<i64>,
}

/// Where one partition's share of a produce is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduced {
    /// Partition.
    pub partition: u32,
    /// Offset of the first record, `None` with [`Acks::None`].
    pub base_offset: Option<Offset>,
    /// Number of records.
    pub record_count: u32,
    /// Whether the session had appended it before.
    pub duplicate: bool,
    /// When it was appended.
    pub append_time_ms: i64,
    /// Which records of the request, if they went to several partitions.
    pub record_indexes: Vec<u32>,
}

/// What a produce did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Shares in ascending order of partition.
    pub partitions: Vec<PartitionProduced>,
    /// What was waited for.
    pub acks: Acks,
}

/// What a produce stream may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamTerms {
    /// Appends that may be unacknowledged.
    pub window: usize,
    /// Partitions of the topic.
    pub partition_count: u32,
    /// Last sequence of the session by partition.
    pub last_sequences: Vec<(u32, i64)>,
}

/// A fetch.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset wanted.
    pub offset: i64,
    /// How long to wait for `min_bytes`.
    pub max_wait: Duration,
    /// Bytes worth an answer.
    pub min_bytes: usize,
    /// Bytes after which to stop.
    pub max_bytes: usize,
}

/// What there is to read in a partition: `[log_start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest offset.
    pub log_start: Offset,
    /// Offset behind the newest committed record.
    pub end: Offset,
}

/// A committed batch as it was produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// When it was appended.
    pub append_time_ms: i64,
    /// Compression, as in [`v1::Compression`].
    pub compression: i32,
    /// Number of records.
    pub record_count: u32,
    /// CRC-32C of `records`.
    pub crc32c: u32,
    /// The producer's bytes.
    pub records: Bytes,
}

/// What a fetch found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Batches from the one that holds the wanted offset.
    pub batches: Vec<ReadBatch>,
    /// Where to go on.
    pub next_offset: Offset,
    /// Bounds of the partition.
    pub bounds: Bounds,
}

/// A place to start reading at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// This offset, which may be out of range.
    Offset(i64),
    /// The first record with this timestamp or a later one.
    Timestamp(i64),
}
