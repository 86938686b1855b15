//! The values that cross the storage room's door.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Error;
use crate::telemetry::logging;
use crate::types::{LogIndex, NodeId, Offset, OffsetRow};

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
    /// Room below which [`Storage::status`](super::Storage::status) reports not writable, in bytes.
    pub free_floor_bytes: u64,
    /// Memory for recently appended entries, over all groups.
    pub tail_bytes: usize,
    /// Memory for pages that redb keeps.
    pub cache_bytes: usize,
}

#[cfg(test)]
impl Config {
    /// Little memory, and no files.
    pub(crate) fn in_memory() -> Self {
        Self {
            data_dir: None,
            free_floor_bytes: 0,
            tail_bytes: 1 << 20,
            cache_bytes: 1 << 20,
        }
    }
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

/// An entry without its bulk: what is needed to apply or to skip it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// Id.
    pub id: EntryId,
    /// Kind.
    pub kind: EntryKind,
    /// The entry's header.
    pub header: Bytes,
    /// Bytes of each part, in order.
    pub part_lengths: Vec<u32>,
}

impl EntryHead {
    pub(super) fn of(entry: &Entry) -> EntryHead {
        // An entry with a longer part was refused at append.
        let length = |part: &Part| u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        EntryHead {
            id: entry.id,
            kind: entry.kind,
            header: entry.header.clone(),
            part_lengths: entry.parts.iter().map(length).collect(),
        }
    }
}

/// What to find among a group's offset rows. What is named here never falls from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The first row whose end offset lies above this one: the row that contains it, or the first behind it.
    Contains(Offset),
    /// The first row appended at or after this time.
    AppendTimeFrom(i64),
    /// The first row with which the highest record timestamp reaches this one.
    TimestampFrom(i64),
    /// The first row with which the bytes of the partition exceed this number.
    EndBytesAbove(u64),
    /// The first row of this part of this entry, or behind it.
    Place {
        /// The entry.
        index: LogIndex,
        /// Its part.
        part: u32,
    },
}

impl Search {
    /// Whether `row` and every row behind it match.
    pub(crate) fn matches(self, row: &OffsetRow) -> bool {
        match self {
            Search::Contains(offset) => row.end_offset() > offset,
            Search::AppendTimeFrom(time_ms) => row.append_time_ms >= time_ms,
            Search::TimestampFrom(time_ms) => row.max_timestamp_ms >= time_ms,
            Search::EndBytesAbove(bytes) => row.end_bytes > bytes,
            Search::Place { index, part } => (row.index, row.part) >= (index, part),
        }
    }
}

/// Called once when an operation is durable, or failed. Runs on the writer thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// One commit, for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitReport {
    /// From the first change of the transaction until it was durable.
    pub duration: Duration,
    /// Encoded bytes of the entries in it.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Operations in it, entries or not.
    pub operations: u64,
}

/// What storage tells the rooms above without being asked. Both run on the writer thread.
#[derive(Clone)]
pub struct Hooks {
    /// After every commit.
    pub on_commit: Arc<dyn Fn(CommitReport) + Send + Sync>,
    /// After a write, commit or sync failed. Nothing is acknowledged from here on, and a retried sync would lie: the
    /// process has to end.
    pub on_fatal: Arc<dyn Fn(&Error) + Send + Sync>,
}

/// Exit code of a process whose storage failed (`EX_IOERR`).
const EXIT_STORAGE_FAILED: i32 = 74;

impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            on_commit: Arc::new(|_| {}),
            on_fatal: Arc::new(|error| {
                tracing::error!(%error, "storage failed, the process ends");
                logging::end();
                std::process::exit(EXIT_STORAGE_FAILED);
            }),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes that the data occupies.
    pub used_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// Bytes of `used_bytes` that deleted rows left and new ones take, an estimate.
    pub reusable_bytes: u64,
    /// See [`Config::free_floor_bytes`].
    pub floor_bytes: u64,
}

impl Status {
    /// Whether there is room for more records. Half of the floor must be free on the disk itself: not every new row
    /// fits where old ones were, and a full disk ends the process.
    pub fn writable(&self) -> bool {
        self.free_bytes >= self.floor_bytes / 2
            && self.free_bytes.saturating_add(self.reusable_bytes) >= self.floor_bytes
    }
}
