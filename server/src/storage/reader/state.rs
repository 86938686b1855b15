//! The rows beside the log: bounds, vote, snapshot, applied state and the state machine's rows.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{corrupt, corrupt_row, head};
use crate::storage::Error;
use crate::storage::backend::{self, Order, Read};
use crate::storage::keys::{self, Meta, Pending, Table};
use crate::storage::rows::{self, StateDigest};
use crate::storage::types::{EntryId, GroupState};
use crate::types::{GroupId, LogIndex};

/// The part of a log that is there.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::storage) struct Bounds {
    pub(in crate::storage) purged: Option<EntryId>,
    pub(in crate::storage) last: Option<EntryId>,
}

impl Bounds {
    /// Where the log ends (exclusive).
    pub(in crate::storage) fn end(self) -> LogIndex {
        LogIndex(self.last.map_or(0, |last| last.index.0 + 1))
    }

    pub(super) fn holds(self, index: LogIndex) -> bool {
        self.purged.is_none_or(|purged| purged.index < index) && index < self.end()
    }
}

/// What is decided about the group and not finished.
pub(in crate::storage) fn pending(
    view: &(impl Read + ?Sized),
    group: GroupId,
) -> Result<Option<Pending>, Error> {
    let value = backend::get(view, Table::Pending, &keys::group(group))?;
    value
        .map(|value| {
            Pending::decode(&value).ok_or(Error::CorruptRow {
                group,
                row: "the pending deletion",
            })
        })
        .transpose()
}

/// A verified meta row.
pub(in crate::storage) fn meta(
    view: &(impl Read + ?Sized),
    group: GroupId,
    kind: Meta,
) -> Result<Option<Bytes>, Error> {
    let key = keys::meta(group, kind);
    let mut found = None;
    view.get(Table::Meta, &key, &mut |value| {
        found = Some(rows::unseal(Table::Meta, &key, value).map(Bytes::copy_from_slice));
    })?;
    found
        .map(|body| body.ok_or_else(|| corrupt_row(group, kind.name())))
        .transpose()
}

fn meta_id(
    view: &(impl Read + ?Sized),
    group: GroupId,
    kind: Meta,
) -> Result<Option<EntryId>, Error> {
    meta(view, group, kind)?
        .map(|body| rows::decode_id(&body).ok_or_else(|| corrupt_row(group, kind.name())))
        .transpose()
}

/// Where the log begins and ends. A group under deletion has none.
pub(in crate::storage) fn bounds(
    view: &(impl Read + ?Sized),
    group: GroupId,
) -> Result<Bounds, Error> {
    if pending(view, group)? == Some(Pending::Delete) {
        return Ok(Bounds::default());
    }
    Ok(Bounds {
        purged: meta_id(view, group, Meta::Purged)?,
        last: meta_id(view, group, Meta::Last)?,
    })
}

/// Everything that a group needs to start.
pub(in crate::storage) fn state(view: &dyn Read, group: GroupId) -> Result<GroupState, Error> {
    if pending(view, group)? == Some(Pending::Delete) {
        return Ok(GroupState {
            vote: meta(view, group, Meta::Vote)?,
            ..GroupState::default()
        });
    }
    let bounds = bounds(view, group)?;
    if let Some(last) = bounds.last.filter(|last| bounds.holds(last.index)) {
        let found = head(view, group, last.index)?;
        if found.map(|head| head.id) != Some(last) {
            return Err(corrupt(group, last.index));
        }
    }
    Ok(GroupState {
        vote: meta(view, group, Meta::Vote)?,
        last: bounds.last,
        purged: bounds.purged,
        snapshot: meta(view, group, Meta::Snapshot)?,
        applied: meta(view, group, Meta::Applied)?,
        state_rows: state_rows(view, group)?,
    })
}

/// Number and checksum of the state rows that there have to be.
pub(in crate::storage) fn state_digest(
    view: &(impl Read + ?Sized),
    group: GroupId,
) -> Result<StateDigest, Error> {
    let Some(body) = meta(view, group, Meta::StateDigest)? else {
        return Ok(StateDigest::default());
    };
    StateDigest::decode(&body).ok_or_else(|| corrupt_row(group, Meta::StateDigest.name()))
}

fn state_rows(view: &dyn Read, group: GroupId) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut found = Vec::new();
    let mut digest = StateDigest::default();
    let mut intact = true;
    let (from, to) = (keys::group(group), keys::group_end(group));
    view.scan(
        Table::State,
        &from,
        &to,
        Order::Ascending,
        &mut |key, value| match (
            key.get(from.len()..),
            rows::unseal(Table::State, key, value),
        ) {
            (Some(name), Some(body)) => {
                digest.add(value);
                found.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(body)));
                ControlFlow::Continue(())
            }
            _ => {
                intact = false;
                ControlFlow::Break(())
            }
        },
    )?;
    if !intact || digest != state_digest(view, group)? {
        return Err(corrupt_row(group, "a row of the state machine"));
    }
    Ok(found)
}

/// Groups that have a row, without reading their logs.
pub(in crate::storage) fn groups(view: &dyn Read) -> Result<Vec<GroupId>, Error> {
    let mut groups = Vec::new();
    let mut from = Some(GroupId(0));
    while let Some(low) = from.take() {
        let mut found = None;
        let (low, high) = (keys::group(low), keys::group_end(GroupId(u64::MAX)));
        view.scan(Table::Meta, &low, &high, Order::Ascending, &mut |key, _| {
            found = keys::group_of(key);
            ControlFlow::Break(())
        })?;
        if let Some(group) = found {
            if pending(view, group)? != Some(Pending::Delete) {
                groups.push(group);
            }
            from = group.0.checked_add(1).map(GroupId);
        }
    }
    Ok(groups)
}
