//! Records to send: made once, sent many times.

use bytes::Bytes;
use kelda_proto::{
    batch,
    v1::{Compression, Record, RecordBatch},
};

use crate::failure::Failure;

/// Words of the values that are to be compressed; random bytes would not shrink.
const WORDS: [&str; 16] = [
    "\"order\":",
    "\"customer\":",
    "\"amount\":",
    "\"paid\",",
    "\"open\",",
    "\"Oslo\",",
    "\"Bergen\",",
    "1099,",
    "2450,",
    "17,",
    "42,",
    "\"alice\",",
    "\"bob\",",
    "\"items\":",
    "\"note\":",
    "\"none\",",
];

/// A value of this many bytes: random, or like JSON if it is to be compressed.
pub(super) fn value(bytes: usize, seed: u64, compressible: bool) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = Vec::with_capacity(bytes + 16);
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if compressible {
            value.extend_from_slice(WORDS[(state >> 60) as usize].as_bytes());
        } else {
            value.extend_from_slice(&state.to_le_bytes());
        }
    }
    value.truncate(bytes);
    Bytes::from(value)
}

/// A record with such a value and nothing else.
pub(super) fn record(bytes: usize, seed: u64, compressible: bool) -> Record {
    Record {
        value: Some(value(bytes, seed, compressible)),
        ..Default::default()
    }
}

/// A packed batch of records with values of `record_bytes`, together `batch_bytes` or a little less.
pub(super) fn packed(
    record_bytes: usize,
    batch_bytes: usize,
    compression: Compression,
) -> Result<RecordBatch, Failure> {
    let compressible = compression != Compression::Unspecified;
    let count = (batch_bytes / record_bytes).max(1) as u64;
    let records: Vec<Record> = (1..=count)
        .map(|seed| record(record_bytes, seed, compressible))
        .collect();
    batch::pack(&records, compression)
        .map_err(|error| Failure::failed(format!("cannot pack the batch: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_asked_for_and_differ() {
        for bytes in [1, 7, 8, 50, 1024] {
            assert_eq!(value(bytes, 1, false).len(), bytes);
            assert_eq!(value(bytes, 1, true).len(), bytes);
        }
        assert_ne!(value(64, 1, false), value(64, 2, false));
    }

    #[test]
    fn a_batch_has_as_many_records_as_fit() {
        let batch = packed(1024, 64 * 1024, Compression::Unspecified).expect("packs");
        assert_eq!(batch.record_count, 64);
        let one = packed(1024, 100, Compression::Unspecified).expect("packs");
        assert_eq!(one.record_count, 1);
    }

    #[test]
    fn compressed_batches_are_smaller() {
        let plain = packed(1024, 64 * 1024, Compression::Unspecified).expect("packs");
        let zstd = packed(1024, 64 * 1024, Compression::Zstd).expect("packs");
        assert!(zstd.records.len() * 2 < plain.records.len());
    }
}
