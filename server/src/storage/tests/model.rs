//! What storage has to hold after each operation, kept in maps, and how to ask a storage for the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::disk::Random;
use super::support::*;
use crate::storage::{Applied, Entry, EntryId, Error, GroupStore, Storage};
use crate::types::{GroupId, Offset, OffsetRow};

/// Groups of the tests.
pub(super) const GROUPS: u64 = 3;

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Append(Vec<Entry>),
    Vote(Bytes),
    Truncate(u64),
    Purge(EntryId, Bytes),
    Apply(Applied),
    Delete,
    Empty(Bytes),
}

/// Everything that can be read of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Bytes>,
    last: Option<EntryId>,
    purged: Option<EntryId>,
    snapshot: Option<Bytes>,
    applied: Option<Bytes>,
    state_rows: BTreeMap<Bytes, Bytes>,
    rows: Vec<OffsetRow>,
}

impl Model {
    fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index.0 + 1)
    }

    fn start(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index.0 + 1)
    }

    /// The first entry that is not applied.
    fn unapplied(&self) -> u64 {
        let rows = self.rows.last().map_or(0, |row| row.index.0 + 1);
        rows.max(self.start())
    }

    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Append(entries) => {
                for entry in entries {
                    self.last = Some(entry.id);
                    self.entries.insert(entry.id.index.0, entry.clone());
                }
            }
            Act::Vote(vote) => self.vote = Some(vote.clone()),
            Act::Truncate(from) => {
                self.entries.split_off(from);
                let last = self.entries.last_key_value();
                self.last = last.map(|(_, entry)| entry.id).or(self.purged);
            }
            Act::Purge(upto, snapshot) => {
                self.snapshot = Some(snapshot.clone());
                if self.purged.is_some_and(|purged| purged.index >= upto.index) {
                    return;
                }
                self.purged = Some(*upto);
                self.entries = self.entries.split_off(&(upto.index.0 + 1));
                self.rows.retain(|row| row.index > upto.index);
                if self.end() <= upto.index.0 {
                    self.last = Some(*upto);
                }
            }
            Act::Apply(applied) => {
                self.applied = Some(applied.state.clone());
                self.rows.extend(&applied.rows);
                for (key, value) in &applied.state_rows {
                    match value {
                        Some(value) => self.state_rows.insert(key.clone(), value.clone()),
                        None => self.state_rows.remove(key),
                    };
                }
            }
            Act::Delete => *self = Model::default(),
            Act::Empty(vote) => {
                *self = Model {
                    vote: Some(vote.clone()),
                    ..Model::default()
                }
            }
        }
    }

    /// A sensible next operation. `serial` is different each time.
    pub(super) fn next(&self, random: &mut Random, serial: u64) -> Act {
        let text = Bytes::from(format!("{serial}"));
        match random.below(100) {
            0..45 => {
                let lengths: Vec<usize> = (0..random.below(3))
                    .map(|_| [10, 300, 5_000, 20_000][random.below(4) as usize])
                    .collect();
                let end = self.end() + 1 + random.below(4);
                Act::Append(entries(serial, self.end()..end, &lengths))
            }
            45..70 => self.next_apply(random, text),
            70..78 => Act::Vote(text),
            78..86 => {
                let from = self.unapplied() + random.below(4);
                Act::Truncate(from.min(self.end()))
            }
            86..98 => {
                let upto = match random.below(10) {
                    0 => self.end() + random.below(3),
                    _ => self.start() + random.below(4),
                };
                let stored = self.entries.get(&upto).map(|entry| entry.id);
                Act::Purge(stored.unwrap_or(id(serial, upto)), text)
            }
            _ if random.chance(50) => Act::Empty(text),
            _ => Act::Delete,
        }
    }

    fn next_apply(&self, random: &mut Random, value: Bytes) -> Act {
        let from = self.unapplied();
        let some = self.entries.range(from..).take(random.below(4) as usize);
        let entries: Vec<Entry> = some.map(|(_, entry)| entry.clone()).collect();
        let first = self.batches_applied();
        let rows = rows(first, &entries);
        let key = Bytes::from(format!("key {}", random.below(3)));
        let next = first + rows.len() as u64;
        let state = [value.clone(), Bytes::copy_from_slice(&next.to_be_bytes())];
        Act::Apply(Applied {
            rows,
            state_rows: vec![(key, random.chance(70).then_some(value))],
            state: Bytes::from(state.concat()),
        })
    }

    /// Batches that were ever applied: the end of the applied state says so, because their rows may be purged.
    fn batches_applied(&self) -> u64 {
        let state = self.applied.as_deref().and_then(<[u8]>::last_chunk);
        state.map_or(0, |number| u64::from_be_bytes(*number))
    }
}

/// Reads everything of a group the way that the rooms above do.
pub(super) async fn observe(group: &GroupStore) -> Result<Model, Error> {
    let state = group.load().await?;
    let from = state.purged.map_or(0, |purged| purged.index.0 + 1);
    let read = group.read(index(from), END, usize::MAX).await?;
    let heads = group.read_heads(index(from), END, usize::MAX).await?;
    assert_eq!(heads.len(), read.len());
    let batches = group.read_batches(Offset(0), Offset(u64::MAX), usize::MAX);
    let batches = batches.await?;
    let entries: BTreeMap<u64, Entry> = read
        .into_iter()
        .map(|entry| (entry.id.index.0, entry))
        .collect();
    for batch in &batches {
        let entry = &entries[&batch.row.index.0];
        assert_eq!(batch.part, entry.parts[batch.row.part as usize]);
    }
    Ok(Model {
        entries,
        vote: state.vote,
        last: state.last,
        purged: state.purged,
        snapshot: state.snapshot,
        applied: state.applied,
        state_rows: state.state_rows.into_iter().collect(),
        rows: batches.iter().map(|batch| batch.row).collect(),
    })
}

/// As [`observe`], for all groups.
pub(super) async fn observe_all(storage: &Storage) -> Result<Vec<Model>, Error> {
    let mut models = Vec::new();
    for id in 0..GROUPS {
        models.push(observe(&storage.group(GroupId(id))).await?);
    }
    Ok(models)
}
