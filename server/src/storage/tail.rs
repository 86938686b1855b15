//! What of a group is in memory: the entries and offset rows appended last, and where its log ends.
//!
//! Everything that is not on disk yet is here; what is on disk leaves when the budget over all groups is spent.
//! ```text
//!   purged |  on disk only  |  on disk and in memory  |  in memory, on its way to the disk  | end
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::types::{BatchRead, Entry, Search};
use crate::types::{GroupId, LogIndex, Offset, OffsetRow};

/// Memory of an entry beside its bytes, about.
const ENTRY_OVERHEAD: usize = 160;
const PART_OVERHEAD: usize = 48;
const ROW_OVERHEAD: usize = 64;

/// Memory that an entry takes in the tail.
pub(super) fn weight(entry: &Entry) -> usize {
    let parts = entry.parts.iter();
    let parts = parts.map(|part| part.bytes.len() + PART_OVERHEAD);
    ENTRY_OVERHEAD + entry.header.len() + parts.sum::<usize>()
}

/// One group, shared by all its handles and the writer.
pub(super) struct Group {
    pub(super) id: GroupId,
    tail: Mutex<Tail>,
    /// Memory of the tails of all groups.
    used: Arc<AtomicUsize>,
}

impl Group {
    pub(super) fn new(id: GroupId, used: Arc<AtomicUsize>) -> Group {
        Group {
            id,
            tail: Mutex::default(),
            used,
        }
    }

    /// Runs `work` on the tail. It must be short: appends and reads of the group wait.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Tail) -> T) -> T {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let before = tail.bytes;
        let result = work(&mut tail);
        if tail.bytes >= before {
            self.used.fetch_add(tail.bytes - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - tail.bytes, Ordering::Relaxed);
        }
        result
    }
}

/// Where to read entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// There are none.
    Nowhere,
    /// In memory, up to this index (exclusive).
    Memory(LogIndex),
    /// On disk, up to this index (exclusive).
    Disk(LogIndex),
}

/// Where to read batches.
pub(super) enum Batches {
    /// Here they are.
    Memory(Vec<BatchRead>),
    /// Their rows are known, their entries are on disk.
    Rows(Vec<OffsetRow>),
    /// The first of them lies in front of what is in memory.
    Disk,
}

/// Most rows that one read hands to the disk.
const ROWS_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Tail {
    /// Without gaps, ascending.
    entries: VecDeque<Held<Arc<Entry>>>,
    /// Ascending.
    rows: VecDeque<Held<OffsetRow>>,
    /// Where the log ends (exclusive), once known.
    end: Option<LogIndex>,
    purged: Option<LogIndex>,
    deleted: bool,
    bytes: usize,
    /// Number of the operation submitted last.
    submitted: u64,
    /// Number of the operation that became durable last.
    durable: u64,
}

struct Held<T> {
    sequence: u64,
    bytes: usize,
    item: T,
}

impl Tail {
    /// Number for the next operation. Given out together with its place in the queue.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.submitted += 1;
        self.submitted
    }

    pub(super) fn check(&self, group: GroupId) -> Result<(), Error> {
        if self.deleted {
            return Err(Error::Deleted(group));
        }
        Ok(())
    }

    /// Takes what `load` found, unless something happened since.
    pub(super) fn loaded(&mut self, purged: Option<LogIndex>, end: LogIndex) {
        self.purged = self.purged.max(purged);
        self.end.get_or_insert(end);
    }

    /// Whether entries from `first` on continue the log, as far as that is known. An empty log may start anywhere.
    pub(super) fn continues(&self, group: GroupId, first: LogIndex) -> Result<(), Error> {
        match self.end {
            Some(expected) if expected != first && expected.0 > 0 => Err(Error::NotContiguous {
                group,
                expected,
                got: first,
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, entries: &[Arc<Entry>], sequence: u64) {
        for entry in entries {
            let bytes = weight(entry);
            self.bytes += bytes;
            self.end = Some(LogIndex(entry.id.index.0 + 1));
            self.entries.push_back(Held {
                sequence,
                bytes,
                item: entry.clone(),
            });
        }
    }

    pub(super) fn apply(&mut self, rows: &[OffsetRow], sequence: u64) {
        for row in rows {
            self.bytes += ROW_OVERHEAD;
            self.rows.push_back(Held {
                sequence,
                bytes: ROW_OVERHEAD,
                item: *row,
            });
        }
    }

    pub(super) fn truncate(&mut self, from: LogIndex) {
        while let Some(last) = self.entries.back() {
            if last.item.id.index < from {
                break;
            }
            self.bytes -= last.bytes;
            self.entries.pop_back();
        }
        while let Some(last) = self.rows.back() {
            if last.item.index < from {
                break;
            }
            self.bytes -= last.bytes;
            self.rows.pop_back();
        }
        self.end = Some(self.end.map_or(from, |end| end.min(from)));
    }

    pub(super) fn purge(&mut self, upto: LogIndex) {
        while let Some(first) = self.entries.front() {
            if first.item.id.index > upto {
                break;
            }
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
        while let Some(first) = self.rows.front() {
            if first.item.index > upto {
                break;
            }
            self.bytes -= first.bytes;
            self.rows.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.end = self.end.map(|end| end.max(LogIndex(upto.0 + 1)));
    }

    pub(super) fn delete(&mut self) {
        self.entries.clear();
        self.rows.clear();
        self.bytes = 0;
        self.deleted = true;
    }

    /// Notes that everything up to operation `sequence` is on disk.
    pub(super) fn durable(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence);
        self.trim_rows();
    }

    /// Drops durable entries, oldest first, until about `bytes` are free. Returns whether it could hold more of them.
    pub(super) fn evict(&mut self, bytes: usize) -> bool {
        let target = self.bytes.saturating_sub(bytes);
        while self.bytes > target {
            match self.entries.front() {
                Some(first) if first.sequence <= self.durable => {
                    self.bytes -= first.bytes;
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
        self.trim_rows();
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
            self.rows.shrink_to_fit();
        }
        !self.entries.is_empty() || !self.rows.is_empty()
    }

    /// Drops the durable rows whose entries are gone: they serve no read at the tail.
    fn trim_rows(&mut self) {
        let first = self.entries.front().map(|held| held.item.id.index);
        while let Some(row) = self.rows.front() {
            if row.sequence > self.durable || first.is_some_and(|first| row.item.index >= first) {
                break;
            }
            self.bytes -= row.bytes;
            self.rows.pop_front();
        }
    }

    /// Where the entries of `[from, to)` are, or the first of them.
    pub(super) fn source(&self, from: LogIndex, to: LogIndex) -> Source {
        let to = self.end.map_or(to, |end| end.min(to));
        if from >= to || self.purged.is_some_and(|purged| from <= purged) || self.deleted {
            return Source::Nowhere;
        }
        match self.entries.front() {
            Some(first) if first.item.id.index <= from => Source::Memory(to),
            Some(first) => Source::Disk(to.min(first.item.id.index)),
            None => Source::Disk(to),
        }
    }

    /// The entries of `[from, to)` that are in memory; `from` must be.
    pub(super) fn range(
        &self,
        from: LogIndex,
        to: LogIndex,
    ) -> impl Iterator<Item = &Arc<Entry>> + '_ {
        let first = self.entries.front().map_or(from, |held| held.item.id.index);
        let place = |index: LogIndex| {
            usize::try_from(index.0.saturating_sub(first.0))
                .unwrap_or(usize::MAX)
                .min(self.entries.len())
        };
        let range = place(from)..place(to).max(place(from));
        self.entries.range(range).map(|held| &held.item)
    }

    /// The batches from the one that contains `from` on, with bases below `to`.
    pub(super) fn batches(&self, from: Offset, to: Offset, bytes_max: usize) -> Batches {
        let at = self
            .rows
            .partition_point(|held| held.item.end_offset() <= from);
        let covered = self
            .rows
            .front()
            .is_some_and(|first| first.item.base_offset <= from);
        if at == self.rows.len() || !covered {
            return Batches::Disk;
        }
        let rows = self.rows.range(at..).map(|held| held.item);
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut unread = rows.take_while(|row| row.base_offset < to).peekable();
        while let Some(row) = unread.peek().copied() {
            let Some(batch) = self.batch(row) else { break };
            bytes += batch.part.bytes.len();
            if bytes > bytes_max && !batches.is_empty() {
                break;
            }
            batches.push(batch);
            unread.next();
        }
        if batches.is_empty() && unread.peek().is_some() {
            return Batches::Rows(unread.take(ROWS_MAX).collect());
        }
        Batches::Memory(batches)
    }

    /// Base offset of the first row in memory.
    pub(super) fn first_base(&self) -> Option<Offset> {
        self.rows.front().map(|held| held.item.base_offset)
    }

    fn batch(&self, row: OffsetRow) -> Option<BatchRead> {
        let first = self.entries.front()?.item.id.index;
        let place = usize::try_from(row.index.0.checked_sub(first.0)?).ok()?;
        let entry = &self.entries.get(place)?.item;
        Some(BatchRead {
            row,
            header: entry.header.clone(),
            part: entry.parts.get(row.part as usize)?.clone(),
        })
    }

    /// The first row in memory that matches, and whether the one in front of it is in memory too, so that no row on
    /// disk can match first.
    pub(super) fn find(&self, search: Search) -> (Option<OffsetRow>, bool) {
        let at = self
            .rows
            .partition_point(|held| !search.matches(&held.item));
        (self.rows.get(at).map(|held| held.item), at > 0)
    }
}
