//! Reading entries.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{bounds, corrupt};
use crate::storage::Error;
use crate::storage::backend::{self, Order, Read};
use crate::storage::codec::{self, Fixed, Head, Malformed};
use crate::storage::keys::{self, Table};
use crate::storage::types::{Entry, EntryHead};
use crate::types::{GroupId, LogIndex};

/// Most heads fetched by one scan, so that its rows stay small in memory.
const HEADS_MAX: usize = 4096;
/// Memory reserved at once for an entry.
const CHUNKS_RESERVE_MAX: usize = 16 << 20;

/// Entries of `[from, to)`, at least one if `from` is in the log, at most about `bytes_max` bytes.
pub(in crate::storage) fn entries(
    view: &dyn Read,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    for (index, front) in fronts(view, group, from, to, HEADS_MAX, bytes_max)? {
        let encoded = whole(view, group, index, front)?;
        let entry = codec::decode_entry(group, index, &encoded);
        found.push(entry.map_err(|Malformed(_)| corrupt(group, index))?);
    }
    Ok(found)
}

/// Heads of the entries of `[from, to)`, at most `entries_max`.
pub(in crate::storage) fn heads(
    view: &dyn Read,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    entries_max: usize,
) -> Result<Vec<EntryHead>, Error> {
    let limit = entries_max.min(HEADS_MAX);
    let fronts = fronts(view, group, from, to, limit, usize::MAX)?;
    let heads = fronts
        .into_iter()
        .map(|(index, front)| Ok(decode_head(view, group, index, front)?.into_entry_head()));
    heads.collect()
}

/// Head of the entry at `index`, if there is one.
pub(in crate::storage) fn head(
    view: &(impl Read + ?Sized),
    group: GroupId,
    index: LogIndex,
) -> Result<Option<Head>, Error> {
    let front = backend::get(view, Table::Heads, &keys::head(group, index))?;
    front
        .map(|front| decode_head(view, group, index, front))
        .transpose()
}

/// Fronts of consecutive entries from `from` on.
fn fronts(
    view: &dyn Read,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Vec<(LogIndex, Vec<u8>)>, Error> {
    let bounds = bounds(view, group)?;
    let to = to.min(bounds.end());
    if from >= to || !bounds.holds(from) {
        return Ok(Vec::new());
    }
    let mut fronts = Vec::new();
    let mut bytes = 0usize;
    let mut next = from;
    let mut full = false;
    let (low, high) = (keys::head(group, from), keys::head(group, to));
    view.scan(
        Table::Heads,
        &low,
        &high,
        Order::Ascending,
        &mut |key, value| {
            if keys::second(key) != Some(next.0) {
                return ControlFlow::Break(());
            }
            let total = Fixed::decode(value).map_or(value.len(), Fixed::total_bytes);
            if !fronts.is_empty() && bytes.saturating_add(total) > bytes_max {
                full = true;
                return ControlFlow::Break(());
            }
            bytes = bytes.saturating_add(total);
            fronts.push((next, value.to_vec()));
            next = LogIndex(next.0 + 1);
            full = fronts.len() >= entries_max;
            if full {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?;
    if next < to && !full {
        return Err(corrupt(group, next));
    }
    Ok(fronts)
}

fn decode_head(
    view: &(impl Read + ?Sized),
    group: GroupId,
    index: LogIndex,
    front: Vec<u8>,
) -> Result<Head, Error> {
    let bytes = fixed(group, index, &front)?.head_bytes();
    let encoded = complete(view, group, index, front, bytes)?;
    codec::decode_head(group, index, &encoded).map_err(|Malformed(_)| corrupt(group, index))
}

pub(super) fn whole(
    view: &dyn Read,
    group: GroupId,
    index: LogIndex,
    front: Vec<u8>,
) -> Result<Bytes, Error> {
    let bytes = fixed(group, index, &front)?.total_bytes();
    complete(view, group, index, front, bytes)
}

fn fixed(group: GroupId, index: LogIndex, front: &[u8]) -> Result<Fixed, Error> {
    Fixed::decode(front).map_err(|Malformed(_)| corrupt(group, index))
}

/// Adds chunks to the front of an entry until at least `bytes` are there.
fn complete(
    view: &(impl Read + ?Sized),
    group: GroupId,
    index: LogIndex,
    mut encoded: Vec<u8>,
    bytes: usize,
) -> Result<Bytes, Error> {
    if encoded.len() < bytes {
        // Wrong lengths in a damaged front must not reserve memory for bytes that are not there.
        let mut place = 0;
        let (low, high) = (
            keys::chunk(group, index, 0),
            keys::chunk(group, index, u16::MAX),
        );
        view.scan(
            Table::Chunks,
            &low,
            &high,
            Order::Ascending,
            &mut |key, value| {
                if place == 0 {
                    encoded
                        .reserve_exact(bytes.min(CHUNKS_RESERVE_MAX).saturating_sub(encoded.len()));
                }
                if key != keys::chunk(group, index, place) {
                    return ControlFlow::Break(());
                }
                place += 1;
                encoded.extend_from_slice(value);
                if encoded.len() < bytes {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            },
        )?;
        if encoded.len() < bytes {
            return Err(corrupt(group, index));
        }
    }
    Ok(Bytes::from(encoded))
}
