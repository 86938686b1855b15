//! Runs the checks of the fuzz targets (`fuzz/`) on random inputs, everywhere and always.
//!
//! Random bytes are seldom a message, so most inputs are made of fields, nested as in an encoded message.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use it as a library")]
mod checks;

use bytes::Bytes;
use kelda_proto::v1::{Header, Record, RecordSet};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

/// Bytes that look like an encoded message, nested at most a few times.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        8 => 0..4_u64,
        2 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => Just(1 << 63)
    ];
    let leaf = prop_oneof![
        3 => number.prop_map(Value::Number),
        2 => "[ab.]{0,3}".prop_map(|text| Value::Bytes(text.into_bytes())),
        1 => vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ];
    let value = leaf.prop_recursive(4, 32, 6, |value| {
        vec((1..10_u64, value), 0..6).prop_map(|fields| Value::Bytes(encode(&fields)))
    });
    vec((1..10_u64, value), 0..6).prop_map(|fields| encode(&fields))
}

/// Value of a field.
#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

fn encode(fields: &[(u64, Value)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (field, value) in fields {
        match value {
            Value::Number(number) => {
                put_varint(&mut encoded, field << 3);
                put_varint(&mut encoded, *number);
            }
            Value::Bytes(bytes) => {
                put_varint(&mut encoded, field << 3 | 2);
                put_varint(&mut encoded, bytes.len() as u64);
                encoded.extend_from_slice(bytes);
            }
        }
    }
    encoded
}

fn put_varint(encoded: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
}

/// A byte that chooses, and an input.
fn chosen() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![9 => message(), 1 => vec(any::<u8>(), 0..200)];
    (any::<u8>(), bytes).prop_map(|(kind, mut bytes)| {
        bytes.insert(0, kind);
        bytes
    })
}

/// A byte that chooses, and records; sometimes damaged in one place.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let header = ("[ab]{0,3}", vec(any::<u8>(), 0..4)).prop_map(|(key, value)| Header {
        key,
        value: value.into(),
    });
    let data = || proptest::option::of(vec(any::<u8>(), 0..8).prop_map(Bytes::from));
    let timestamp_ms = prop_oneof![Just(0), -9..2000_i64, any::<i64>()];
    let record = (data(), data(), vec(header, 0..3), timestamp_ms).prop_map(
        |(key, value, headers, timestamp_ms)| Record {
            key,
            value,
            headers,
            timestamp_ms,
        },
    );
    let damage = proptest::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (any::<u8>(), vec(record, 0..6), damage).prop_map(|(kind, records, damage)| {
        let mut input = vec![kind];
        input.extend_from_slice(&RecordSet { records }.encode_to_vec());
        if let Some((position, byte)) = damage {
            *position.get_mut(&mut input) = byte;
        }
        input
    })
}

/// Four bytes that choose, and lengths or pieces.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let fixed =
        (0..2_u32, 0..3_u32, 0..20_u32, 0..9_u32).prop_map(|(header, parts, list, payload)| {
            let mut fixed = vec![1, 3, 0, 0, 0, 0, 0, 0];
            for length in [header, parts, list] {
                fixed.extend_from_slice(&length.to_be_bytes());
            }
            fixed.extend_from_slice(&[0; 16]);
            fixed.extend_from_slice(&payload.to_be_bytes());
            fixed
        });
    let front = prop_oneof![fixed, several()];
    (any::<[u8; 4]>(), front, vec(0..6_u8, 0..40))
        .prop_map(|(choice, front, rest)| [choice.to_vec(), front, rest].concat())
}

/// Several inputs, each behind its length.
fn several() -> impl Strategy<Value = Vec<u8>> {
    vec(message(), 1..8).prop_map(|messages| {
        let mut input = Vec::new();
        for message in messages {
            input.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
            input.extend(message.iter().take(255));
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_request_is_decoded_or_refused(input in chosen()) {
        checks::requests(&input);
    }

    #[test]
    fn any_record_batch_is_read_or_refused(input in prop_oneof![chosen(), records()]) {
        checks::record_batch(&input);
    }

    #[test]
    fn any_stored_entry_is_read_whole_or_refused(input in entry()) {
        checks::stored_entry(&input);
    }

    #[test]
    fn any_partition_command_on_any_snapshot_is_applied(input in several()) {
        checks::partition_machine(&input);
    }

    #[test]
    fn any_catalog_command_on_any_state_is_applied(input in several()) {
        checks::catalog_machine(&input);
    }
}
