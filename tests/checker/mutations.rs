//! A fault anywhere in a valid history is found.
#![allow(
    clippy::ptr_arg,
    reason = "all plants have one type, and some add operations"
)]

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};

use super::{
    model::operations,
    places::{acknowledged, all_records, behind, long, pick, polled, records, values},
};
use crate::support::checker::{History, Kind, Operation, Outcome, Rule, Value, check};

/// Plants a fault somewhere, and says which rules it may break: one of them must be.
type Plant = fn(&mut Vec<Operation>, &Index) -> &'static [Rule];

const PLANTS: [(&str, Plant); 15] = [
    ("an acknowledged value is lost", lose),
    ("a value that was read is not there at the end", vanish),
    ("a poll leaves a record out", leave_out),
    ("a poll has records in another order", disorder),
    ("a poll has values at each other's offsets", exchange),
    ("a poll is repeated", repeat_poll),
    ("a value appears again", double),
    ("an acknowledgement has another offset", misplace),
    ("a send that was read has failed", fail),
    ("a value turns into another one", invent),
    ("a value is read before it is sent", foresee),
    ("two sends change places", overtake),
    ("the values of a send change places", reverse),
    ("another send stands within a send", split),
    ("an offset is left out", leap),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_planted_fault_is_found(valid in operations(), index in any::<Index>()) {
        for (fault, plant) in PLANTS {
            let mut operations = valid.clone();
            let rules = plant(&mut operations, &index);
            let report = check(History::new(operations));
            let found = report.rules();
            let is_found = rules.iter().any(|rule| found.contains(rule));
            prop_assert!(is_found, "{fault}: {rules:?} in {report}");
        }
    }
}

fn lose(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (_, value) = pick(operations, index, |one| {
        Some(index.get(acknowledged(one)?.1).0)
    });
    for records in all_records(operations) {
        records.retain(|(_, read)| *read != value);
    }
    &[Rule::LostWrite, Rule::Unseen]
}

fn vanish(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let last = operations.last().expect("it drains").client;
    let (_, value) = pick(operations, index, |one| {
        Some(index.get(acknowledged(one)?.1).0)
    });
    let polls = operations.iter_mut().filter(|one| one.client == last);
    for poll in polls.filter(|one| polled(one).is_some()) {
        records(poll).retain(|(_, read)| *read != value);
    }
    &[Rule::Vanished, Rule::LostWrite, Rule::Unseen]
}

fn leave_out(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, long(3));
    records(&mut operations[at]).remove(1);
    // Where nobody else knows of that record, its offset is the one that is left out.
    &[Rule::InternalPollSkip, Rule::OffsetGap]
}

fn disorder(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, long(2));
    let records = records(&mut operations[at]);
    let first = index.index(records.len() - 1);
    records.swap(first, first + 1);
    &[Rule::InternalNonmonotonicPoll]
}

fn exchange(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    // Without an acknowledgement the other order might be the right one.
    let told: HashSet<Value> = operations
        .iter()
        .filter_map(acknowledged)
        .flat_map(|(_, values)| values.iter().map(|(value, _)| *value))
        .collect();
    let (at, ()) = pick(operations, index, |one| {
        let records = polled(one)?.1;
        let is_told = records.len() > 1 && told.contains(&records[0].1);
        is_told.then_some(())
    });
    let records = records(&mut operations[at]);
    let (first, second) = (records[0].1, records[1].1);
    (records[0].1, records[1].1) = (second, first);
    &[Rule::InconsistentOffsets]
}

fn repeat_poll(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, long(1));
    let mut again = operations[at].clone();
    again.invoked = again.completed.expect("it came back") + 1;
    again.completed = Some(again.invoked + 1);
    operations.push(again);
    &[Rule::NonmonotonicPoll]
}

fn double(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (_, (partition, value)) = pick(operations, index, |one| {
        let (partition, values) = acknowledged(one)?;
        Some((partition, index.get(values).0))
    });
    let ends = operations.iter().filter_map(polled);
    let ends = ends.filter(|(of, _)| *of == partition);
    let end = ends.flat_map(|(_, records)| records).map(|record| record.0);
    let end = end.max().expect("it was read");
    let invoked = behind(operations);
    operations.push(Operation {
        client: u32::MAX,
        invoked,
        completed: Some(invoked + 1),
        kind: Kind::Poll {
            partition,
            records: vec![(end + 1, value)],
        },
        outcome: Outcome::Ok,
    });
    &[Rule::Duplicate]
}

fn misplace(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, |one| acknowledged(one).map(drop));
    for (_, offset) in values(&mut operations[at]) {
        *offset = offset.map(|offset| offset + 1);
    }
    &[Rule::Duplicate]
}

fn fail(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, |one| acknowledged(one).map(drop));
    operations[at].outcome = Outcome::Fail;
    &[Rule::AbortedRead]
}

fn invent(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (_, value) = pick(operations, index, |one| {
        let records = polled(one)?.1;
        (!records.is_empty()).then(|| index.get(records).1)
    });
    for records in all_records(operations) {
        for (_, read) in records.iter_mut().filter(|(_, read)| *read == value) {
            *read = Value::FOREIGN;
        }
    }
    &[Rule::PrecommittedRead]
}

fn foresee(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, |one| acknowledged(one).map(drop));
    operations[at].invoked = behind(operations);
    operations[at].completed = None;
    operations[at].outcome = Outcome::Info;
    &[Rule::PrecommittedRead]
}

fn overtake(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let of = |one: &Operation| acknowledged(one).map(|(partition, _)| (one.client, partition));
    let twin = |one: &Operation| {
        let later = |other: &&Operation| other.invoked > one.invoked && of(other) == of(one);
        of(one)?;
        operations.iter().position(|other| later(&other))
    };
    let (first, second) = pick(operations, index, twin);
    let kind = operations[first].kind.clone();
    operations[first].kind = std::mem::replace(&mut operations[second].kind, kind);
    &[Rule::NonmonotonicSend]
}

fn reverse(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (at, _) = pick(operations, index, |one| {
        (acknowledged(one)?.1.len() > 1).then_some(())
    });
    values(&mut operations[at]).reverse();
    &[Rule::InternalNonmonotonicSend]
}

fn split(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let place =
        |one: &Operation| acknowledged(one).map(|(partition, values)| (partition, values[0].1));
    let (first, second) = pick(operations, index, |one| {
        let (partition, offset) = place(one)?;
        let is_behind = |other: &Operation| {
            place(other).is_some_and(|(of, other)| of == partition && other > offset)
        };
        let is_long = acknowledged(one)?.1.len() > 1;
        operations.iter().position(is_behind).filter(|_| is_long)
    });
    let other = values(&mut operations[second]).pop().expect("it has one");
    let moved = values(&mut operations[first]).pop().expect("it has two");
    values(&mut operations[second]).push(moved);
    values(&mut operations[first]).push(other);
    &[Rule::SplitBatch]
}

fn leap(operations: &mut Vec<Operation>, index: &Index) -> &'static [Rule] {
    let (_, (partition, from)) = pick(operations, index, |one| {
        let (partition, records) = polled(one)?;
        let (offset, _) = records.last()?;
        (*offset > 0).then_some((partition, *offset))
    });
    for operation in operations {
        match &mut operation.kind {
            Kind::Send {
                partition: of,
                values,
            } if *of == partition => {
                let offsets = values.iter_mut().filter_map(|(_, offset)| offset.as_mut());
                offsets.filter(|at| **at >= from).for_each(|at| *at += 1);
            }
            Kind::Poll {
                partition: of,
                records,
            } if *of == partition => {
                let offsets = records.iter_mut().map(|(offset, _)| offset);
                offsets.filter(|at| **at >= from).for_each(|at| *at += 1);
            }
            _ => {}
        }
    }
    &[Rule::OffsetGap]
}
