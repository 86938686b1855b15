//! Properties of the batch code: round trips, equality of the walk with the decoder, and hostile input.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::v1::Header;

const CODECS: [Compression; 4] = [
    Compression::Unspecified,
    Compression::Lz4,
    Compression::Zstd,
    Compression::Gzip,
];
const LIMIT: usize = limits::DECOMPRESSED_BYTES_MAX;

fn record(value: &'static str) -> Record {
    Record {
        key: None,
        value: Some(Bytes::from_static(value.as_bytes())),
        headers: Vec::new(),
        timestamp_ms: 0,
    }
}

fn sealed(compression: Compression, record_count: i32, records: Vec<u8>) -> RecordBatch {
    RecordBatch {
        compression: compression.into(),
        record_count,
        crc32c: crc32c(&records),
        records: records.into(),
    }
}

fn lax() -> Rules {
    Rules {
        record_bytes_max: usize::MAX,
        batch_bytes_max: usize::MAX,
        batch_records_max: usize::MAX,
        decompressed_bytes_max: usize::MAX,
        record_headers_max: usize::MAX,
        header_key_bytes_max: usize::MAX,
    }
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_record() -> impl Strategy<Value = Record> {
    let header = (".{0,6}", any_bytes()).prop_map(|(key, value)| Header { key, value });
    let timestamp = prop_oneof![Just(0), any::<i64>()];
    (
        option::of(any_bytes()),
        option::of(any_bytes()),
        vec(header, 0..4),
        timestamp,
    )
        .prop_map(|(key, value, headers, timestamp_ms)| Record {
            key,
            value,
            headers,
            timestamp_ms,
        })
}

/// Pieces of wire format: whole fields, broken ones, groups and noise.
fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let key = (0_u32..7, 0_u8..8).prop_map(|(tag, wire_type)| vec![(tag as u8) << 3 | wire_type]);
    let varint = prop_oneof![
        any::<u64>().prop_map(|value| {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            bytes
        }),
        (0_usize..12).prop_map(|length| vec![0x80; length]),
        (0_usize..11, 0_u8..4).prop_map(|(length, last)| {
            let mut bytes = vec![0xff; length];
            bytes.push(last);
            bytes
        }),
    ];
    let group = (1_u8..7, vec(any::<u8>(), 0..4)).prop_map(|(tag, inside)| {
        let mut bytes = vec![tag << 3 | 3];
        bytes.extend(inside);
        bytes.push(tag << 3 | 4);
        bytes
    });
    let leaf = prop_oneof![key, varint, group, vec(any::<u8>(), 0..9)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        (1_u8..5, vec(inner, 1..4)).prop_map(|(tag, parts)| {
            let inside = parts.concat();
            let mut bytes = vec![tag << 3 | 2];
            prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
            bytes.extend(inside);
            bytes
        })
    })
}

/// The walk and the decoder must say the same of `bytes`.
fn assert_same_as_decoder(bytes: &[u8]) {
    let decoded = RecordSet::decode(bytes);
    match (scan(bytes, &lax()), decoded) {
        (Ok(summary), Ok(set)) => {
            let given = set
                .records
                .iter()
                .map(|r| r.timestamp_ms)
                .filter(|t| *t != 0);
            assert_eq!(summary.record_count as usize, set.records.len());
            assert_eq!(summary.max_timestamp_ms, given.max().unwrap_or(0));
            assert_eq!(
                summary.timestamp_missing,
                set.records.iter().any(|record| record.timestamp_ms == 0)
            );
        }
        (Err(Error::Empty), Ok(set)) => assert!(set.records.is_empty()),
        (Err(Error::Malformed { .. }), Err(_)) => {}
        (walked, decoded) => panic!("walked {walked:?}, decoded {decoded:?} of {bytes:02x?}"),
    }
}

proptest! {
    #[test]
    fn what_is_packed_passes_the_check_and_unpacks_to_the_same(
        records in vec(any_record(), 1..20),
        codec in prop::sample::select(&CODECS[..]),
    ) {
        let batch = pack(&records, codec).expect("records within the limits");
        let summary = check(&batch, &Rules::default()).expect("a packed batch is valid");
        prop_assert_eq!(summary.record_count as usize, records.len());
        let largest = records.iter().map(Message::encoded_len).max();
        prop_assert_eq!(Some(summary.largest_record_bytes), largest);
        prop_assert_eq!(unpack(&batch, LIMIT), Ok(records));
    }

    #[test]
    fn records_are_encoded_as_a_record_set_of_the_exact_size(records in vec(any_record(), 0..20)) {
        let encoded = encode_records(&records);
        let sizes = records.iter().map(|record| framed_len(record.encoded_len()));
        prop_assert_eq!(encoded.len(), sizes.sum::<usize>());
        prop_assert_eq!(encoded, RecordSet { records }.encode_to_vec());
    }

    #[test]
    fn the_walk_accepts_what_the_decoder_accepts(parts in vec(any_wire(), 0..4)) {
        assert_same_as_decoder(&parts.concat());
    }

    #[test]
    fn the_walk_accepts_mutated_records_as_the_decoder_does(
        records in vec(any_record(), 1..6),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode_records(&records).to_vec();
        for (place, byte) in mutations {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        assert_same_as_decoder(&bytes);
    }

    #[test]
    fn damaged_batches_are_errors_and_never_a_panic(
        records in vec(any_record(), 1..6),
        codec in prop::sample::select(&CODECS[..]),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let batch = pack(&records, codec).expect("records within the limits");
        let mut bytes = batch.records.to_vec();
        for (place, byte) in mutations {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let damaged = sealed(codec, batch.record_count, bytes);
        // The checksum is that of the damaged bytes, so codec and walk are on their own.
        match check(&damaged, &Rules::default()) {
            Ok(summary) => {
                let unpacked = unpack(&damaged, LIMIT).map(|records| records.len());
                prop_assert_eq!(unpacked, Ok(summary.record_count as usize));
            }
            Err(_) => {
                let _ = unpack(&damaged, LIMIT);
            }
        }
    }

    #[test]
    fn noise_is_an_error_and_never_a_panic(
        bytes in vec(any::<u8>(), 0..300),
        codec in prop::sample::select(&CODECS[..]),
    ) {
        let batch = sealed(codec, 1, bytes);
        let _ = check(&batch, &Rules::default());
        let _ = position_at_time(&batch, 0, 0, 0, LIMIT);
    }
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b""), 0);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    // RFC 3720, B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
}

#[test]
fn a_wrong_checksum_and_a_wrong_count_are_found() {
    let good = pack(&[record("a"), record("b")], Compression::Lz4).expect("valid");
    let mut batch = good.clone();
    batch.crc32c ^= 1;
    let actual = good.crc32c;
    let expected = actual ^ 1;
    assert_eq!(
        check(&batch, &Rules::default()),
        Err(Error::Checksum { expected, actual })
    );
    assert_eq!(
        unpack(&batch, LIMIT),
        Err(Error::Checksum { expected, actual })
    );
    for expected in [i32::MIN, -1, 0, 1, 3, i32::MAX] {
        let batch = RecordBatch {
            record_count: expected,
            ..good.clone()
        };
        let error = Error::Count {
            expected: expected.into(),
            actual: 2,
        };
        assert_eq!(check(&batch, &Rules::default()), Err(error.clone()));
        assert_eq!(unpack(&batch, LIMIT), Err(error));
    }
}

#[test]
fn empty_batches_and_unknown_compressions_are_refused() {
    assert_eq!(pack(&[], Compression::Zstd), Err(Error::Empty));
    let empty = sealed(Compression::Unspecified, 0, Vec::new());
    assert_eq!(check(&empty, &Rules::default()), Err(Error::Empty));
    let mut batch = pack(&[record("a")], Compression::Unspecified).expect("valid");
    batch.compression = 9;
    assert_eq!(
        check(&batch, &Rules::default()),
        Err(Error::UnknownCompression(9))
    );
}

#[test]
fn every_limit_is_kept() {
    let mut large = record("12345678");
    large.headers = vec![
        Header::default(),
        Header {
            key: "name".into(),
            value: Bytes::new(),
        },
    ];
    let records = [record(""), large];
    let size = records[1].encoded_len();
    let batch = pack(&records, Compression::Unspecified).expect("valid");
    let exact = Rules {
        record_bytes_max: size,
        batch_bytes_max: batch.records.len(),
        batch_records_max: 2,
        decompressed_bytes_max: batch.records.len(),
        record_headers_max: 2,
        header_key_bytes_max: 4,
    };
    assert!(check(&batch, &exact).is_ok());
    let (index, bytes) = (1, batch.records.len());
    let (size_limit, limit) = (size - 1, bytes - 1);
    type Tighten = fn(&mut Rules);
    let cases: [(Tighten, Error); 6] = [
        (
            |r| r.record_bytes_max -= 1,
            Error::RecordTooLarge {
                index,
                size,
                limit: size_limit,
            },
        ),
        (
            |r| r.batch_bytes_max -= 1,
            Error::BatchTooLarge { size: bytes, limit },
        ),
        (
            |r| r.batch_records_max -= 1,
            Error::TooManyRecords { limit: 1 },
        ),
        (
            |r| r.decompressed_bytes_max -= 1,
            Error::DecompressedTooLarge { limit },
        ),
        (
            |r| r.record_headers_max -= 1,
            Error::TooManyHeaders { index, limit: 1 },
        ),
        (
            |r| r.header_key_bytes_max -= 1,
            Error::HeaderKeyTooLong {
                index,
                size: 4,
                limit: 3,
            },
        ),
    ];
    for (tighten, error) in cases {
        let mut rules = exact;
        tighten(&mut rules);
        assert_eq!(check(&batch, &rules), Err(error.clone()));
        let before_packing = check_record(1, &records[1], &rules);
        assert!(before_packing == Ok(size) || before_packing == Err(error));
    }
}

#[test]
fn a_count_of_records_is_never_a_reason_to_allocate() {
    // 8 Mi records of two bytes each would decode to a gigabyte.
    let records = [0x0a, 0].repeat(LIMIT / 2);
    let batch = sealed(Compression::Unspecified, i32::MAX, records);
    let limit = limits::BATCH_RECORDS_MAX;
    assert_eq!(unpack(&batch, LIMIT), Err(Error::TooManyRecords { limit }));
}

#[test]
fn groups_may_be_nested_as_deeply_as_the_decoder_allows() {
    let wrapped = |prefix: &[u8], inside: Vec<u8>| {
        let mut bytes = prefix.to_vec();
        prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
        [bytes, inside].concat()
    };
    for depth in 95..105 {
        let mut groups = [9 << 3 | 3].repeat(depth);
        groups.extend([9 << 3 | 4].repeat(depth));
        let accepted = |bytes: &[u8]| {
            assert_same_as_decoder(bytes);
            !matches!(scan(bytes, &lax()), Err(Error::Malformed { .. }))
        };
        let in_record = wrapped(&[0x0a], groups.clone());
        let in_header = wrapped(&[0x0a], wrapped(&[0x1a], groups.clone()));
        assert_eq!(accepted(&groups), depth <= 100);
        assert_eq!(accepted(&in_record), depth <= 99);
        assert_eq!(accepted(&in_header), depth <= 98);
    }
}

#[test]
fn the_append_time_stands_in_for_a_missing_timestamp() {
    let at = |timestamp_ms| Record {
        timestamp_ms,
        ..record("x")
    };
    let batch = pack(&[at(10), at(0), at(30), at(20)], Compression::Gzip).expect("valid");
    let position = |append_time_ms, target_ms| {
        position_at_time(&batch, 0, append_time_ms, target_ms, LIMIT).expect("valid")
    };
    assert_eq!(position(25, i64::MIN), Some(0));
    assert_eq!(position(25, 10), Some(0));
    assert_eq!(position(25, 11), Some(1));
    assert_eq!(position(25, 26), Some(2));
    assert_eq!(position(5, 20), Some(2));
    assert_eq!(position(25, 31), None);
    for (from, expected) in [
        (0, Some(1)),
        (1, Some(1)),
        (2, Some(2)),
        (3, None),
        (9, None),
    ] {
        let found = position_at_time(&batch, from, 25, 21, LIMIT).expect("valid");
        assert_eq!(found, expected, "from {from}");
    }

    let seen = |timestamps: &[i64], append_time_ms| {
        let records: Vec<Record> = timestamps.iter().map(|t| at(*t)).collect();
        let summary = scan(&encode_records(&records), &Rules::default()).expect("valid");
        summary.max_timestamp_seen_ms(append_time_ms)
    };
    assert_eq!(seen(&[10, 30], 99), 30);
    assert_eq!(seen(&[10, 0], 99), 99);
    assert_eq!(seen(&[100, 0], 99), 100);
    assert_eq!(seen(&[0], -7), -7);
    assert_eq!(seen(&[-5, -9], 99), -5);
    assert_eq!(seen(&[-5, 0], -9), -5);
}
