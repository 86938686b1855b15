//! The contract's messages as the broker's calls, and its answers as messages.

use std::time::Duration;

use kelda_proto::{
    batch,
    limits::{DECOMPRESSED_BYTES_MAX, REQUEST_BYTES_MAX},
    v1::{self, start_position::Position},
};
use prost::Message as _;

use crate::{
    broker::{
        Acks, Content, Error, Fetch, PartitionProduced, Produce, Produced, ReadBatch, Session,
        Start, Violation,
    },
    types::Offset,
};

/// Bytes that a read returns if the client does not say.
pub(super) const READ_BYTES_DEFAULT: usize = 1 << 20;
/// Longest wait of a fetch.
const FETCH_WAIT_MAX_MS: i32 = 60_000;
/// Batches of up to this many bytes are decoded where they are; more would hold up the other connections of the
/// worker.
const DECODE_INLINE_BYTES_MAX: usize = 64 << 10;

/// Mistakes of a request that are noted. A request has room for millions, each of which would take far more memory
/// here than there.
const VIOLATIONS_MAX: usize = 100;

/// Collects what is wrong with a request, so that the client hears of it at once.
#[derive(Default)]
pub(super) struct Checks(Vec<Violation>);

impl Checks {
    /// Notes a violation, unless there are plenty.
    pub(super) fn fail(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(Violation::new(field, message));
        }
    }

    /// A number that must be in `[min, max]`, where 0 may stand for a default.
    pub(super) fn number(&mut self, field: &str, value: i32, default: i32, max: i32) -> i32 {
        match value {
            0 => default,
            1.. if value <= max => value,
            _ => {
                self.fail(field, format!("must be 0 to {max}"));
                default
            }
        }
    }

    /// Takes a value, or notes why there is none.
    pub(super) fn take<T: Default>(&mut self, value: Result<T, Violation>) -> T {
        value.unwrap_or_else(|violation| {
            self.0.push(violation);
            T::default()
        })
    }

    /// Fails if anything was noted.
    pub(super) fn done(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::InvalidFields(self.0))
        }
    }
}

pub(super) fn acks(value: i32) -> Result<Acks, Error> {
    match v1::Acks::try_from(value) {
        Ok(v1::Acks::Unspecified | v1::Acks::Quorum) => Ok(Acks::Quorum),
        Ok(v1::Acks::None) => Ok(Acks::None),
        Err(_) => Err(Error::invalid("acks", "must be ACKS_QUORUM or ACKS_NONE")),
    }
}

pub(super) fn content(
    records: Vec<v1::Record>,
    batch: Option<v1::RecordBatch>,
) -> Result<Content, Error> {
    match batch {
        Some(batch) if records.is_empty() => Ok(Content::Batch(batch)),
        None if !records.is_empty() => Ok(Content::Records(records)),
        _ => Err(Error::invalid("records", "give either records or a batch")),
    }
}

pub(super) fn produce(request: v1::ProduceRequest) -> Result<Produce, Error> {
    Ok(Produce {
        topic: request.topic,
        partition: request.partition,
        content: content(request.records, request.batch)?,
        acks: acks(request.acks)?,
        session: request.session.map(|session| Session {
            id: session.id,
            epoch: session.epoch,
            sequence: session.sequence,
        }),
        expected_offset: request.expected_offset,
    })
}

pub(super) fn produced(produced: Produced) -> v1::ProduceResponse {
    let acks = match produced.acks {
        Acks::Quorum => v1::Acks::Quorum,
        Acks::None => v1::Acks::None,
    };
    v1::ProduceResponse {
        partitions: produced.partitions.into_iter().map(partition_ack).collect(),
        acks: acks.into(),
    }
}

fn partition_ack(share: PartitionProduced) -> v1::PartitionAck {
    v1::PartitionAck {
        partition: number(share.partition),
        base_offset: share.base_offset.map_or(-1, offset),
        record_count: number(share.record_count),
        duplicate: share.duplicate,
        append_time_ms: share.append_time_ms,
        record_indexes: share.record_indexes.into_iter().map(number).collect(),
    }
}

pub(super) fn start(position: Option<v1::StartPosition>) -> Result<Start, Violation> {
    let Some(position) = position.and_then(|start| start.position) else {
        return Ok(Start::Earliest);
    };
    match position {
        Position::Offset(offset) => Ok(Start::Offset(offset)),
        Position::TimestampMs(timestamp_ms) => Ok(Start::Timestamp(timestamp_ms)),
        Position::Boundary(boundary) => match v1::Boundary::try_from(boundary) {
            Ok(v1::Boundary::Unspecified | v1::Boundary::Earliest) => Ok(Start::Earliest),
            Ok(v1::Boundary::Latest) => Ok(Start::Latest),
            Err(_) => {
                let rule = "must be BOUNDARY_EARLIEST or BOUNDARY_LATEST";
                Err(Violation::new("position.boundary", rule))
            }
        },
    }
}

/// In which form a client wants its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Records,
    Batches,
}

pub(super) fn format(value: i32) -> Result<Format, Violation> {
    match v1::RecordFormat::try_from(value) {
        Ok(v1::RecordFormat::Unspecified | v1::RecordFormat::Records) => Ok(Format::Records),
        Ok(v1::RecordFormat::Batches) => Ok(Format::Batches),
        Err(_) => {
            let rule = "must be RECORD_FORMAT_RECORDS or RECORD_FORMAT_BATCHES";
            Err(Violation::new("format", rule))
        }
    }
}

pub(super) fn fetch(request: v1::FetchRequest) -> Result<(Fetch, Format), Error> {
    let mut checks = Checks::default();
    let bytes_most = most(REQUEST_BYTES_MAX);
    let max_wait_ms = checks.number("max_wait_ms", request.max_wait_ms, 0, FETCH_WAIT_MAX_MS);
    let min_bytes = checks.number("min_bytes", request.min_bytes, 1, bytes_most);
    let default = most(READ_BYTES_DEFAULT);
    let max_bytes = checks.number("max_bytes", request.max_bytes, default, bytes_most);
    let format = checks.take(format(request.format));
    checks.done()?;
    let fetch = Fetch {
        topic: request.topic,
        partition: request.partition,
        offset: request.offset,
        max_wait: Duration::from_millis(u64::from(max_wait_ms.unsigned_abs())),
        min_bytes: size(min_bytes),
        max_bytes: size(max_bytes),
    };
    Ok((fetch, format))
}

/// Batches on their way to a client.
pub(super) struct Outgoing {
    pub(super) records: Vec<v1::ConsumedRecord>,
    pub(super) batches: Vec<v1::StoredBatch>,
    /// Where to go on; may be before the end of the batches that were given, if they did not all fit.
    pub(super) next_offset: Offset,
}

/// What was read, from which records a client wants those from `from` on.
pub(super) struct Incoming {
    pub(super) batches: Vec<ReadBatch>,
    pub(super) from: Offset,
    pub(super) bytes_max: usize,
}

/// Puts batches into the form that a client wants. `None` if stored batches can not be decoded.
pub(super) async fn outgoing(read: Incoming, format: Format) -> Option<Outgoing> {
    match format {
        Format::Batches => Some(Outgoing {
            next_offset: read.batches.last().map_or(read.from, ReadBatch::end_offset),
            records: Vec::new(),
            batches: read.batches.iter().map(stored).collect(),
        }),
        Format::Records => {
            let bytes: usize = read.batches.iter().map(|batch| batch.records.len()).sum();
            let plain = i32::from(v1::Compression::Unspecified);
            let cheap = bytes <= DECODE_INLINE_BYTES_MAX
                && read.batches.iter().all(|batch| batch.compression == plain);
            if cheap {
                decoded(read)
            } else {
                tokio::task::spawn_blocking(|| decoded(read)).await.ok()?
            }
        }
    }
}

fn stored(batch: &ReadBatch) -> v1::StoredBatch {
    v1::StoredBatch {
        base_offset: offset(batch.base_offset),
        append_time_ms: batch.append_time_ms,
        batch: Some(batch.packed()),
    }
}

/// Decodes batches until they make up `bytes_max` bytes: compressed ones may hold many times what was read.
fn decoded(read: Incoming) -> Option<Outgoing> {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut next_offset = read.from;
    for batch in read.batches {
        if bytes >= read.bytes_max {
            break;
        }
        next_offset = batch.end_offset();
        let compression = v1::Compression::try_from(batch.compression).ok()?;
        let encoded =
            batch::decompress(compression, &batch.records, DECOMPRESSED_BYTES_MAX).ok()?;
        bytes += encoded.len();
        let set = v1::RecordSet::decode(encoded).ok()?;
        let numbered = (batch.base_offset.0..).map(Offset).zip(set.records);
        records.extend(
            numbered
                .skip_while(|(at, _)| *at < read.from)
                .map(|(at, mut record)| {
                    if record.timestamp_ms == 0 {
                        record.timestamp_ms = batch.append_time_ms;
                    }
                    v1::ConsumedRecord {
                        offset: offset(at),
                        record: Some(record),
                    }
                }),
        );
    }
    Some(Outgoing {
        records,
        batches: Vec::new(),
        next_offset,
    })
}

/// An offset as the contract has it; none comes near the bound.
pub(super) fn offset(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// A number of partitions or records as the contract has it; none comes near the bound.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A size that was checked not to be negative.
pub(super) fn size(size: i32) -> usize {
    usize::try_from(size).unwrap_or_default()
}

/// A limit as the contract has it; none comes near the bound.
pub(super) fn most(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read_batch(base_offset: u64, values: &[&'static str], timestamp_ms: i64) -> ReadBatch {
        let records: Vec<_> = values
            .iter()
            .map(|value| v1::Record {
                value: Some(Bytes::from_static(value.as_bytes())),
                timestamp_ms,
                ..v1::Record::default()
            })
            .collect();
        let packed = batch::pack(&records, v1::Compression::Zstd).unwrap();
        ReadBatch {
            base_offset: Offset(base_offset),
            append_time_ms: 77,
            compression: packed.compression,
            record_count: records.len() as u32,
            crc32c: packed.crc32c,
            records: packed.records,
        }
    }

    async fn offsets(from: u64, bytes_max: usize) -> (Vec<i64>, Offset) {
        let read = Incoming {
            batches: vec![read_batch(5, &["a", "b", "c"], 0), read_batch(8, &["d"], 9)],
            from: Offset(from),
            bytes_max,
        };
        let outgoing = outgoing(read, Format::Records).await.unwrap();
        let offsets = outgoing.records.iter().map(|record| record.offset);
        (offsets.collect(), outgoing.next_offset)
    }

    #[tokio::test]
    async fn records_before_the_wanted_offset_are_left_out() {
        assert_eq!(offsets(5, 1000).await, (vec![5, 6, 7, 8], Offset(9)));
        assert_eq!(offsets(7, 1000).await, (vec![7, 8], Offset(9)));
    }

    #[tokio::test]
    async fn decoding_stops_when_there_is_enough_and_says_where_to_go_on() {
        assert_eq!(offsets(5, 1).await, (vec![5, 6, 7], Offset(8)));
    }

    #[tokio::test]
    async fn the_append_time_stands_in_for_a_missing_timestamp() {
        for (given, seen) in [(0, 77), (9, 9)] {
            let read = Incoming {
                batches: vec![read_batch(0, &["a"], given)],
                from: Offset(0),
                bytes_max: 1000,
            };
            let outgoing = outgoing(read, Format::Records).await.unwrap();
            let record = outgoing.records[0].record.as_ref().unwrap();
            assert_eq!(record.timestamp_ms, seen);
        }
    }

    #[tokio::test]
    async fn stored_bytes_that_can_not_be_decoded_are_not_served() {
        let mut batch = read_batch(0, &["a"], 0);
        batch.records = Bytes::from_static(b"damaged");
        let read = Incoming {
            batches: vec![batch],
            from: Offset(0),
            bytes_max: 1000,
        };
        assert!(outgoing(read, Format::Records).await.is_none());
    }

    #[test]
    fn all_limits_of_a_fetch_that_are_out_of_bounds_are_named() {
        let request = v1::FetchRequest {
            max_wait_ms: 60_001,
            min_bytes: -1,
            max_bytes: i32::MIN,
            format: 9,
            ..v1::FetchRequest::default()
        };
        let Err(Error::InvalidFields(violations)) = fetch(request) else {
            panic!("it must be refused");
        };
        let fields: Vec<_> = violations.iter().map(|v| &*v.field).collect();
        assert_eq!(fields, ["max_wait_ms", "min_bytes", "max_bytes", "format"]);
    }

    #[test]
    fn a_request_full_of_mistakes_takes_little_memory() {
        let mut checks = Checks::default();
        for index in 0..100_000 {
            checks.fail(format!("partitions[{index}]"), "must be named only once");
        }
        let Err(Error::InvalidFields(violations)) = checks.done() else {
            panic!("it must be refused");
        };
        assert_eq!(violations.len(), VIOLATIONS_MAX);
    }

    #[test]
    fn a_produce_has_either_records_or_a_batch() {
        let record = v1::Record::default();
        let batch = v1::RecordBatch::default();
        assert!(content(vec![], None).is_err());
        assert!(content(vec![record.clone()], Some(batch.clone())).is_err());
        assert!(matches!(
            content(vec![record], None),
            Ok(Content::Records(_))
        ));
        assert!(matches!(
            content(vec![], Some(batch)),
            Ok(Content::Batch(_))
        ));
        assert!(acks(3).is_err());
    }
}
