//! The bytes of rows beside the log: offset rows, ids, and values of other rooms, each sealed with a checksum.
//!
//! A sealed value is `crc32c u32, body`; the checksum covers table, key and body, so that a row that turns up under
//! another key is not taken for the right one.

use crc_fast::{CrcAlgorithm, Digest};

use super::codec::{put_varint, take_varint};
use super::keys::Table;
use super::types::EntryId;
use crate::types::{LogIndex, NodeId, Offset, OffsetRow};

/// Bytes of the checksum in front of a sealed body.
const SEAL_BYTES: usize = 4;
/// Version of the encoding of offset rows.
const OFFSETS_VERSION: u8 = 1;
/// Most offset rows in one row of the table: it stays below a leaf of the database.
pub(super) const BLOCK_ROWS_MAX: usize = 256;

/// Checksum that seals `body` under `key`.
pub(super) fn seal(table: Table, key: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&[table as u8]);
    digest.update(&(key.len() as u64).to_be_bytes());
    digest.update(key);
    digest.update(body);
    (digest.finalize() as u32).to_be_bytes()
}

/// The body of a sealed value, if the checksum holds.
pub(super) fn unseal<'a>(table: Table, key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, body) = value.split_first_chunk::<SEAL_BYTES>()?;
    (*crc == seal(table, key, body)).then_some(body)
}

/// Encodes an entry's id.
pub(super) fn encode_id(id: EntryId) -> [u8; 24] {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&id.term.to_be_bytes());
    body[8..16].copy_from_slice(&id.leader.0.to_be_bytes());
    body[16..].copy_from_slice(&id.index.0.to_be_bytes());
    body
}

/// Decodes an entry's id.
pub(super) fn decode_id(body: &[u8]) -> Option<EntryId> {
    let mut numbers = body.chunks_exact(8).map(|chunk| {
        let mut number = [0; 8];
        number.copy_from_slice(chunk);
        u64::from_be_bytes(number)
    });
    let (term, leader, index) = (numbers.next()?, numbers.next()?, numbers.next()?);
    (body.len() == 24).then_some(EntryId {
        term,
        leader: NodeId(leader),
        index: LogIndex(index),
    })
}

/// Number and combined checksum of a group's state rows: tells that one of them is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StateDigest {
    pub(super) rows: u64,
    pub(super) combined: u32,
}

impl StateDigest {
    pub(super) fn add(&mut self, sealed: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.combined ^= first_u32(sealed);
    }

    pub(super) fn remove(&mut self, sealed: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.combined ^= first_u32(sealed);
    }

    pub(super) fn encode(self) -> [u8; 12] {
        let mut body = [0; 12];
        body[..8].copy_from_slice(&self.rows.to_be_bytes());
        body[8..].copy_from_slice(&self.combined.to_be_bytes());
        body
    }

    pub(super) fn decode(body: &[u8]) -> Option<StateDigest> {
        let (rows, rest) = body.split_first_chunk()?;
        let combined: &[u8; 4] = rest.try_into().ok()?;
        Some(StateDigest {
            rows: u64::from_be_bytes(*rows),
            combined: u32::from_be_bytes(*combined),
        })
    }
}

fn first_u32(sealed: &[u8]) -> u32 {
    sealed
        .first_chunk()
        .map_or(0, |crc| u32::from_be_bytes(*crc))
}

/// Whether `next` can stand in one row of the table with `block`: the same entry, offsets without a gap.
pub(super) fn joins_block(block: &[OffsetRow], next: &OffsetRow) -> bool {
    block.last().is_some_and(|last| {
        block.len() < BLOCK_ROWS_MAX
            && last.index == next.index
            && last.end_offset() == next.base_offset
    })
}

/// Encodes offset rows that belong together (see [`joins_block`]) without the first base offset, which is the key.
/// The numbers are differences to the row in front, as varints: some five bytes a row.
pub(super) fn encode_block(block: &[OffsetRow]) -> Vec<u8> {
    let mut body = vec![OFFSETS_VERSION];
    let Some(first) = block.first() else {
        return body;
    };
    put_varint(&mut body, first.index.0);
    let mut last = Deltas::default();
    for row in block {
        let next = Deltas::of(row);
        put_varint(&mut body, u64::from(row.record_count));
        put_varint(&mut body, zigzag(next.part.wrapping_sub(last.part)));
        put_varint(&mut body, zigzag(next.append.wrapping_sub(last.append)));
        put_varint(&mut body, zigzag(next.max.wrapping_sub(last.max)));
        put_varint(&mut body, zigzag(next.end.wrapping_sub(last.end)));
        last = next;
    }
    body
}

/// Decodes the offset rows whose first begins at `base`. `None` if the bytes are no such rows.
pub(super) fn decode_block(base: Offset, body: &[u8]) -> Option<Vec<OffsetRow>> {
    let (version, mut rest) = body.split_first()?;
    if *version != OFFSETS_VERSION {
        return None;
    }
    let index = LogIndex(take_varint(&mut rest)?);
    let mut rows = Vec::new();
    let mut base_offset = base;
    let mut last = Deltas::default();
    while !rest.is_empty() {
        let record_count = u32::try_from(take_varint(&mut rest)?).ok()?;
        let mut next = || Some(unzigzag(take_varint(&mut rest)?));
        last.part = last.part.wrapping_add(next()?);
        last.append = last.append.wrapping_add(next()?);
        last.max = last.max.wrapping_add(next()?);
        last.end = last.end.wrapping_add(next()?);
        rows.push(OffsetRow {
            base_offset,
            record_count,
            index,
            part: u32::try_from(last.part).ok()?,
            append_time_ms: last.append,
            max_timestamp_ms: last.max,
            end_bytes: last.end as u64,
        });
        base_offset = Offset(base_offset.0.checked_add(u64::from(record_count))?);
    }
    Some(rows)
}

/// The fields of a row that are stored as differences.
#[derive(Default)]
struct Deltas {
    part: i64,
    append: i64,
    max: i64,
    end: i64,
}

impl Deltas {
    fn of(row: &OffsetRow) -> Deltas {
        Deltas {
            part: i64::from(row.part),
            append: row.append_time_ms,
            max: row.max_timestamp_ms,
            end: row.end_bytes as i64,
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(seed: (u32, u32, i64, i64, u64), base: u64) -> OffsetRow {
        OffsetRow {
            base_offset: Offset(base),
            record_count: seed.0,
            index: LogIndex(7),
            part: seed.1,
            append_time_ms: seed.2,
            max_timestamp_ms: seed.3,
            end_bytes: seed.4,
        }
    }

    proptest! {
        #[test]
        fn offset_rows_survive_their_encoding(
            seeds in proptest::collection::vec(any::<(u32, u32, i64, i64, u64)>(), 1..20),
            base in 0..u64::MAX / 2,
        ) {
            let mut next = base;
            let block: Vec<_> = seeds.into_iter().map(|seed| {
                let row = row(seed, next);
                next = row.end_offset().0;
                row
            }).collect();
            prop_assert_eq!(decode_block(Offset(base), &encode_block(&block)), Some(block));
        }

        #[test]
        fn any_bytes_are_rows_or_nothing(base in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(rows) = decode_block(Offset(base), &bytes) {
                prop_assert!(rows.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_sealed_value_opens_under_its_own_key_only() {
        let seal = seal(Table::Meta, b"key", b"body");
        let value = [&seal[..], b"body"].concat();
        assert_eq!(unseal(Table::Meta, b"key", &value), Some(&b"body"[..]));
        assert_eq!(unseal(Table::Meta, b"kez", &value), None);
        assert_eq!(unseal(Table::State, b"key", &value), None);
        assert_eq!(unseal(Table::Meta, b"key", &value[..6]), None);
        assert_eq!(unseal(Table::Meta, b"key", &[]), None);
    }

    #[test]
    fn small_batches_cost_few_bytes_each() {
        let rows: Vec<_> = (0..100u32)
            .map(|part| {
                row(
                    (
                        1,
                        part,
                        1_790_000_000_000,
                        1_790_000_000_000,
                        u64::from(part) * 80,
                    ),
                    u64::from(part),
                )
            })
            .collect();
        assert!(encode_block(&rows).len() < 100 * 7);
    }
}
