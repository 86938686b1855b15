//! One group's log and state.

use std::sync::Arc;

use bytes::Bytes;

use super::backend::Read;
use super::codec::{self, ENTRY_BYTES_MAX};
use super::queue::Change;
use super::store::Handle;
use super::tail::{Batches, Group, Source, weight};
use super::types::{Applied, BatchRead, Done, Entry, EntryHead, EntryId, GroupState, Search};
use super::{Error, reader};
use crate::types::{GroupId, LogIndex, Offset, OffsetRow};

/// Bytes read from the disk in one go: a read transaction that lives long keeps the file from reusing its pages.
const STEP_BYTES: usize = 4 << 20;

/// The log and the state of one group. Cheap to clone.
#[derive(Clone)]
pub struct GroupStore {
    handle: Arc<Handle>,
    group: Arc<Group>,
}

impl GroupStore {
    pub(super) fn new(handle: Arc<Handle>, group: Arc<Group>) -> GroupStore {
        GroupStore { handle, group }
    }

    pub(super) fn into_group(self) -> Arc<Group> {
        self.group
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.group.id
    }

    /// What is durable of the group, everything submitted before included. To be called before anything else.
    pub async fn load(&self) -> Result<GroupState, Error> {
        self.check()?;
        self.handle.flush().await?;
        let id = self.group.id;
        let state = self.view(move |view| reader::state(view, id)).await?;
        let end = state.last.map_or(0, |last| last.index.0 + 1);
        let purged = state.purged.map(|purged| purged.index);
        self.group.with(|tail| tail.loaded(purged, LogIndex(end)));
        Ok(state)
    }

    /// Appends consecutive entries. They are readable when this returns; `done` is told when they are durable, or, if
    /// this fails, why not.
    pub async fn append(&self, entries: Vec<Entry>, done: Done) -> Result<(), Error> {
        let entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
        if let Err(error) = self.check_append(&entries) {
            done(Err(error.clone()));
            return Err(error);
        }
        let bytes = entries.iter().map(|entry| weight(entry)).sum();
        let id = self.group.id;
        let change = Change::Append(entries);
        let appended = self.submit(change, bytes, Some(done), |tail, change, sequence| {
            if let Change::Append(entries) = change
                && let Some(first) = entries.first()
            {
                tail.continues(id, first.id.index)?;
                tail.append(entries, sequence);
            }
            Ok(())
        });
        appended.await
    }

    fn check_append(&self, entries: &[Arc<Entry>]) -> Result<(), Error> {
        self.check()?;
        let group = self.group.id;
        let Some(first) = entries.first() else {
            return Ok(());
        };
        for (entry, expected) in entries.iter().zip(first.id.index.0..) {
            if entry.id.index.0 != expected {
                return Err(Error::NotContiguous {
                    group,
                    expected: LogIndex(expected),
                    got: entry.id.index,
                });
            }
            if codec::encoded_bytes(entry).is_none() {
                return Err(Error::EntryTooLarge {
                    group,
                    bytes_max: ENTRY_BYTES_MAX,
                });
            }
        }
        Ok(())
    }

    /// Saves the vote. Durable on return.
    pub async fn save_vote(&self, vote: Bytes) -> Result<(), Error> {
        self.change(Change::Vote(vote), |_| {}).await
    }

    /// Deletes the entries from `from` on. Durable on return, and in effect for reads at once.
    pub async fn truncate(&self, from: LogIndex) -> Result<(), Error> {
        self.change(Change::Truncate(from), move |tail| tail.truncate(from))
            .await
    }

    /// Deletes the entries up to and with `upto`, and their offset rows, and saves the snapshot that stands for them.
    /// If the log ends before `upto`, it continues behind it. Durable on return, and in effect for reads at once; the
    /// room on the disk comes back step by step.
    pub async fn purge(&self, upto: EntryId, snapshot: Bytes) -> Result<(), Error> {
        let change = Change::Purge { upto, snapshot };
        self.change(change, move |tail| tail.purge(upto.index))
            .await
    }

    async fn change(
        &self,
        change: Change,
        prepare: impl FnOnce(&mut super::tail::Tail),
    ) -> Result<(), Error> {
        self.check()?;
        let target = Some((self.group.clone(), change));
        let submitted = self.handle.submit_durable(target, 0, |tail, _, _| {
            prepare(tail);
            Ok(())
        });
        submitted.await
    }

    /// Saves what applying entries changed, with the next transaction of anybody, or alone after some 100 ms. Offset
    /// rows are readable when this returns.
    pub async fn apply(&self, applied: Applied) -> Result<(), Error> {
        self.check()?;
        let rows = applied.rows.len() * size_of::<OffsetRow>();
        let values = applied
            .state_rows
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()));
        let bytes = applied.state.len() + rows + values.sum::<usize>();
        let applied = Change::Apply(applied);
        let submitted = self.submit(applied, bytes, None, |tail, change, sequence| {
            if let Change::Apply(applied) = change {
                tail.apply(&applied.rows, sequence);
            }
            Ok(())
        });
        submitted.await
    }

    async fn submit(
        &self,
        change: Change,
        bytes: usize,
        done: Option<Done>,
        prepare: impl FnOnce(&mut super::tail::Tail, &Change, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let target = Some((self.group.clone(), change));
        self.handle.submit(target, bytes, done, prepare).await
    }

    /// Consecutive entries of `[from, to)`, at least one if `from` is in the log, else none; at most about `bytes_max`.
    pub async fn read(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.check()?;
        let id = self.group.id;
        let mut found: Vec<Entry> = Vec::new();
        let mut next = from;
        let mut left = bytes_max;
        loop {
            let (source, held) = self.group.with(|tail| {
                let source = tail.source(next, to);
                let mut held = Vec::new();
                if let Source::Memory(to) = source {
                    for entry in tail.range(next, to) {
                        let bytes = weight(entry);
                        if bytes > left && !(held.is_empty() && found.is_empty()) {
                            break;
                        }
                        left = left.saturating_sub(bytes);
                        held.push(entry.clone());
                    }
                }
                (source, held)
            });
            let Source::Disk(end) = source else {
                found.extend(held.iter().map(|entry| Entry::clone(entry)));
                return Ok(found);
            };
            let step = left.min(STEP_BYTES);
            let entries = self
                .view(move |view| reader::entries(view, id, next, end, step))
                .await?;
            let Some(last) = entries.last() else {
                return Ok(found);
            };
            next = LogIndex(last.id.index.0 + 1);
            for entry in entries {
                let bytes = weight(&entry);
                if bytes > left && !found.is_empty() {
                    return Ok(found);
                }
                left = left.saturating_sub(bytes);
                found.push(entry);
            }
            if step < STEP_BYTES && next < end {
                // The step ended because the caller's limit was reached.
                return Ok(found);
            }
        }
    }

    /// Heads of consecutive entries of `[from, to)`, as [`GroupStore::read`], at most `entries_max`. Does not read the
    /// parts.
    pub async fn read_heads(
        &self,
        from: LogIndex,
        to: LogIndex,
        entries_max: usize,
    ) -> Result<Vec<EntryHead>, Error> {
        self.check()?;
        let id = self.group.id;
        let mut found: Vec<EntryHead> = Vec::new();
        let mut next = from;
        while found.len() < entries_max {
            let left = entries_max - found.len();
            let (source, held) = self.group.with(|tail| {
                let source = tail.source(next, to);
                let held: Vec<_> = match source {
                    Source::Memory(to) => tail.range(next, to).take(left).cloned().collect(),
                    Source::Disk(_) | Source::Nowhere => Vec::new(),
                };
                (source, held)
            });
            let Source::Disk(end) = source else {
                found.extend(held.iter().map(|entry| EntryHead::of(entry)));
                break;
            };
            let heads = self
                .view(move |view| reader::heads(view, id, next, end, left))
                .await?;
            let Some(last) = heads.last() else { break };
            next = LogIndex(last.id.index.0 + 1);
            found.extend(heads);
        }
        Ok(found)
    }

    /// Batches from the one that contains `from`, or the first behind it, with base offsets below `to`; at least one
    /// if there is one, at most about `bytes_max`. Between those returned no offset is missing, even if a purge comes
    /// in between.
    pub async fn read_batches(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<BatchRead>, Error> {
        self.check()?;
        let id = self.group.id;
        let mut found: Vec<BatchRead> = Vec::new();
        let mut next = from;
        let mut left = bytes_max;
        while next < to && (left > 0 || found.is_empty()) {
            let step = left.min(STEP_BYTES);
            let source = self.group.with(|tail| tail.batches(next, to, left));
            // A step on disk that may take all there is room for ends where the room ends: another one would read a
            // batch only to find that it does not fit.
            let last_step = left <= STEP_BYTES && !matches!(source, Batches::Memory(_));
            let batches = match source {
                Batches::Memory(batches) => batches,
                Batches::Rows(rows) => {
                    self.view(move |view| reader::batches_of(view, id, &rows, step))
                        .await?
                }
                Batches::Disk => {
                    let batches = self
                        .view(move |view| reader::batches(view, id, next, to, step))
                        .await?;
                    // Nothing on disk at or behind `next`: perhaps all of it is only in memory yet.
                    match self.group.with(|tail| tail.first_base()) {
                        Some(base) if batches.is_empty() && next < base => {
                            next = base;
                            continue;
                        }
                        _ => batches,
                    }
                }
            };
            let Some(last) = batches.last() else { break };
            next = last.row.end_offset();
            for batch in batches {
                let bytes = batch.part.bytes.len();
                let follows = found
                    .last()
                    .is_none_or(|last| last.row.end_offset() == batch.row.base_offset);
                if !follows || bytes > left && !found.is_empty() {
                    return Ok(found);
                }
                left = left.saturating_sub(bytes);
                found.push(batch);
            }
            if last_step {
                break;
            }
        }
        Ok(found)
    }

    /// The first offset row that matches.
    pub async fn find(&self, search: Search) -> Result<Option<OffsetRow>, Error> {
        self.check()?;
        let id = self.group.id;
        let (held, certain) = self.group.with(|tail| tail.find(search));
        if certain {
            return Ok(held);
        }
        let stored = self
            .view(move |view| reader::find(view, id, search))
            .await?;
        Ok(stored.or(held))
    }

    /// Drops from memory what is on disk, as if other groups had taken the room.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.group.with(|tail| tail.evict(usize::MAX));
    }

    fn check(&self) -> Result<(), Error> {
        self.handle.check_open()?;
        self.group.with(|tail| tail.check(self.group.id))
    }

    /// Reads from the database on a thread that may block.
    async fn view<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Read) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.handle.shared.clone();
        let stepped = shared.stepped;
        let read = move || {
            let mut work = Some(work);
            let mut found = Err(Error::Closed);
            let read = shared.backend.read(&mut |view| {
                if let Some(work) = work.take() {
                    found = Ok(work(view)?);
                }
                Ok(())
            });
            match read {
                // redb refuses everything after an error of the disk, so no write would succeed either.
                Err(error @ Error::Read(_)) => Err(shared.fail(error)),
                // The writer closed the database after a failure.
                Err(Error::Closed) => Err(shared.failure.get().cloned().unwrap_or(Error::Closed)),
                read => read.and(found),
            }
        };
        if stepped {
            tokio::task::yield_now().await;
            return read();
        }
        let read = tokio::task::spawn_blocking(read);
        // It fails only when the runtime shuts down.
        read.await.unwrap_or(Err(Error::Closed))
    }
}
