//! Storage: the logs and states of all groups of a node, in one redb database owned by one writer thread.
//!
//! Everything that writes goes through one bounded, ordered queue; the thread takes what is waiting, makes one
//! transaction, commits it (fsync), then fires every callback. Rooms above never see redb. Start reading at
//! [`Storage`], then `writer.rs`. The byte layout is drawn in `docs/storage-format.md`.

use std::path::PathBuf;

use bytes::Bytes;

use crate::types::{LogIndex, NodeId, OffsetRow};

/// Id of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub leader: NodeId,
    /// Index.
    pub index: LogIndex,
}

/// What an entry means to Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A change of members, in the header.
    Membership,
    /// A command of the group's state machine: header and parts.
    Command,
}

/// A piece of an entry's payload with its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub bytes: Bytes,
    /// CRC-32C of `bytes`, computed by whoever first had them: it is stored, and checked at every read.
    pub crc32c: u32,
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id.
    pub id: EntryId,
    /// Kind.
    pub kind: EntryKind,
    /// Small, structured front of the payload, opaque here.
    pub header: Bytes,
    /// The payload's bulk, opaque here.
    pub parts: Vec<Part>,
}

/// What applying committed entries changed. Written with a later commit, never synced for its own sake: after a
/// crash Raft applies the entries behind `state` again.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Replaces the group's applied state (encoded `AppliedState`).
    pub state: Bytes,
    /// Batches that became readable, in ascending order.
    pub rows: Vec<OffsetRow>,
    /// Rows of the state machine to set, or with `None` to delete.
    pub state_rows: Vec<(Bytes, Option<Bytes>)>,
}

/// What a group left on disk.
#[derive(Clone, Debug, Default)]
pub struct GroupState {
    /// Last saved vote (encoded `Vote`).
    pub vote: Option<Bytes>,
    /// Last entry of the log, or the last purged one if the log is empty.
    pub last: Option<EntryId>,
    /// Last purged entry.
    pub purged: Option<EntryId>,
    /// Snapshot as of the last purge (encoded `Snapshot`).
    pub snapshot: Option<Bytes>,
    /// Applied state.
    pub applied: Option<Bytes>,
    /// Rows of the state machine in ascending order of key.
    pub state_rows: Vec<(Bytes, Bytes)>,
}

/// How and where to store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the data, or `None` to keep everything in memory.
    pub data_dir: Option<PathBuf>,
    /// Free bytes on the disk below which [`Storage::status`] reports not writable.
    pub free_floor_bytes: u64,
    /// Memory for recently appended entries, over all groups.
    pub tail_bytes: usize,
    /// Memory for pages that redb keeps.
    pub cache_bytes: usize,
}

/// A batch as it is read back.
#[derive(Clone, Debug)]
pub struct BatchRead {
    /// Where it is.
    pub row: OffsetRow,
    /// Header of its entry.
    pub header: Bytes,
    /// Its bytes, checksum verified.
    pub part: Part,
}

/// Room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes that the data occupies.
    pub used_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// See [`Config::free_floor_bytes`].
    pub floor_bytes: u64,
}
