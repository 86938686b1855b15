//! Entries of a log as they are stored.

use bytes::Bytes;
use kelda_proto::batch::crc32c;
use kelda_server::storage::codec::{FIXED_BYTES, decode_entry};
use kelda_server::storage::{Entry, EntryId, EntryKind, Part};
use kelda_server::types::{GroupId, LogIndex, NodeId};

use super::pieces;

const GROUP: GroupId = GroupId(7);
const INDEX: LogIndex = LogIndex(1 << 40);

/// Takes the input as an encoded entry, or as the content of one, as its first byte says. The byte behind that and
/// the next two say which bit is flipped later.
pub fn stored_entry(input: &[u8]) {
    let Some((&[kind, bit, at_high, at_low], bytes)) = input.split_first_chunk() else {
        return;
    };
    let encoded = if kind % 2 == 0 {
        let entry = entry(kind / 2, bytes);
        let encoded = encode(&entry);
        let decoded = decode_entry(GROUP, INDEX, &Bytes::copy_from_slice(&encoded));
        assert_eq!(decoded, Ok(entry));
        encoded
    } else {
        with_checksum(bytes.to_vec())
    };
    let position = usize::from(u16::from_be_bytes([at_high, at_low]));
    if decode_entry(GROUP, INDEX, &Bytes::copy_from_slice(&encoded)).is_ok() {
        damaged(encoded, position, 1 << (bit % 8));
    }
}

/// No damage is taken for an entry, and neither is an entry of another place.
fn damaged(mut encoded: Vec<u8>, position: usize, bit: u8) {
    let shorter = Bytes::copy_from_slice(&encoded[..position % encoded.len()]);
    assert!(decode_entry(GROUP, INDEX, &shorter).is_err());
    let whole = Bytes::copy_from_slice(&encoded);
    assert!(decode_entry(GroupId(8), INDEX, &whole).is_err());
    assert!(decode_entry(GROUP, LogIndex(1), &whole).is_err());
    let position = position % encoded.len();
    encoded[position] ^= bit;
    let flipped = Bytes::from(encoded);
    assert!(
        decode_entry(GROUP, INDEX, &flipped).is_err(),
        "byte {position}"
    );
}

/// Makes an entry: the first piece of `bytes` is its header, the others are its parts.
fn entry(kind: u8, bytes: &[u8]) -> Entry {
    let mut pieces = pieces(bytes).map(Bytes::copy_from_slice);
    Entry {
        id: EntryId {
            term: bytes.len() as u64,
            leader: NodeId(u64::MAX - u64::from(kind)),
            index: INDEX,
        },
        kind: match kind % 3 {
            0 => EntryKind::Blank,
            1 => EntryKind::Membership,
            _ => EntryKind::Command,
        },
        header: pieces.next().unwrap_or_default(),
        parts: pieces
            .map(|bytes| Part {
                crc32c: crc32c(&bytes),
                bytes,
            })
            .collect(),
    }
}

/// Encodes an entry as the documentation of the codec draws it, apart from the server's own encoder.
fn encode(entry: &Entry) -> Vec<u8> {
    let mut list = Vec::new();
    for part in &entry.parts {
        let mut length = part.bytes.len();
        while length > 0x7f {
            list.push(length as u8 | 0x80);
            length >>= 7;
        }
        list.push(length as u8);
        list.extend_from_slice(&part.crc32c.to_be_bytes());
    }
    let kind = match entry.kind {
        EntryKind::Blank => 1,
        EntryKind::Membership => 2,
        EntryKind::Command => 3,
    };
    let payload: usize = entry.parts.iter().map(|part| part.bytes.len()).sum();
    let length = |length: usize| (length as u32).to_be_bytes();
    let mut encoded = vec![1, kind, 0, 0, 0, 0, 0, 0];
    encoded.extend_from_slice(&length(entry.header.len()));
    encoded.extend_from_slice(&length(entry.parts.len()));
    encoded.extend_from_slice(&length(list.len()));
    encoded.extend_from_slice(&entry.id.term.to_be_bytes());
    encoded.extend_from_slice(&entry.id.leader.0.to_be_bytes());
    encoded.extend_from_slice(&length(payload));
    assert_eq!(encoded.len(), FIXED_BYTES);
    encoded.extend_from_slice(&list);
    encoded.extend_from_slice(&entry.header);
    let mut encoded = with_checksum(encoded);
    for part in &entry.parts {
        encoded.extend_from_slice(&part.bytes);
    }
    encoded
}

/// Puts the right checksum into the head, if the bytes are long enough to have one.
fn with_checksum(mut encoded: Vec<u8>) -> Vec<u8> {
    let length_at = |at: usize| {
        let field = encoded.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*field) as usize)
    };
    let head = length_at(8)
        .zip(length_at(16))
        .and_then(|(header, list)| encoded.get(..FIXED_BYTES + header + list));
    if let Some(head) = head {
        let mut covered = GROUP.0.to_be_bytes().to_vec();
        covered.extend_from_slice(&INDEX.0.to_be_bytes());
        covered.extend_from_slice(&head[..4]);
        covered.extend_from_slice(&head[8..]);
        let checksum = crc32c(&covered).to_be_bytes();
        encoded[4..8].copy_from_slice(&checksum);
    }
    encoded
}
