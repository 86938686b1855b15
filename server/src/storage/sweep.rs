//! Deleting what was purged or deleted, in steps of bounded size, so that no commit waits for a huge one.
//!
//! The decision is one row of the pending table, durable with the purge itself; from then on the rows are invisible.
//! The writer takes a step with every transaction until nothing is left, and goes on after a restart.

use std::ops::ControlFlow;

use super::Error;
use super::backend::{Order, Read, Write};
use super::codec::Fixed;
use super::keys::{self, Pending, Table};
use super::reader;
use crate::types::{GroupId, LogIndex, Offset};

/// Most rows of one kind in a step.
const ROWS_MAX: usize = 2048;
/// What a row costs a step beside its bytes.
const ROW_COST: usize = 256;

/// One bounded deletion.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) group: GroupId,
    /// Entries below this index go.
    entries_below: LogIndex,
    /// Offset rows that begin below this offset go.
    offsets_below: Offset,
    /// State rows below this key go.
    state_below: Option<Vec<u8>>,
    /// Nothing is left after it.
    pub(super) last: bool,
}

/// Deletions that were decided before a restart.
pub(super) fn unfinished(view: &dyn Read) -> Result<Vec<(GroupId, Pending)>, Error> {
    let mut found = Vec::new();
    let high = keys::group_end(GroupId(u64::MAX));
    view.scan(
        Table::Pending,
        &[],
        &high,
        Order::Ascending,
        &mut |key, value| {
            // A damaged row keeps its leftovers invisible; the group's own reads report it.
            if let (Some(group), Some(pending)) = (keys::group_of(key), Pending::decode(value)) {
                found.push((group, pending));
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(found)
}

/// Plans the next step, of about `bytes_max`.
pub(super) fn plan(
    view: &dyn Read,
    group: GroupId,
    pending: Pending,
    bytes_max: usize,
) -> Result<Step, Error> {
    let end = match pending {
        Pending::Delete => LogIndex(u64::MAX),
        Pending::Purge => {
            let purged = reader::bounds(view, group)?.purged;
            LogIndex(purged.map_or(0, |purged| purged.index.0 + 1))
        }
    };
    let (entries_below, entries_done) = entries(view, group, end, bytes_max)?;
    let (offsets_below, offsets_done) =
        reader::first_base_at(view, group, entries_below, ROWS_MAX)?;
    let (state_below, state_done) = match pending {
        Pending::Delete => state(view, group, bytes_max)?,
        Pending::Purge => (None, true),
    };
    Ok(Step {
        group,
        entries_below,
        offsets_below,
        state_below,
        last: entries_done && offsets_done && state_done,
    })
}

/// Carries a step out.
pub(super) fn run(write: &mut dyn Write, step: &Step) -> Result<(), Error> {
    let group = step.group;
    let low = keys::group(group);
    let high = keys::head(group, step.entries_below);
    write.delete_range(Table::Heads, &low, &high)?;
    write.delete_range(Table::Chunks, &low, &high)?;
    write.delete_range(
        Table::Offsets,
        &low,
        &keys::offset(group, step.offsets_below),
    )?;
    if let Some(key) = &step.state_below {
        write.delete_range(Table::State, &low, key)?;
    }
    if step.last {
        write.delete(Table::Pending, &low)?;
    }
    Ok(())
}

/// The index below which about `bytes_max` of entries lie, at most `end`, and whether none are left behind it.
fn entries(
    view: &dyn Read,
    group: GroupId,
    end: LogIndex,
    bytes_max: usize,
) -> Result<(LogIndex, bool), Error> {
    let (low, high) = (keys::group(group), keys::head(group, end));
    let mut below = end;
    let mut bytes = 0;
    let mut rows = 0;
    view.scan(
        Table::Heads,
        &low,
        &high,
        Order::Ascending,
        &mut |key, value| {
            if rows > 0 && (bytes > bytes_max || rows >= ROWS_MAX) {
                below = LogIndex(keys::second(key).unwrap_or(end.0));
                return ControlFlow::Break(());
            }
            rows += 1;
            bytes += ROW_COST + Fixed::decode(value).map_or(value.len(), Fixed::total_bytes);
            ControlFlow::Continue(())
        },
    )?;
    Ok((below, below == end))
}

/// The key below which about `bytes_max` of state rows lie, and whether none are left behind it.
fn state(
    view: &dyn Read,
    group: GroupId,
    bytes_max: usize,
) -> Result<(Option<Vec<u8>>, bool), Error> {
    let (low, high) = (keys::group(group), keys::group_end(group));
    let mut below = None;
    let mut bytes = 0;
    let mut rows = 0;
    view.scan(
        Table::State,
        &low,
        &high,
        Order::Ascending,
        &mut |key, value| {
            if rows > 0 && (bytes > bytes_max || rows >= ROWS_MAX) {
                below = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows += 1;
            bytes += ROW_COST + value.len();
            ControlFlow::Continue(())
        },
    )?;
    let done = below.is_none();
    Ok((Some(below.unwrap_or_else(|| high.to_vec())), done))
}
