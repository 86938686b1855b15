//! Record batches.

use bytes::Bytes;
use kelda_proto::batch::{self, Rules, Summary, check, crc32c, pack_encoded, unpack};
use kelda_proto::v1::{Compression, Record, RecordBatch, RecordSet};
use prost::Message;

use super::decode;

/// Small, so that an input that decompresses to much is not slow.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 10;

/// Takes the input as a record batch: as it is encoded, as the bytes in one, or as the records in one, compressed.
pub fn record_batch(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let compression = Compression::try_from(i32::from(kind >> 2) % 4).unwrap_or_default();
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 4 {
        0 => {
            if let Some(mut batch) = decode::<RecordBatch>(&bytes) {
                check_batch(&batch);
                // Nothing gets past a wrong checksum, so what is behind it is looked at with the right one.
                batch.crc32c = crc32c(&batch.records);
                check_batch(&batch);
            }
        }
        1 => check_as_counted(RecordBatch {
            compression: compression.into(),
            record_count: 1,
            crc32c: crc32c(&bytes),
            records: bytes,
        }),
        2 => {
            let count = RecordSet::decode(bytes.clone()).map_or(1, |set| set.records.len());
            if let Ok(batch) = pack_encoded(&bytes, count, compression) {
                check_batch(&batch);
            }
        }
        _ => {
            if let Ok(set) = RecordSet::decode(bytes) {
                pack(&set.records, compression);
            }
        }
    }
}

/// Checks a batch, and what everybody finds in it who reads it after the check.
pub fn check_batch(batch: &RecordBatch) {
    let rules = Rules {
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        ..Rules::default()
    };
    let unpacked = unpack(batch, DECOMPRESSED_BYTES_MAX);
    match check(batch, &rules) {
        Ok(summary) => {
            let records = unpacked.expect("what was checked can be unpacked");
            check_summary(&summary, &records);
            for target_ms in [i64::MIN, 0, summary.max_timestamp_ms, i64::MAX] {
                check_position(batch, &records, target_ms);
            }
        }
        // A reader does not insist on the limits of a topic, but on everything else.
        Err(batch::Error::Checksum { .. } | batch::Error::Count { .. }) => {
            assert!(unpacked.is_err());
        }
        Err(_) => {}
    }
}

/// Checks a batch whose count is not known, with the count that the check says it has.
fn check_as_counted(mut batch: RecordBatch) {
    if let Err(batch::Error::Count { actual, .. }) = check(&batch, &Rules::default()) {
        batch.record_count = i32::try_from(actual).expect("a batch has at most 65,536 records");
        assert!(check(&batch, &Rules::default()).is_ok());
    }
    check_batch(&batch);
}

fn check_summary(summary: &Summary, records: &[Record]) {
    assert_eq!(summary.record_count as usize, records.len());
    let given = || {
        records
            .iter()
            .map(|record| record.timestamp_ms)
            .filter(|it| *it != 0)
    };
    assert_eq!(summary.max_timestamp_ms, given().max().unwrap_or(0));
    assert_eq!(summary.timestamp_missing, given().count() < records.len());
}

fn check_position(batch: &RecordBatch, records: &[Record], target_ms: i64) {
    const APPEND_TIME_MS: i64 = 1000;
    let seen_ms = |record: &Record| match record.timestamp_ms {
        0 => APPEND_TIME_MS,
        given => given,
    };
    let expected = records
        .iter()
        .position(|record| seen_ms(record) >= target_ms);
    let found =
        batch::position_at_time(batch, 0, APPEND_TIME_MS, target_ms, DECOMPRESSED_BYTES_MAX);
    let found = found.expect("what was checked can be read");
    assert_eq!(found.map(|position| position as usize), expected);
}

/// What is packed passes the check and comes out as it went in.
fn pack(records: &[Record], compression: Compression) {
    if let Ok(batch) = batch::pack(records, compression) {
        let rules = Rules::default();
        match check(&batch, &rules) {
            Ok(_) | Err(batch::Error::BatchTooLarge { .. }) => {}
            Err(error) => panic!("a packed batch is refused: {error}"),
        }
        let unpacked = unpack(&batch, rules.decompressed_bytes_max);
        assert_eq!(unpacked.as_deref(), Ok(records));
    }
}
