//! What each kind of operation writes.

use bytes::Bytes;

use crate::storage::Error;
use crate::storage::backend::{self, Write};
use crate::storage::codec;
use crate::storage::keys::{self, Meta, Pending, Table};
use crate::storage::layout::layout;
use crate::storage::queue::{Change, Operation};
use crate::storage::reader;
use crate::storage::rows;
use crate::storage::types::{Applied, CommitReport, Entry, EntryId};
use crate::types::{GroupId, LogIndex, OffsetRow};

/// Writes one operation into the transaction and counts it.
pub(super) fn write(
    write: &mut dyn Write,
    operation: &Operation,
    report: &mut CommitReport,
) -> Result<(), Error> {
    let Some((group, change)) = &operation.change else {
        return Ok(());
    };
    let group = group.id;
    match change {
        Change::Append(entries) => {
            for entry in entries {
                report.bytes += append(write, group, entry)? as u64;
                report.entries += 1;
            }
            match entries.last() {
                Some(last) => put_id(write, group, Meta::Last, last.id),
                None => Ok(()),
            }
        }
        Change::Vote(vote) => put_meta(write, group, Meta::Vote, vote),
        Change::Truncate(from) => truncate(write, group, *from),
        Change::Purge { upto, snapshot } => purge(write, group, *upto, snapshot),
        Change::Apply(applied) => apply(write, group, applied),
        Change::Delete { vote } => {
            let (low, high) = (keys::group(group), keys::group_end(group));
            write.delete_range(Table::Meta, &low, &high)?;
            if let Some(vote) = vote {
                put_meta(write, group, Meta::Vote, vote)?;
            }
            write.put(Table::Pending, &low, &[&[Pending::Delete as u8]])
        }
    }
}

fn append(write: &mut dyn Write, group: GroupId, entry: &Entry) -> Result<usize, Error> {
    let head = codec::encode_head(group, entry);
    let total = head.len()
        + entry
            .parts
            .iter()
            .map(|part| part.bytes.len())
            .sum::<usize>();
    let layout = layout(total);
    let index = entry.id.index;
    let parts = entry.parts.iter().map(|part| part.bytes.as_ref());
    let mut stream = Stream::new(std::iter::once(head.as_slice()).chain(parts));
    let mut pieces = Vec::new();
    stream.take(layout.front, &mut pieces);
    write.put(Table::Heads, &keys::head(group, index), &pieces)?;
    for (number, bytes) in (0u16..).zip(layout.chunks) {
        pieces.clear();
        stream.take(bytes, &mut pieces);
        write.put(Table::Chunks, &keys::chunk(group, index, number), &pieces)?;
    }
    Ok(total)
}

/// Pieces of bytes, back to back, taken by length.
struct Stream<'a, I> {
    current: &'a [u8],
    rest: I,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Stream<'a, I> {
    fn new(rest: I) -> Self {
        Stream { current: &[], rest }
    }

    fn take(&mut self, mut bytes: usize, pieces: &mut Vec<&'a [u8]>) {
        while bytes > 0 {
            if self.current.is_empty() {
                match self.rest.next() {
                    Some(next) => self.current = next,
                    None => return,
                }
            }
            let (piece, rest) = self.current.split_at(bytes.min(self.current.len()));
            self.current = rest;
            bytes -= piece.len();
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
    }
}

fn truncate(write: &mut dyn Write, group: GroupId, from: LogIndex) -> Result<(), Error> {
    let (low, high) = (keys::head(group, from), keys::group_end(group));
    write.delete_range(Table::Heads, &low, &high)?;
    write.delete_range(Table::Chunks, &low, &high)?;
    let bounds = reader::bounds(write, group)?;
    if bounds.end() <= from {
        return Ok(());
    }
    let before = from.0.checked_sub(1).map(LogIndex);
    let last = match (before, bounds.purged) {
        (Some(before), Some(purged)) if before <= purged.index => Some(purged),
        (Some(before), _) => reader::head(write, group, before)?.map(|head| head.id),
        (None, purged) => purged,
    };
    match last {
        Some(last) => put_id(write, group, Meta::Last, last),
        None => write.delete(Table::Meta, &keys::meta(group, Meta::Last)),
    }
}

fn purge(
    write: &mut dyn Write,
    group: GroupId,
    upto: EntryId,
    snapshot: &Bytes,
) -> Result<(), Error> {
    let bounds = reader::bounds(write, group)?;
    put_meta(write, group, Meta::Snapshot, snapshot)?;
    if bounds
        .purged
        .is_some_and(|purged| purged.index >= upto.index)
    {
        return Ok(());
    }
    put_id(write, group, Meta::Purged, upto)?;
    if bounds.end() <= upto.index {
        put_id(write, group, Meta::Last, upto)?;
    }
    let purge = [Pending::Purge as u8];
    write.put(Table::Pending, &keys::group(group), &[&purge])
}

fn apply(write: &mut dyn Write, group: GroupId, applied: &Applied) -> Result<(), Error> {
    put_meta(write, group, Meta::Applied, &applied.state)?;
    let mut rest = applied.rows.as_slice();
    while !rest.is_empty() {
        let mut length = 1;
        while length < rest.len() && rows::joins_block(&rest[..length], &rest[length]) {
            length += 1;
        }
        let (block, behind) = rest.split_at(length);
        put_block(write, group, block)?;
        rest = behind;
    }
    if applied.state_rows.is_empty() {
        return Ok(());
    }
    let before = reader::state_digest(write, group)?;
    let mut digest = before;
    for (name, value) in &applied.state_rows {
        let key = keys::state(group, name);
        if let Some(old) = backend::get(write, Table::State, &key)? {
            digest.remove(&old);
        }
        match value {
            Some(value) => {
                let seal = rows::seal(Table::State, &key, value);
                digest.add(&seal);
                write.put(Table::State, &key, &[&seal, value])?;
            }
            None => write.delete(Table::State, &key)?,
        }
    }
    put_meta(write, group, Meta::StateDigest, &digest.encode())
}

fn put_block(write: &mut dyn Write, group: GroupId, block: &[OffsetRow]) -> Result<(), Error> {
    let Some(first) = block.first() else {
        return Ok(());
    };
    let key = keys::offset(group, first.base_offset);
    let body = rows::encode_block(block);
    let seal = rows::seal(Table::Offsets, &key, &body);
    write.put(Table::Offsets, &key, &[&seal, &body])
}

fn put_id(write: &mut dyn Write, group: GroupId, kind: Meta, id: EntryId) -> Result<(), Error> {
    put_meta(write, group, kind, &rows::encode_id(id))
}

fn put_meta(write: &mut dyn Write, group: GroupId, kind: Meta, body: &[u8]) -> Result<(), Error> {
    let key = keys::meta(group, kind);
    let seal = rows::seal(Table::Meta, &key, body);
    write.put(Table::Meta, &key, &[&seal, body])
}
