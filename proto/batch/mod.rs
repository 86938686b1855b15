//! Packing, checking and unpacking of record batches: what both ends must agree on about
//! [`RecordBatch`].
//!
//! Start at [`check`] for the broker's side, [`pack`] and [`unpack`] for the client's. `codec` bounds decompression,
//! `wire` walks encoded records without decoding them. Nothing here panics or allocates by a size that its input
//! merely claims.

mod codec;
mod wire;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::encoded_len_varint;

use crate::limits;
use crate::v1::{Compression, Record, RecordBatch, RecordSet};

pub use codec::decompress;
pub(crate) use wire::nested_items;
pub use wire::scan;

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The checksum in the batch is not that of its bytes.
    #[error("the batch says checksum {expected:#010x}, its bytes have {actual:#010x}")]
    Checksum {
        /// What the batch says.
        expected: u32,
        /// What its bytes have.
        actual: u32,
    },
    /// `record_count` is not the number of records.
    #[error("the batch says {expected} records and has {actual}")]
    Count {
        /// What the batch says.
        expected: i64,
        /// How many there are.
        actual: u64,
    },
    /// The records can not be decoded or decompressed.
    #[error("the records are malformed: {detail}")]
    Malformed {
        /// What was found.
        detail: &'static str,
    },
    /// `RecordBatch.records` is larger than allowed.
    #[error("the batch has {size} bytes, more than {limit}")]
    BatchTooLarge {
        /// Bytes of `records`.
        size: usize,
        /// Most bytes.
        limit: usize,
    },
    /// The batch decompresses to more than allowed.
    #[error("the batch decompresses to more than {limit} bytes")]
    DecompressedTooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// The compression is not one of [`Compression`].
    #[error("unknown compression {0}")]
    UnknownCompression(i32),
    /// There are more records than allowed.
    #[error("the batch has more than {limit} records")]
    TooManyRecords {
        /// Most records.
        limit: usize,
    },
    /// There are no records.
    #[error("the batch has no records")]
    Empty,
    /// A record is larger than allowed.
    #[error("record {index} has {size} bytes, more than {limit}")]
    RecordTooLarge {
        /// Its position in the batch.
        index: usize,
        /// Its encoded bytes.
        size: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A record has more headers than allowed.
    #[error("record {index} has more than {limit} headers")]
    TooManyHeaders {
        /// Position of the record in the batch.
        index: usize,
        /// Most headers.
        limit: usize,
    },
    /// A header's key is longer than allowed.
    #[error("a header key of record {index} has {size} bytes, more than {limit}")]
    HeaderKeyTooLong {
        /// Position of the record in the batch.
        index: usize,
        /// Bytes of the key.
        size: usize,
        /// Most bytes.
        limit: usize,
    },
}

/// What a batch may be. The default is what a broker allows at most, except `batch_bytes_max`, which is a topic's
/// default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Largest encoded record.
    pub record_bytes_max: usize,
    /// Largest `RecordBatch.records`, as it is in the batch.
    pub batch_bytes_max: usize,
    /// Most records.
    pub batch_records_max: usize,
    /// Largest decompressed batch.
    pub decompressed_bytes_max: usize,
    /// Most headers of a record.
    pub record_headers_max: usize,
    /// Longest header key.
    pub header_key_bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            record_bytes_max: limits::RECORD_BYTES_MAX,
            batch_bytes_max: limits::BATCH_BYTES_DEFAULT,
            batch_records_max: limits::BATCH_RECORDS_MAX,
            decompressed_bytes_max: limits::DECOMPRESSED_BYTES_MAX,
            record_headers_max: limits::RECORD_HEADERS_MAX,
            header_key_bytes_max: limits::HEADER_KEY_BYTES_MAX,
        }
    }
}

/// What is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of records, at least 1.
    pub record_count: u32,
    /// Highest timestamp that a record gives; 0 if none gives one.
    pub max_timestamp_ms: i64,
    /// Whether a record gives no timestamp: the append time then stands in for it.
    pub timestamp_missing: bool,
    /// Size of the largest encoded record.
    pub largest_record_bytes: usize,
}

impl Summary {
    /// Highest timestamp that a reader will see in a batch appended at `append_time_ms`.
    pub fn max_timestamp_seen_ms(&self, append_time_ms: i64) -> i64 {
        if !self.timestamp_missing {
            self.max_timestamp_ms
        } else if self.max_timestamp_ms == 0 {
            append_time_ms
        } else {
            self.max_timestamp_ms.max(append_time_ms)
        }
    }
}

/// CRC-32C (Castagnoli, iSCSI) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The checksum is 32 bits wide; the interface is made for up to 64.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Checks a packed batch in full: size, checksum, decompression within bounds, the structure and the limits of
/// every record, and the number of records. What passes can be decoded by every protobuf implementation.
pub fn check(batch: &RecordBatch, rules: &Rules) -> Result<Summary, Error> {
    if batch.records.len() > rules.batch_bytes_max {
        return Err(Error::BatchTooLarge {
            size: batch.records.len(),
            limit: rules.batch_bytes_max,
        });
    }
    let records = verified_records(batch, rules.decompressed_bytes_max)?;
    let summary = scan(&records, rules)?;
    check_count(batch, summary.record_count)?;
    Ok(summary)
}

/// Packs `records`, compressed by `compression`.
///
/// # Errors
/// [`Error::Empty`], [`Error::TooManyRecords`], and what [`check_record`] finds under the default [`Rules`].
/// The size of the batch is the caller's business: a topic may allow more than the default.
pub fn pack(records: &[Record], compression: Compression) -> Result<RecordBatch, Error> {
    let rules = Rules::default();
    for (index, record) in records.iter().enumerate() {
        check_record(index, record, &rules)?;
    }
    pack_encoded(&encode_records(records), records.len(), compression)
}

/// Packs an encoded `RecordSet` of `record_count` records, such as [`append_record`] makes. Not compressed, the
/// batch shares the memory of `records`.
///
/// # Errors
/// [`Error::Empty`], [`Error::TooManyRecords`]. The records themselves are not looked at.
pub fn pack_encoded(
    records: &Bytes,
    record_count: usize,
    compression: Compression,
) -> Result<RecordBatch, Error> {
    if record_count == 0 {
        return Err(Error::Empty);
    }
    let record_count = i32::try_from(record_count)
        .ok()
        .filter(|_| record_count <= limits::BATCH_RECORDS_MAX)
        .ok_or(Error::TooManyRecords {
            limit: limits::BATCH_RECORDS_MAX,
        })?;
    let records = codec::compress(compression, records);
    Ok(RecordBatch {
        compression: compression.into(),
        record_count,
        crc32c: crc32c(&records),
        records,
    })
}

/// Encodes `records` as a `RecordSet`, in one allocation of the exact size.
pub fn encode_records(records: &[Record]) -> Bytes {
    let size = records.iter().map(|r| framed_len(r.encoded_len())).sum();
    let mut buffer = BytesMut::with_capacity(size);
    for record in records {
        append_record(&mut buffer, record);
    }
    buffer.freeze()
}

/// Appends `record` to an encoded `RecordSet`: [`framed_len`] of its encoded length more bytes.
pub fn append_record(buffer: &mut BytesMut, record: &Record) {
    let size = record.encoded_len();
    buffer.reserve(framed_len(size));
    prost::encoding::encode_key(
        wire::RECORD_TAG,
        prost::encoding::WireType::LengthDelimited,
        buffer,
    );
    prost::encoding::encode_varint(size as u64, buffer);
    record.encode_raw(buffer);
}

/// Bytes that a record of `record_bytes` encoded bytes takes in an encoded `RecordSet`.
pub fn framed_len(record_bytes: usize) -> usize {
    prost::encoding::key_len(wire::RECORD_TAG)
        + encoded_len_varint(record_bytes as u64)
        + record_bytes
}

/// Checks a record that is not encoded yet, the `index`th of its batch, and returns its encoded size.
///
/// # Errors
/// [`Error::RecordTooLarge`], [`Error::TooManyHeaders`], [`Error::HeaderKeyTooLong`].
pub fn check_record(index: usize, record: &Record, rules: &Rules) -> Result<usize, Error> {
    let size = record.encoded_len();
    if size > rules.record_bytes_max {
        return Err(Error::RecordTooLarge {
            index,
            size,
            limit: rules.record_bytes_max,
        });
    }
    if record.headers.len() > rules.record_headers_max {
        return Err(Error::TooManyHeaders {
            index,
            limit: rules.record_headers_max,
        });
    }
    let longest = record.headers.iter().map(|header| header.key.len()).max();
    match longest {
        Some(longest) if longest > rules.header_key_bytes_max => Err(Error::HeaderKeyTooLong {
            index,
            size: longest,
            limit: rules.header_key_bytes_max,
        }),
        _ => Ok(size),
    }
}

/// Checks the checksum and the count of `batch` and decodes its records, which share the memory of the
/// (decompressed) batch. At most `decompressed_bytes_max` bytes are decompressed.
pub fn unpack(batch: &RecordBatch, decompressed_bytes_max: usize) -> Result<Vec<Record>, Error> {
    let records = verified_records(batch, decompressed_bytes_max)?;
    // Decoding allocates many times the encoded size for tiny records, so they are counted first.
    let summary = scan(&records, &reading_rules(decompressed_bytes_max))?;
    check_count(batch, summary.record_count)?;
    let decoded = RecordSet::decode(records).map_err(|_| Error::Malformed {
        detail: "not an encoded RecordSet",
    })?;
    Ok(decoded.records)
}

/// Position in `batch`, appended at `append_time_ms`, of the first record from position `from` on whose timestamp is
/// `timestamp_ms` or later; the append time stands in for a timestamp that is not given. Nothing if there is none.
pub fn position_at_time(
    batch: &RecordBatch,
    from: u32,
    append_time_ms: i64,
    timestamp_ms: i64,
    decompressed_bytes_max: usize,
) -> Result<Option<u32>, Error> {
    let records = verified_records(batch, decompressed_bytes_max)?;
    wire::position_at_time(
        &records,
        from,
        append_time_ms,
        timestamp_ms,
        &reading_rules(decompressed_bytes_max),
    )
}

/// What a reader insists on: that which bounds its own memory. The broker has checked the rest, perhaps a later
/// one with higher limits.
fn reading_rules(decompressed_bytes_max: usize) -> Rules {
    Rules {
        record_bytes_max: decompressed_bytes_max,
        batch_bytes_max: decompressed_bytes_max,
        header_key_bytes_max: decompressed_bytes_max,
        decompressed_bytes_max,
        ..Rules::default()
    }
}

/// The encoded `RecordSet` of `batch`, its checksum checked.
fn verified_records(batch: &RecordBatch, decompressed_bytes_max: usize) -> Result<Bytes, Error> {
    let compression = Compression::try_from(batch.compression)
        .map_err(|_| Error::UnknownCompression(batch.compression))?;
    let actual = crc32c(&batch.records);
    if actual != batch.crc32c {
        return Err(Error::Checksum {
            expected: batch.crc32c,
            actual,
        });
    }
    decompress(compression, &batch.records, decompressed_bytes_max)
}

fn check_count(batch: &RecordBatch, actual: u32) -> Result<(), Error> {
    if i64::from(batch.record_count) == i64::from(actual) {
        return Ok(());
    }
    Err(Error::Count {
        expected: batch.record_count.into(),
        actual: actual.into(),
    })
}

#[cfg(test)]
mod tests;
