//! Places in a history where a fault can be planted.

use proptest::sample::Index;

use crate::support::checker::{Kind, Operation, Outcome, Sent, Value};

type Records = Vec<(i64, Value)>;

/// One of the operations for which there is something.
pub(super) fn pick<T>(
    operations: &[Operation],
    index: &Index,
    look: impl Fn(&Operation) -> Option<T>,
) -> (usize, T) {
    let found = operations.iter().enumerate();
    let mut found: Vec<_> = found
        .filter_map(|(at, one)| Some((at, look(one)?)))
        .collect();
    let chosen = index.index(found.len());
    found.swap_remove(chosen)
}

pub(super) fn sent(operation: &Operation) -> Option<(i32, &Vec<Sent>)> {
    match &operation.kind {
        Kind::Send { partition, values } => Some((*partition, values)),
        _ => None,
    }
}

pub(super) fn acknowledged(operation: &Operation) -> Option<(i32, &Vec<Sent>)> {
    sent(operation).filter(|_| operation.outcome == Outcome::Ok)
}

pub(super) fn polled(operation: &Operation) -> Option<(i32, &Records)> {
    match &operation.kind {
        Kind::Poll { partition, records } => Some((*partition, records)),
        _ => None,
    }
}

/// A poll of at least this many records.
pub(super) fn long(length: usize) -> impl Fn(&Operation) -> Option<i32> {
    move |operation| {
        let (partition, records) = polled(operation)?;
        (records.len() >= length).then_some(partition)
    }
}

pub(super) fn records(operation: &mut Operation) -> &mut Records {
    match &mut operation.kind {
        Kind::Poll { records, .. } => records,
        other => panic!("no poll: {other:?}"),
    }
}

pub(super) fn values(operation: &mut Operation) -> &mut Vec<Sent> {
    match &mut operation.kind {
        Kind::Send { values, .. } => values,
        other => panic!("no send: {other:?}"),
    }
}

pub(super) fn all_records(operations: &mut [Operation]) -> impl Iterator<Item = &mut Records> {
    operations
        .iter_mut()
        .filter_map(|operation| match &mut operation.kind {
            Kind::Poll { records, .. } => Some(records),
            _ => None,
        })
}

/// A moment behind all others.
pub(super) fn behind(operations: &[Operation]) -> u64 {
    let moments = operations
        .iter()
        .flat_map(|one| [Some(one.invoked), one.completed]);
    moments.flatten().max().expect("there are some") + 1
}
