//! Histories by hand: one partition, operations one after the other.

use crate::support::checker::{History, Kind, Operation, Outcome, Report, Value, check};

/// Values are told apart by their numbers here.
pub(super) fn value(number: u32) -> Value {
    Value {
        producer: 7,
        number,
    }
}

/// A history in the making.
#[derive(Default)]
pub(super) struct Script {
    operations: Vec<Operation>,
}

impl Script {
    pub(super) fn operation(mut self, client: u32, kind: Kind, outcome: Outcome) -> Self {
        let invoked = 2 * u64::try_from(self.operations.len()).expect("few");
        self.operations.push(Operation {
            client,
            invoked,
            completed: Some(invoked + 1),
            kind,
            outcome,
        });
        self
    }

    /// A send of numbers, with the offsets that the broker told.
    pub(super) fn send(self, client: u32, values: &[(u32, Option<i64>)], outcome: Outcome) -> Self {
        let values = values.iter().map(|(number, at)| (value(*number), *at));
        let kind = Kind::Send {
            partition: 0,
            values: values.collect(),
        };
        self.operation(client, kind, outcome)
    }

    /// An acknowledged send.
    pub(super) fn sent(self, client: u32, base_offset: i64, numbers: &[u32]) -> Self {
        let values: Vec<_> = numbers
            .iter()
            .zip(base_offset..)
            .map(|(number, offset)| (*number, Some(offset)))
            .collect();
        self.send(client, &values, Outcome::Ok)
    }

    /// A poll that returned numbers at offsets.
    pub(super) fn poll(self, client: u32, records: &[(i64, u32)]) -> Self {
        self.poll_that(client, records, Outcome::Ok)
    }

    pub(super) fn poll_that(self, client: u32, records: &[(i64, u32)], outcome: Outcome) -> Self {
        let records = records
            .iter()
            .map(|(offset, number)| (*offset, value(*number)));
        let kind = Kind::Poll {
            partition: 0,
            records: records.collect(),
        };
        self.operation(client, kind, outcome)
    }

    pub(super) fn assign(self, client: u32) -> Self {
        self.operation(client, Kind::Assign { partition: 0 }, Outcome::Ok)
    }

    pub(super) fn drained(self, client: u32) -> Self {
        self.operation(client, Kind::Drain { partition: 0 }, Outcome::Ok)
    }

    /// One that reads everything, after the others.
    pub(super) fn drain(self, client: u32, records: &[(i64, u32)]) -> Self {
        self.poll(client, records).drained(client)
    }

    pub(super) fn crash(self, client: u32) -> Self {
        self.operation(client, Kind::Crash, Outcome::Ok)
    }

    pub(super) fn check(self) -> Report {
        check(History::new(self.operations))
    }
}
