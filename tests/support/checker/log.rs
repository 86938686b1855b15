//! One partition's log, as all clients together saw it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::history::Value;

/// A value at an offset, and the operation that showed it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) operation: usize,
}

/// A log. Consistent clients see one value at each offset, but nothing here relies on that.
#[derive(Default)]
pub(super) struct Log {
    entries: BTreeMap<i64, Vec<Entry>>,
    /// Where each value was seen.
    offsets: HashMap<Value, BTreeSet<i64>>,
    /// The poll that returned each value first, whatever became of the poll.
    first_polls: HashMap<Value, usize>,
    /// The first of the polls that succeeded.
    reads: HashMap<Value, usize>,
    /// Offsets in ascending order: a place in here is the index of an offset.
    order: Vec<i64>,
}

impl Log {
    pub(super) fn note(&mut self, offset: i64, value: Value, operation: usize) {
        let entries = self.entries.entry(offset).or_default();
        if entries.iter().all(|entry| entry.value != value) {
            entries.push(Entry { value, operation });
        }
        self.offsets.entry(value).or_default().insert(offset);
    }

    pub(super) fn note_poll(&mut self, value: Value, operation: usize, is_ok: bool) {
        self.first_polls.entry(value).or_insert(operation);
        if is_ok {
            self.reads.entry(value).or_insert(operation);
        }
    }

    /// To be called when all is noted.
    pub(super) fn finish(&mut self) {
        self.order = self.entries.keys().copied().collect();
    }

    /// Offsets in ascending order with the values seen there.
    pub(super) fn entries(&self) -> impl Iterator<Item = (i64, &[Entry])> {
        self.entries
            .iter()
            .map(|(offset, entries)| (*offset, entries.as_slice()))
    }

    pub(super) fn at(&self, offset: i64) -> &[Entry] {
        self.entries.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// Values that were seen, each with its offsets in ascending order.
    pub(super) fn values(&self) -> impl Iterator<Item = (Value, &BTreeSet<i64>)> {
        self.offsets
            .iter()
            .map(|(value, offsets)| (*value, offsets))
    }

    pub(super) fn offsets_of(&self, value: Value) -> impl Iterator<Item = i64> {
        self.offsets.get(&value).into_iter().flatten().copied()
    }

    /// Values that polls returned, each with the first such poll.
    pub(super) fn first_polls(&self) -> impl Iterator<Item = (Value, usize)> {
        self.first_polls.iter().map(|(value, at)| (*value, *at))
    }

    /// Values that successful polls returned, each with the first such poll.
    pub(super) fn reads(&self) -> impl Iterator<Item = (Value, usize)> {
        self.reads.iter().map(|(value, at)| (*value, *at))
    }

    pub(super) fn first_read(&self, value: Value) -> Option<usize> {
        self.reads.get(&value).copied()
    }

    pub(super) fn is_read(&self, value: Value) -> bool {
        self.reads.contains_key(&value)
    }

    /// The index of an offset among those that hold something.
    pub(super) fn index(&self, offset: i64) -> Option<i64> {
        let at = self.order.binary_search(&offset).ok()?;
        i64::try_from(at).ok()
    }
}
