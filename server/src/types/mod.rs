//! Words that every room shares: ids, offsets and rows that cross rooms. No logic beyond conversions.

use std::fmt;

/// Makes a newtype over an integer that orders, hashes and prints like it.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// A node of the cluster. Given by the catalog at join, never reused; 0 is no node.
    NodeId(u64)
);
id!(
    /// A Raft group. 0 is the catalog, every partition has its own. Never reused.
    GroupId(u64)
);
id!(
    /// Place of an entry in a group's log. Entries that carry no records have one too.
    LogIndex(u64)
);
id!(
    /// Place of a record in its partition, from 0 without gaps.
    Offset(u64)
);

/// An offset as the contract has it.
impl From<Offset> for i64 {
    fn from(offset: Offset) -> Self {
        // Offsets are given out by `machine::partition`, which stops below `i64::MAX`.
        Self::try_from(offset.0).unwrap_or(Self::MAX)
    }
}

/// The catalog's group.
pub const CATALOG_GROUP: GroupId = GroupId(0);

/// Where an accepted batch is, and running totals of its partition up to and with it.
///
/// Every field but `part` and `record_count` never falls from row to row, so that each can be searched by bisection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRow {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Number of records: the batch holds `[base_offset, base_offset + record_count)`.
    pub record_count: u32,
    /// Entry of the log that holds it.
    pub index: LogIndex,
    /// Which part of that entry it is.
    pub part: u32,
    /// The leader's clock when it was appended.
    pub append_time_ms: i64,
    /// Highest record timestamp in the partition so far.
    pub max_timestamp_ms: i64,
    /// Bytes of all batches of the partition so far, this one included.
    pub end_bytes: u64,
}

impl OffsetRow {
    /// Offset behind the batch.
    pub fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0 + u64::from(self.record_count))
    }
}
