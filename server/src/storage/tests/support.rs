//! What the tests of storage share.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::storage::backend::memory::Memory;
use crate::storage::codec::crc32c;
use crate::storage::{
    Applied, Config, Done, Entry, EntryId, EntryKind, Error, GroupStore, Hooks, Part, Storage,
};
use crate::types::{GroupId, LogIndex, NodeId, Offset, OffsetRow};

pub(super) const GROUP: GroupId = GroupId(7);

pub(super) fn config(data_dir: Option<&Path>) -> Config {
    Config {
        data_dir: data_dir.map(Path::to_owned),
        free_floor_bytes: 1 << 20,
        tail_bytes: 1 << 20,
        cache_bytes: 8 << 20,
    }
}

/// Hooks that let the test process live.
pub(super) fn hooks() -> Hooks {
    Hooks {
        on_fatal: Arc::new(|error| panic!("storage failed: {error}")),
        ..Hooks::default()
    }
}

/// A storage on each backend.
pub(super) fn both() -> [Storage; 2] {
    let config = config(None);
    let memory = Box::new(Memory::new());
    [
        Storage::open(config.clone(), hooks()).unwrap(),
        Storage::start(memory, None, config, hooks()).unwrap(),
    ]
}

pub(super) fn id(term: u64, index: u64) -> EntryId {
    EntryId {
        term,
        leader: NodeId(1),
        index: LogIndex(index),
    }
}

pub(super) fn part(bytes: impl Into<Bytes>) -> Part {
    let bytes = bytes.into();
    Part {
        crc32c: crc32c(&bytes),
        bytes,
    }
}

/// Bytes that differ from place to place and from seed to seed.
pub(super) fn payload(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A command whose parts have these lengths.
pub(super) fn entry(term: u64, index: u64, lengths: &[usize]) -> Entry {
    let seed = term * 1_000_003 + index;
    let parts = lengths
        .iter()
        .zip(seed..)
        .map(|(length, seed)| part(payload(seed, *length)));
    Entry {
        id: id(term, index),
        kind: EntryKind::Command,
        header: Bytes::from(format!("header {term} {index}")),
        parts: parts.collect(),
    }
}

pub(super) fn entries(term: u64, indexes: std::ops::Range<u64>, lengths: &[usize]) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, lengths)).collect()
}

/// A callback and what it is told.
pub(super) fn done() -> (Done, oneshot::Receiver<Result<(), Error>>) {
    let (told, result) = oneshot::channel();
    let done = move |result| {
        let _ = told.send(result);
    };
    (Box::new(done), result)
}

/// Appends and waits until it is durable.
pub(super) async fn append(group: &GroupStore, entries: Vec<Entry>) -> Result<(), Error> {
    let (done, result) = done();
    group.append(entries, done).await?;
    result.await.unwrap()
}

/// The offset row of each part of `entries`, ten records a part, as the state machine would make them.
pub(super) fn rows(first: u64, entries: &[Entry]) -> Vec<OffsetRow> {
    let mut base = first * 10;
    let mut rows = Vec::new();
    for entry in entries {
        for part in 0..entry.parts.len() {
            let batch = base / 10;
            rows.push(OffsetRow {
                base_offset: Offset(base),
                record_count: 10,
                index: entry.id.index,
                part: part as u32,
                append_time_ms: 1000 + batch as i64,
                max_timestamp_ms: 2000 + batch as i64 / 2,
                end_bytes: (batch + 1) * 100,
            });
            base += 10;
        }
    }
    rows
}

pub(super) fn applied(state: &str, rows: Vec<OffsetRow>) -> Applied {
    Applied {
        state: Bytes::copy_from_slice(state.as_bytes()),
        rows,
        state_rows: Vec::new(),
    }
}

pub(super) fn index(index: u64) -> LogIndex {
    LogIndex(index)
}

/// The end of every range.
pub(super) const END: LogIndex = LogIndex(u64::MAX);
