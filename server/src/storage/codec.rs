//! The bytes of an entry. Decoding is total: any bytes give an entry or [`Malformed`], never a panic.
//!
//! ```text
//! 0       1      2         4        8           12          16         20     28       36            40
//! version kind   zero u16  crc u32  header u32  parts u32   list u32   term   leader   payload u32
//! list:   for each part, length as a varint and CRC-32C
//! header, then the parts, back to back
//! ```
//! The CRC covers group and index of the entry, every fixed field, the list and the header; each part has its own.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::types::{Entry, EntryHead, EntryId, EntryKind, Part};
use crate::types::{GroupId, LogIndex, NodeId};

/// Bytes of the fixed fields.
pub const FIXED_BYTES: usize = 40;
/// Most bytes of one encoded entry.
pub const ENTRY_BYTES_MAX: usize = 256 << 20;
const VERSION: u8 = 1;
const CRC_AT: usize = 4;
/// Fewest bytes of a part in the list.
const PART_BYTES_MIN: usize = 5;

/// Bytes that are no entry, or not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed entry: {0}")]
pub struct Malformed(pub &'static str);

/// Head of a decoded entry: everything but the parts' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Id.
    pub id: EntryId,
    /// Kind.
    pub kind: EntryKind,
    /// The entry's header.
    pub header: Bytes,
    /// Where each part is.
    pub parts: Vec<PartPlace>,
    /// Bytes of the whole encoded entry.
    pub total_bytes: usize,
}

/// A part within an encoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlace {
    /// Its first byte.
    pub start: usize,
    /// Its bytes.
    pub length: u32,
    /// CRC-32C of them.
    pub crc32c: u32,
}

impl Head {
    pub(super) fn into_entry_head(self) -> EntryHead {
        EntryHead {
            id: self.id,
            kind: self.kind,
            // Whoever collects heads must not keep the whole entries' memory, of which this is a slice.
            header: Bytes::copy_from_slice(&self.header),
            part_lengths: self.parts.iter().map(|part| part.length).collect(),
        }
    }

    /// Takes part `number` out of the whole encoded entry and verifies it.
    pub(super) fn part(&self, encoded: &Bytes, number: usize) -> Result<Part, Malformed> {
        let place = self.parts.get(number).ok_or(Malformed("no such part"))?;
        take_part(encoded, place)
    }

    /// Takes all parts out of the whole encoded entry and verifies them.
    pub(super) fn into_entry(self, encoded: &Bytes) -> Result<Entry, Malformed> {
        let parts = self.parts.iter().map(|place| take_part(encoded, place));
        Ok(Entry {
            parts: parts.collect::<Result<_, _>>()?,
            id: self.id,
            kind: self.kind,
            header: self.header,
        })
    }
}

/// The fixed fields, not verified yet: enough to know how much to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    header: usize,
    parts: usize,
    list: usize,
    payload: usize,
}

impl Fixed {
    pub(super) fn decode(encoded: &[u8]) -> Result<Fixed, Malformed> {
        let fields: &[u8; FIXED_BYTES] = encoded
            .first_chunk()
            .ok_or(Malformed("shorter than its fixed fields"))?;
        if fields[0] != VERSION {
            return Err(Malformed("unknown version"));
        }
        let fixed = Fixed {
            header: u32_at(fields, 8) as usize,
            parts: u32_at(fields, 12) as usize,
            list: u32_at(fields, 16) as usize,
            payload: u32_at(fields, 36) as usize,
        };
        if fixed.total_bytes() > ENTRY_BYTES_MAX || fixed.parts > fixed.list / PART_BYTES_MIN {
            return Err(Malformed("lengths out of bounds"));
        }
        Ok(fixed)
    }

    /// Bytes in front of the first part.
    pub(super) fn head_bytes(self) -> usize {
        FIXED_BYTES + self.list + self.header
    }

    /// Bytes of the whole entry.
    pub(super) fn total_bytes(self) -> usize {
        self.head_bytes() + self.payload
    }
}

/// Encodes everything in front of the parts. The entry must have passed [`encoded_bytes`].
pub(super) fn encode_head(group: GroupId, entry: &Entry) -> Vec<u8> {
    let mut head = vec![0; FIXED_BYTES];
    let mut payload = 0;
    for part in &entry.parts {
        payload += part.bytes.len() as u32;
        put_varint(&mut head, part.bytes.len() as u64);
        head.extend_from_slice(&part.crc32c.to_be_bytes());
    }
    let list = (head.len() - FIXED_BYTES) as u32;
    head.extend_from_slice(&entry.header);
    head[0] = VERSION;
    head[1] = match entry.kind {
        EntryKind::Blank => 1,
        EntryKind::Membership => 2,
        EntryKind::Command => 3,
    };
    head[8..12].copy_from_slice(&(entry.header.len() as u32).to_be_bytes());
    head[12..16].copy_from_slice(&(entry.parts.len() as u32).to_be_bytes());
    head[16..20].copy_from_slice(&list.to_be_bytes());
    head[20..28].copy_from_slice(&entry.id.term.to_be_bytes());
    head[28..36].copy_from_slice(&entry.id.leader.0.to_be_bytes());
    head[36..40].copy_from_slice(&payload.to_be_bytes());
    let crc = head_crc(group, entry.id.index, &head);
    head[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    head
}

/// Bytes that the entry takes when encoded, or `None` if that is more than [`ENTRY_BYTES_MAX`].
pub(super) fn encoded_bytes(entry: &Entry) -> Option<usize> {
    let list = entry.parts.iter().map(|part| {
        let length = part.bytes.len();
        varint_bytes(length as u64) + 4 + length
    });
    let total = FIXED_BYTES + entry.header.len() + list.sum::<usize>();
    (total <= ENTRY_BYTES_MAX).then_some(total)
}

/// Decodes and verifies the head of an entry from at least `Fixed::head_bytes` of its bytes.
pub fn decode_head(group: GroupId, index: LogIndex, encoded: &Bytes) -> Result<Head, Malformed> {
    let fixed = Fixed::decode(encoded)?;
    let bytes = fixed.head_bytes();
    let head = encoded
        .get(..bytes)
        .ok_or(Malformed("shorter than its head"))?;
    if head_crc(group, index, head) != u32_at(head, CRC_AT) {
        return Err(Malformed("head does not match its checksum"));
    }
    let kind = match head[1] {
        1 => EntryKind::Blank,
        2 => EntryKind::Membership,
        3 => EntryKind::Command,
        _ => return Err(Malformed("unknown kind")),
    };
    let mut list = &head[FIXED_BYTES..FIXED_BYTES + fixed.list];
    let mut parts = Vec::with_capacity(fixed.parts);
    let mut start = bytes;
    for _ in 0..fixed.parts {
        let length = take_varint(&mut list)
            .and_then(|length| u32::try_from(length).ok())
            .ok_or(Malformed("bad length of a part"))?;
        let (crc32c, rest) = list
            .split_first_chunk()
            .ok_or(Malformed("list of parts ends early"))?;
        list = rest;
        parts.push(PartPlace {
            start,
            length,
            crc32c: u32::from_be_bytes(*crc32c),
        });
        start += length as usize;
    }
    if !list.is_empty() || start != fixed.total_bytes() {
        return Err(Malformed("list of parts contradicts the lengths"));
    }
    Ok(Head {
        id: EntryId {
            term: u64_at(head, 20),
            leader: NodeId(u64_at(head, 28)),
            index,
        },
        kind,
        header: encoded.slice(bytes - fixed.header..bytes),
        parts,
        total_bytes: fixed.total_bytes(),
    })
}

/// Decodes and verifies a whole entry. Its header and parts are slices of `encoded`.
pub fn decode_entry(group: GroupId, index: LogIndex, encoded: &Bytes) -> Result<Entry, Malformed> {
    let head = decode_head(group, index, encoded)?;
    if encoded.len() != head.total_bytes {
        return Err(Malformed("length differs from its fields"));
    }
    head.into_entry(encoded)
}

/// CRC-32C (Castagnoli), as in every checksum of Kelda.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn head_crc(group: GroupId, index: LogIndex, head: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&group.0.to_be_bytes());
    digest.update(&index.0.to_be_bytes());
    digest.update(&head[..CRC_AT]);
    digest.update(&head[CRC_AT + 4..]);
    digest.finalize() as u32
}

fn take_part(encoded: &Bytes, place: &PartPlace) -> Result<Part, Malformed> {
    let end = place.start + place.length as usize;
    if end > encoded.len() {
        return Err(Malformed("a part ends early"));
    }
    let bytes = encoded.slice(place.start..end);
    if crc32c(&bytes) != place.crc32c {
        return Err(Malformed("a part does not match its checksum"));
    }
    Ok(Part {
        bytes,
        crc32c: place.crc32c,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(field)
}

/// Appends a number, seven bits a byte, least significant first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front of `bytes`, or `None` if there is none.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(5);

    fn entries() -> impl Strategy<Value = Entry> {
        let kinds = prop_oneof![
            Just(EntryKind::Blank),
            Just(EntryKind::Membership),
            Just(EntryKind::Command)
        ];
        let ids = any::<(u64, u64, u64)>();
        let header = vec(any::<u8>(), 0..300);
        let parts = vec(vec(any::<u8>(), 0..300), 0..20);
        (ids, kinds, header, parts).prop_map(|((term, leader, index), kind, header, parts)| Entry {
            id: EntryId {
                term,
                leader: NodeId(leader),
                index: LogIndex(index),
            },
            kind,
            header: Bytes::from(header),
            parts: parts
                .into_iter()
                .map(|bytes| Part {
                    crc32c: crc32c(&bytes),
                    bytes: Bytes::from(bytes),
                })
                .collect(),
        })
    }

    fn encode(entry: &Entry) -> Bytes {
        let mut encoded = encode_head(GROUP, entry);
        for part in &entry.parts {
            encoded.extend_from_slice(&part.bytes);
        }
        assert_eq!(encoded_bytes(entry), Some(encoded.len()));
        Bytes::from(encoded)
    }

    #[test]
    fn the_head_of_an_entry_does_not_keep_the_memory_of_its_parts() {
        let bytes = Bytes::from(vec![1; 1000]);
        let entry = Entry {
            id: EntryId {
                term: 1,
                leader: NodeId(1),
                index: LogIndex(1),
            },
            kind: EntryKind::Command,
            header: Bytes::from_static(b"header"),
            parts: vec![Part {
                crc32c: crc32c(&bytes),
                bytes,
            }],
        };
        let encoded = encode(&entry);
        let head = decode_head(GROUP, entry.id.index, &encoded)
            .expect("it was encoded")
            .into_entry_head();
        assert_eq!(head, EntryHead::of(&entry));
        assert!(encoded.is_unique());
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_encoding(entry in entries()) {
            let encoded = encode(&entry);
            prop_assert_eq!(decode_entry(GROUP, entry.id.index, &encoded), Ok(entry));
        }

        #[test]
        fn a_changed_byte_is_noticed(entry in entries(), at in any::<usize>(), change in 1..=255u8) {
            let mut encoded = encode(&entry).to_vec();
            let at = at % encoded.len();
            encoded[at] ^= change;
            let decoded = decode_entry(GROUP, entry.id.index, &Bytes::from(encoded));
            prop_assert!(decoded.is_err());
        }

        #[test]
        fn a_cut_or_longer_entry_is_noticed(entry in entries(), length in any::<usize>()) {
            let mut encoded = encode(&entry).to_vec();
            let whole = encoded.len();
            encoded.resize(length % (whole + 50), 7);
            prop_assume!(encoded.len() != whole);
            let decoded = decode_entry(GROUP, entry.id.index, &Bytes::from(encoded));
            prop_assert!(decoded.is_err());
        }

        #[test]
        fn an_entry_of_another_place_is_noticed(entry in entries(), group in any::<u64>(), index in any::<u64>()) {
            let encoded = encode(&entry);
            let place = (GroupId(group), LogIndex(index));
            prop_assume!(place != (GROUP, entry.id.index));
            prop_assert!(decode_entry(place.0, place.1, &encoded).is_err());
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(bytes in vec(any::<u8>(), 0..400), version in any::<bool>()) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = VERSION;
            }
            let bytes = Bytes::from(bytes);
            let _ = decode_entry(GROUP, LogIndex(0), &bytes);
            let _ = decode_head(GROUP, LogIndex(0), &bytes);
        }

        #[test]
        fn numbers_survive_their_encoding(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_bytes(value));
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
