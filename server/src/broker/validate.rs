//! Turns a produce's content into checked batches, one a partition.

use bytes::{Bytes, BytesMut};
use kelda_proto::{
    batch::{self, Rules},
    partitioner::partition_for_key,
    v1,
};

use super::{Content, Error, directory::TopicHandle};
use crate::machine::topic_config::Effective;

/// Batches up to this size are copied out of the buffer they arrived in: a slice of it would keep all of it.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Batches above this size are checked off the runtime's threads, as decompressing always is.
const INLINE_CHECK_BYTES_MAX: usize = 1 << 20;

/// A checked batch for one partition.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) partition: u32,
    pub(super) batch: Checked,
    /// Which records of the request these are; empty: all.
    pub(super) record_indexes: Vec<u32>,
}

/// A batch that every reader will be able to read.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) compression: v1::Compression,
    pub(super) crc32c: u32,
    pub(super) records: Bytes,
    pub(super) summary: batch::Summary,
}

fn rules(config: &Effective) -> Rules {
    Rules {
        record_bytes_max: config.record_bytes_max,
        batch_bytes_max: config.batch_bytes_max,
        ..Rules::default()
    }
}

/// Checks `content` and splits it by partition, in ascending order of partition.
pub(super) async fn shares(
    topic: &TopicHandle,
    partition: Option<u32>,
    content: Content,
) -> Result<Vec<Share>, Error> {
    match content {
        Content::Batch(packed) => {
            let partition = partition.unwrap_or_else(|| topic.next_unkeyed());
            let batch = check_packed(packed, rules(&topic.config)).await?;
            Ok(vec![Share {
                partition,
                batch,
                record_indexes: Vec::new(),
            }])
        }
        Content::Records(records) => {
            let rules = rules(&topic.config);
            let placed = place(topic, partition, &records);
            let several = placed.iter().any(|partition| *partition != placed[0]);
            if !several {
                let partition = placed.first().copied().unwrap_or_default();
                let batch = pack(records.iter().zip(0u32..), &rules)?;
                return Ok(vec![Share {
                    partition,
                    batch,
                    record_indexes: Vec::new(),
                }]);
            }
            let mut partitions = placed.clone();
            partitions.sort_unstable();
            partitions.dedup();
            partitions
                .into_iter()
                .map(|partition| pack_share(partition, &placed, &records, &rules))
                .collect()
        }
    }
}

/// The partition of each record.
fn place(topic: &TopicHandle, partition: Option<u32>, records: &[v1::Record]) -> Vec<u32> {
    if let Some(partition) = partition {
        return vec![partition; records.len()];
    }
    // Records without a key stay together: larger batches, and their order among each other.
    let mut unkeyed = None;
    let place_one = |record: &v1::Record| match &record.key {
        Some(key) => partition_for_key(key, topic.partition_count()),
        None => *unkeyed.get_or_insert_with(|| topic.next_unkeyed()),
    };
    records.iter().map(place_one).collect()
}

fn pack_share(
    partition: u32,
    placed: &[u32],
    records: &[v1::Record],
    rules: &Rules,
) -> Result<Share, Error> {
    let mine = || {
        records
            .iter()
            .zip(0u32..)
            .zip(placed)
            .filter(|(_, to)| **to == partition)
            .map(|(r, _)| r)
    };
    let batch = pack(mine(), rules)?;
    Ok(Share {
        partition,
        batch,
        record_indexes: mine().map(|(_, index)| index).collect(),
    })
}

/// Packs records that came as messages. `index` is a record's position in the request.
fn pack<'a>(
    records: impl Iterator<Item = (&'a v1::Record, u32)> + Clone,
    rules: &Rules,
) -> Result<Checked, Error> {
    let mut summary = batch::Summary {
        record_count: 0,
        max_timestamp_ms: 0,
        timestamp_missing: false,
        largest_record_bytes: 0,
    };
    let mut size = 0;
    for (record, index) in records.clone() {
        let record_bytes =
            batch::check_record(index as usize, record, rules).map_err(|error| refused(&error))?;
        size += batch::framed_len(record_bytes);
        summary.record_count += 1;
        summary.max_timestamp_ms = summary.max_timestamp_ms.max(record.timestamp_ms);
        summary.timestamp_missing |= record.timestamp_ms == 0;
        summary.largest_record_bytes = summary.largest_record_bytes.max(record_bytes);
    }
    if summary.record_count == 0 {
        return Err(refused(&batch::Error::Empty));
    }
    if summary.record_count as usize > rules.batch_records_max {
        return Err(refused(&batch::Error::TooManyRecords {
            limit: rules.batch_records_max,
        }));
    }
    if size > rules.batch_bytes_max {
        return Err(refused(&batch::Error::BatchTooLarge {
            size,
            limit: rules.batch_bytes_max,
        }));
    }
    let mut buffer = BytesMut::with_capacity(size);
    for (record, _) in records {
        batch::append_record(&mut buffer, record);
    }
    let records = buffer.freeze();
    Ok(Checked {
        compression: v1::Compression::Unspecified,
        crc32c: batch::crc32c(&records),
        records,
        summary,
    })
}

async fn check_packed(mut packed: v1::RecordBatch, rules: Rules) -> Result<Checked, Error> {
    let compressed = packed.compression != v1::Compression::Unspecified as i32;
    if packed.records.len() <= COPY_BYTES_MAX {
        packed.records = Bytes::copy_from_slice(&packed.records);
    }
    let (packed, summary) = if compressed || packed.records.len() > INLINE_CHECK_BYTES_MAX {
        let check = move || {
            let summary = batch::check(&packed, &rules);
            (packed, summary)
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| Error::Internal {
                detail: format!("batch check failed: {error}"),
            })?
    } else {
        let summary = batch::check(&packed, &rules);
        (packed, summary)
    };
    let summary = summary.map_err(|error| refused(&error))?;
    Ok(Checked {
        compression: packed.compression(),
        crc32c: packed.crc32c,
        records: packed.records,
        summary,
    })
}

/// The batch codec's refusal in the broker's words.
pub(super) fn refused(error: &batch::Error) -> Error {
    use batch::Error as Refusal;
    match *error {
        Refusal::Checksum { expected, actual } => Error::ChecksumMismatch { expected, actual },
        Refusal::Count { expected, actual } => Error::RecordCountMismatch { expected, actual },
        Refusal::Malformed { detail } => Error::MalformedRecords {
            detail: detail.to_owned(),
        },
        Refusal::BatchTooLarge { size, limit } => Error::BatchTooLarge {
            size_bytes: size,
            limit_bytes: limit,
        },
        Refusal::DecompressedTooLarge { limit } => {
            Error::DecompressedTooLarge { limit_bytes: limit }
        }
        Refusal::UnknownCompression(_) => Error::invalid("batch.compression", error.to_string()),
        // Counting stops at the first one too many.
        Refusal::TooManyRecords { limit } => Error::BatchTooLarge {
            size_bytes: limit + 1,
            limit_bytes: limit,
        },
        Refusal::Empty => Error::invalid("records", error.to_string()),
        Refusal::RecordTooLarge { index, size, limit } => Error::RecordTooLarge {
            record_index: index,
            size_bytes: size,
            limit_bytes: limit,
        },
        Refusal::TooManyHeaders { index, .. } | Refusal::HeaderKeyTooLong { index, .. } => {
            Error::invalid(format!("records[{index}].headers"), error.to_string())
        }
    }
}
