//! Every table and key of the database, with frozen names and numbers. Integers in keys are big-endian, so that
//! byte order is number order.

use crate::types::{GroupId, LogIndex, Offset};

/// A table. Names and order of key fields never change; a new layout takes a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// `(group u64, index u64)` -> the front of an encoded entry: its head and, if it is small, all of it.
    Heads = 0,
    /// `(group u64, index u64, chunk u16)` -> the rest of an encoded entry, in pieces of nearly a power of two.
    Chunks = 1,
    /// `(group u64, base offset u64)` -> the offset rows of one entry's batches, the first at that offset.
    Offsets = 2,
    /// `(group u64, key bytes)` -> row of the group's state machine.
    State = 3,
    /// `(group u64, kind u8)` -> see [`Meta`].
    Meta = 4,
    /// `(group u64)` -> deletions that were decided and are not finished; see [`Pending`].
    Pending = 5,
    /// `(name bytes)` -> facts about the database itself.
    Format = 6,
}

impl Table {
    /// Every table, in order of its number.
    pub(super) const ALL: [Table; 7] = [
        Table::Heads,
        Table::Chunks,
        Table::Offsets,
        Table::State,
        Table::Meta,
        Table::Pending,
        Table::Format,
    ];

    /// Name in the database.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Table::Heads => "heads",
            Table::Chunks => "chunks",
            Table::Offsets => "offsets",
            Table::State => "state",
            Table::Meta => "meta",
            Table::Pending => "pending",
            Table::Format => "format",
        }
    }
}

/// Kinds of rows in [`Table::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Meta {
    /// Encoded vote.
    Vote = 1,
    /// Id of the log's last entry, or of the last purged one if the log is empty.
    Last = 2,
    /// Id of the last purged entry.
    Purged = 3,
    /// Encoded snapshot as of the last purge.
    Snapshot = 4,
    /// Encoded applied state.
    Applied = 5,
    /// Number and combined checksum of the group's rows in [`Table::State`].
    StateDigest = 6,
}

impl Meta {
    /// Name for error messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Meta::Vote => "the vote",
            Meta::Last => "the end of the log",
            Meta::Purged => "the purge point",
            Meta::Snapshot => "the snapshot",
            Meta::Applied => "the applied state",
            Meta::StateDigest => "the digest of the state rows",
        }
    }
}

/// Values of [`Table::Pending`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pending {
    /// Entries and offset rows up to the purge point are still on disk.
    #[default]
    Purge = 1,
    /// The whole group is deleted; rows of it are still on disk.
    Delete = 2,
}

impl Pending {
    pub(super) fn decode(value: &[u8]) -> Option<Pending> {
        match value {
            [1] => Some(Pending::Purge),
            [2] => Some(Pending::Delete),
            _ => None,
        }
    }
}

/// Key of the format version in [`Table::Format`].
pub(super) const FORMAT_KEY: &[u8] = b"version";
/// Key of the most bytes that the rows occupy in [`Table::Format`], a big-endian u64.
pub(super) const OCCUPIED_KEY: &[u8] = b"occupied";
/// Key of the census of [`Table::Meta`] and [`Table::Pending`] in [`Table::Format`].
pub(super) const CENSUS_KEY: &[u8] = b"census";

/// Bytes of a key of [`Table::Chunks`], the longest of fixed length.
pub(super) const CHUNK_KEY_BYTES: usize = 18;

pub(super) fn head(group: GroupId, index: LogIndex) -> [u8; 16] {
    pair(group.0, index.0)
}

pub(super) fn offset(group: GroupId, base: Offset) -> [u8; 16] {
    pair(group.0, base.0)
}

pub(super) fn chunk(group: GroupId, index: LogIndex, chunk: u16) -> [u8; CHUNK_KEY_BYTES] {
    let mut key = [0; CHUNK_KEY_BYTES];
    key[..16].copy_from_slice(&pair(group.0, index.0));
    key[16..].copy_from_slice(&chunk.to_be_bytes());
    key
}

pub(super) fn meta(group: GroupId, kind: Meta) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8] = kind as u8;
    key
}

pub(super) fn state(group: GroupId, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + key.len());
    row.extend_from_slice(&group.0.to_be_bytes());
    row.extend_from_slice(key);
    row
}

/// Key of the group itself, and lowest bound of its rows in every table.
pub(super) fn group(group: GroupId) -> [u8; 8] {
    group.0.to_be_bytes()
}

/// Exclusive upper bound of a group's rows in every table. The largest number is no group.
pub(super) fn group_end(group: GroupId) -> [u8; 8] {
    group.0.saturating_add(1).to_be_bytes()
}

/// The group that a key belongs to; `None` if the key is too short to have one.
pub(super) fn group_of(key: &[u8]) -> Option<GroupId> {
    Some(GroupId(u64::from_be_bytes(*key.first_chunk()?)))
}

/// The second number of a key: index or offset.
pub(super) fn second(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(8..)?.first_chunk()?))
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_like_the_numbers_in_them() {
        let low = chunk(GroupId(1), LogIndex(255), 2);
        let high = chunk(GroupId(1), LogIndex(256), 1);
        assert!(low < high);
        assert!(head(GroupId(255), LogIndex(u64::MAX)) < head(GroupId(256), LogIndex(0)));
        assert!(head(GroupId(3), LogIndex(9)).as_slice() >= group(GroupId(3)).as_slice());
        assert!(head(GroupId(3), LogIndex(u64::MAX)).as_slice() < group_end(GroupId(3)).as_slice());
        assert_eq!(group_of(&low), Some(GroupId(1)));
        assert_eq!(second(&high), Some(256));
        assert_eq!(second(&[0; 12]), None);
    }

    #[test]
    fn table_numbers_are_their_places() {
        for (place, table) in Table::ALL.iter().enumerate() {
            assert_eq!(*table as usize, place);
        }
    }
}
