//! A packed batch, of any compression, with the right checksum so that the fuzzer gets behind it: what the broker
//! accepts, every reader can unpack, to as many records as the broker counted.
#![no_main]

use bytes::Bytes;
use kelda_proto::{
    batch::{self, Rules},
    limits::DECOMPRESSED_BYTES_MAX,
    v1::{Compression, RecordBatch},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let compression = i32::from(head[0] % 5);
    let plain = Bytes::copy_from_slice(bytes);
    // Half of the inputs are compressed here, since a fuzzer hardly finds a valid frame by itself.
    let packed = Compression::try_from(compression)
        .ok()
        .filter(|_| head[1] & 1 == 1)
        .and_then(|compression| {
            batch::pack_encoded(&plain, 1 + usize::from(head[1] >> 1), compression).ok()
        });
    let packed = packed.unwrap_or_else(|| RecordBatch {
        compression,
        record_count: i32::from(head[1] >> 1),
        crc32c: batch::crc32c(&plain),
        records: plain,
    });
    let checked = batch::check(&packed, &Rules::default());
    let unpacked = batch::unpack(&packed, DECOMPRESSED_BYTES_MAX);
    if let Ok(summary) = checked {
        let records = unpacked.expect("what the broker accepts can be unpacked");
        assert_eq!(
            records.len(),
            summary.record_count as usize,
            "the count is the number of records"
        );
        let highest = records
            .iter()
            .map(|record| record.timestamp_ms)
            .filter(|time| *time != 0)
            .max();
        assert_eq!(
            summary.max_timestamp_ms,
            highest.unwrap_or(0),
            "the highest timestamp is that of a record"
        );
    }
});
