//! What follows from a history before any rule is applied.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    history::{History, Kind, Operation, Outcome, Value},
    log::Log,
    report::Place,
};

/// The send of a value.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    pub(super) operation: usize,
    pub(super) partition: i32,
    /// Offset that the broker told.
    pub(super) offset: Option<i64>,
    /// It certainly happened: it was acknowledged, or something that it sent was read.
    pub(super) committed: bool,
}

/// A reading of a whole partition, after the last fault.
pub(super) struct Drain {
    pub(super) operation: usize,
    pub(super) partition: i32,
    /// When its first poll was invoked.
    pub(super) began: u64,
    pub(super) values: HashSet<Value>,
}

/// A history, and what follows from it.
pub(super) struct Facts<'history> {
    pub(super) history: &'history History,
    pub(super) writers: HashMap<Value, Writer>,
    pub(super) logs: BTreeMap<i32, Log>,
    pub(super) drains: Vec<Drain>,
}

impl<'history> Facts<'history> {
    pub(super) fn of(history: &'history History) -> Self {
        let mut facts = Self {
            history,
            writers: HashMap::new(),
            logs: BTreeMap::new(),
            drains: drains(history),
        };
        facts.note_polls();
        facts.note_sends();
        for log in facts.logs.values_mut() {
            log.finish();
        }
        facts
    }

    pub(super) fn operation(&self, at: usize) -> &Operation {
        &self.history.operations()[at]
    }

    /// The send of a value to a partition.
    pub(super) fn writer(&self, partition: i32, value: Value) -> Option<&Writer> {
        let writer = self.writers.get(&value)?;
        (writer.partition == partition).then_some(writer)
    }

    /// Whether it was known before a moment that a value is committed.
    pub(super) fn is_known(&self, value: Value, writer: &Writer, before: u64) -> bool {
        let read = self.logs.get(&writer.partition);
        let read = read.and_then(|log| log.first_read(value));
        let acknowledged = self.operation(writer.operation).outcome == Outcome::Ok;
        let shown = [acknowledged.then_some(writer.operation), read];
        let mut shown = shown.into_iter().flatten();
        shown.any(|at| self.operation(at).completed.is_some_and(|end| end < before))
    }

    /// Whether a value is there after all: every client that drained its partition has read it, or, where nobody
    /// did so, any client.
    pub(super) fn is_kept(&self, partition: i32, value: Value) -> bool {
        let is_read = || {
            self.logs
                .get(&partition)
                .is_some_and(|log| log.is_read(value))
        };
        let mut drains = self.drains.iter();
        is_read()
            && drains.all(|drain| drain.partition != partition || drain.values.contains(&value))
    }

    /// A value and its send.
    pub(super) fn sent(&self, value: Value, writer: &Writer) -> Place {
        let log = self.logs.get(&writer.partition);
        let seen = || log.and_then(|log| log.offsets_of(value).next());
        Place {
            value,
            offset: writer.offset.or_else(seen),
            operation: writer.operation,
        }
    }

    /// All polls show what is committed, also those that did not succeed. They count in the order in which they came
    /// back, so that the first poll of a value is the earliest.
    fn note_polls(&mut self) {
        let operations = self.history.operations();
        let mut order: Vec<usize> = (0..operations.len()).collect();
        order.sort_by_key(|at| operations[*at].completed.unwrap_or(u64::MAX));
        for at in order {
            let Kind::Poll { partition, records } = &operations[at].kind else {
                continue;
            };
            let is_ok = operations[at].outcome == Outcome::Ok;
            let log = self.logs.entry(*partition).or_default();
            for (offset, value) in records {
                log.note(*offset, *value, at);
                log.note_poll(*value, at, is_ok);
            }
        }
    }

    fn note_sends(&mut self) {
        for (at, operation) in self.history.operations().iter().enumerate() {
            let Kind::Send { partition, values } = &operation.kind else {
                continue;
            };
            let log = self.logs.entry(*partition).or_default();
            let is_read = || values.iter().any(|(value, _)| log.is_read(*value));
            let committed = match operation.outcome {
                Outcome::Ok => true,
                Outcome::Info => is_read(),
                Outcome::Fail => false,
            };
            for (value, offset) in values {
                if let Some(offset) = offset.filter(|_| committed) {
                    log.note(offset, *value, at);
                }
                let writer = Writer {
                    operation: at,
                    partition: *partition,
                    offset: *offset,
                    committed,
                };
                self.writers.insert(*value, writer);
            }
        }
    }
}

fn drains(history: &History) -> Vec<Drain> {
    let operations = history.operations();
    let drainers: HashSet<(u32, i32)> = operations
        .iter()
        .filter_map(|operation| match operation.kind {
            Kind::Drain { partition } => Some((operation.client, partition)),
            _ => None,
        })
        .collect();
    let mut drains = Vec::new();
    // What those clients have read since they began anew, and when that was.
    let mut read: HashMap<(u32, i32), (u64, HashSet<Value>)> = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let Operation {
            client, invoked, ..
        } = *operation;
        match &operation.kind {
            Kind::Crash => read.retain(|(owner, _), _| *owner != client),
            Kind::Assign { partition } => {
                read.remove(&(client, *partition));
            }
            Kind::Poll { partition, records } if operation.outcome == Outcome::Ok => {
                let reader = (client, *partition);
                if drainers.contains(&reader) {
                    let (_, values) = read.entry(reader).or_insert((invoked, HashSet::new()));
                    values.extend(records.iter().map(|(_, value)| *value));
                }
            }
            Kind::Drain { partition } => {
                let read = read.remove(&(client, *partition));
                let (began, values) = read.unwrap_or((invoked, HashSet::new()));
                drains.push(Drain {
                    operation: at,
                    partition: *partition,
                    began,
                    values,
                });
            }
            Kind::Poll { .. } | Kind::Send { .. } => {}
        }
    }
    drains
}
