//! Reading batches by offset, and searching the offset rows.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Bounds, bounds, corrupt, corrupt_row, log};
use crate::storage::Error;
use crate::storage::backend::{self, Order, Read};
use crate::storage::codec::{self, Head, Malformed};
use crate::storage::keys::{self, Table};
use crate::storage::rows;
use crate::storage::types::{BatchRead, Search};
use crate::types::{GroupId, LogIndex, Offset, OffsetRow};

/// Most offset rows fetched by one scan.
const ROWS_MAX: usize = 8192;

/// Batches from the one that contains `from`, or the first behind it, with bases below `to`; at least one if there is
/// one, at most about `bytes_max`.
pub(in crate::storage) fn batches(
    view: &dyn Read,
    group: GroupId,
    from: Offset,
    to: Offset,
    bytes_max: usize,
) -> Result<Vec<BatchRead>, Error> {
    let Some(first) = find(view, group, Search::Contains(from))? else {
        return Ok(Vec::new());
    };
    let mut wanted: Vec<OffsetRow> = Vec::new();
    let mut failed = None;
    let Some(block) = floor(view, group, first.base_offset)? else {
        return Err(corrupt_row(group, OFFSETS));
    };
    let low = keys::offset(group, block.base);
    let high = keys::offset(group, to);
    view.scan(
        Table::Offsets,
        &low,
        &high,
        Order::Ascending,
        &mut |key, value| {
            let rows = match decode_block(group, key, value) {
                Ok(block) => block.rows,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            for row in rows {
                if row.base_offset < first.base_offset {
                    continue;
                }
                if wanted
                    .last()
                    .is_some_and(|last| last.end_offset() != row.base_offset)
                {
                    failed = Some(corrupt_row(group, OFFSETS));
                    return ControlFlow::Break(());
                }
                let bytes = row.end_bytes.saturating_sub(first.end_bytes);
                if row.base_offset >= to
                    || wanted.len() >= ROWS_MAX
                    || !wanted.is_empty() && bytes > bytes_max as u64
                {
                    return ControlFlow::Break(());
                }
                wanted.push(row);
            }
            ControlFlow::Continue(())
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => batches_of(view, group, &wanted, bytes_max),
    }
}

/// The batches of `rows`, as many as fit in about `bytes_max`, at least one.
pub(in crate::storage) fn batches_of(
    view: &dyn Read,
    group: GroupId,
    rows: &[OffsetRow],
    bytes_max: usize,
) -> Result<Vec<BatchRead>, Error> {
    let bounds = bounds(view, group)?;
    let mut found: Vec<BatchRead> = Vec::new();
    let mut bytes = 0;
    let mut open: Option<(Head, Bytes)> = None;
    for row in rows {
        if !bounds.holds(row.index) {
            // Purged since the row was read: what is found so far still holds.
            break;
        }
        let (head, encoded) = match open.take() {
            Some((head, encoded)) if head.id.index == row.index => (head, encoded),
            _ => {
                let front = backend::get(view, Table::Heads, &keys::head(group, row.index))?;
                let front = front.ok_or_else(|| corrupt(group, row.index))?;
                let encoded = log::whole(view, group, row.index, front)?;
                let head = codec::decode_head(group, row.index, &encoded);
                (
                    head.map_err(|Malformed(_)| corrupt(group, row.index))?,
                    encoded,
                )
            }
        };
        let part = head.part(&encoded, row.part as usize);
        let part = part.map_err(|Malformed(_)| corrupt(group, row.index))?;
        bytes += part.bytes.len();
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        found.push(BatchRead {
            row: *row,
            header: head.header.clone(),
            part,
        });
        open = Some((head, encoded));
    }
    Ok(found)
}

/// Name of a row of the offsets table in errors.
const OFFSETS: &str = "an offset row";

/// Offset rows that stand in one row of the table.
struct Block {
    base: Offset,
    /// At least one.
    rows: Vec<OffsetRow>,
}

fn decode_block(group: GroupId, key: &[u8], value: &[u8]) -> Result<Block, Error> {
    let decode = || {
        let base = Offset(keys::second(key)?);
        let rows = rows::decode_block(base, rows::unseal(Table::Offsets, key, value)?)?;
        (!rows.is_empty()).then_some(Block { base, rows })
    };
    decode().ok_or_else(|| corrupt_row(group, OFFSETS))
}

/// The last block that begins at or below `offset`.
fn floor(view: &dyn Read, group: GroupId, offset: Offset) -> Result<Option<Block>, Error> {
    let low = keys::group(group);
    let at = keys::offset(group, offset);
    // The smallest key above `at`.
    let high = [&at[..], &[0]].concat();
    first_block(view, group, &low, &high, Order::Descending)
}

fn first_block(
    view: &dyn Read,
    group: GroupId,
    from: &[u8],
    to: &[u8],
    order: Order,
) -> Result<Option<Block>, Error> {
    let mut found = None;
    view.scan(Table::Offsets, from, to, order, &mut |key, value| {
        found = Some(decode_block(group, key, value));
        ControlFlow::Break(())
    })?;
    found.transpose()
}

/// The first row that matches, by bisection of the offsets: every field of a row is monotone in its base offset.
pub(in crate::storage) fn find(
    view: &dyn Read,
    group: GroupId,
    search: Search,
) -> Result<Option<OffsetRow>, Error> {
    let Bounds { purged, last } = bounds(view, group)?;
    if last.is_none() {
        return Ok(None);
    }
    let matches = |row: &OffsetRow| {
        purged.is_none_or(|purged| purged.index < row.index) && search.matches(row)
    };
    let (low, high) = (keys::group(group), keys::group_end(group));
    let Some(first) = first_block(view, group, &low, &high, Order::Ascending)? else {
        return Ok(None);
    };
    if matches(&first.rows[0]) {
        return Ok(Some(first.rows[0]));
    }
    let Some(last) = first_block(view, group, &low, &high, Order::Descending)? else {
        return Err(corrupt_row(group, OFFSETS));
    };
    // Blocks at or below `below` begin with a row that does not match; those at or above `above`, with one that does.
    let mut below = first.base.0;
    let mut above = last.base.0.saturating_add(1);
    let mut behind = first;
    let mut candidate = None;
    while below + 1 < above {
        let middle = below + (above - below) / 2;
        let Some(block) = floor(view, group, Offset(middle))? else {
            return Err(corrupt_row(group, OFFSETS));
        };
        if matches(&block.rows[0]) {
            above = block.base.0;
            candidate = Some(block.rows[0]);
        } else {
            below = middle;
            behind = block;
        }
    }
    let end = behind.rows.last().map(OffsetRow::end_offset);
    let within = behind.rows.into_iter().find(matches);
    match (within, candidate) {
        (None, Some(next)) if end != Some(next.base_offset) => Err(corrupt_row(group, OFFSETS)),
        (within, candidate) => Ok(within.or(candidate)),
    }
}

/// Key offset of the first block, among the first `blocks_max`, of an entry at `index` or behind; or how far the scan
/// came, and whether it came to the end.
pub(in crate::storage) fn first_base_at(
    view: &dyn Read,
    group: GroupId,
    index: LogIndex,
    blocks_max: usize,
) -> Result<(Offset, bool), Error> {
    let (low, high) = (keys::group(group), keys::group_end(group));
    let mut base = Offset(0);
    let mut blocks = 0;
    let mut complete = true;
    view.scan(
        Table::Offsets,
        &low,
        &high,
        Order::Ascending,
        &mut |key, value| {
            // A damaged row is deleted with its neighbours.
            let keep =
                decode_block(group, key, value).is_ok_and(|block| block.rows[0].index >= index);
            let at = Offset(keys::second(key).unwrap_or(base.0));
            if keep {
                base = at;
                return ControlFlow::Break(());
            }
            base = Offset(at.0.saturating_add(1));
            blocks += 1;
            complete = blocks < blocks_max;
            if complete {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        },
    )?;
    Ok((base, complete))
}
