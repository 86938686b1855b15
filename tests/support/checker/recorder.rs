//! Writes down what clients do, while they do it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::history::{History, Kind, Operation, Outcome, Value};

/// A recording of many clients; clones write into the same one.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    tape: Mutex<Tape>,
    clients: AtomicU32,
    acknowledged: AtomicU64,
    read: AtomicU64,
}

#[derive(Default)]
struct Tape {
    operations: Vec<Operation>,
    last_moment: u64,
}

impl Tape {
    /// Now, or just after the last moment if the clock is too coarse to tell them apart.
    fn moment(&mut self, began: Instant) -> u64 {
        let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_moment = now.max(self.last_moment + 1);
        self.last_moment
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                began: Instant::now(),
                tape: Mutex::default(),
                clients: AtomicU32::new(0),
                acknowledged: AtomicU64::new(0),
                read: AtomicU64::new(0),
            }),
        }
    }
}

impl Recorder {
    /// A new client.
    pub(crate) fn client(&self) -> ClientLog {
        ClientLog {
            recorder: self.clone(),
            client: self.shared.clients.fetch_add(1, Ordering::Relaxed),
            values: 0,
        }
    }

    /// How many values have been acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How many records polls have returned so far.
    pub(crate) fn read(&self) -> u64 {
        self.shared.read.load(Ordering::Relaxed)
    }

    /// Now, as the recording counts.
    pub(crate) fn moment(&self) -> u64 {
        self.tape().moment(self.shared.began)
    }

    /// All that was recorded; the outcome of what still runs is unknown.
    pub(crate) fn history(&self) -> History {
        History::new(self.tape().operations.clone())
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.shared
            .tape
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn invoke(&self, client: u32, kind: Kind) -> Running {
        let mut tape = self.tape();
        let invoked = tape.moment(self.shared.began);
        tape.operations.push(Operation {
            client,
            invoked,
            completed: None,
            kind,
            outcome: Outcome::Info,
        });
        Running {
            recorder: self.clone(),
            at: tape.operations.len() - 1,
        }
    }
}

/// Writes down what one client does.
pub(crate) struct ClientLog {
    recorder: Recorder,
    client: u32,
    values: u32,
}

impl ClientLog {
    pub(crate) fn client(&self) -> u32 {
        self.client
    }

    /// Values that have never been sent.
    pub(crate) fn values(&mut self, count: u32) -> Vec<Value> {
        let first = self.values;
        self.values += count;
        let producer = self.client;
        let value = |number| Value { producer, number };
        (first..self.values).map(value).collect()
    }

    /// The client sends values.
    pub(crate) fn send(&self, partition: i32, values: &[Value]) -> RunningSend {
        let values = values.iter().map(|value| (*value, None)).collect();
        let kind = Kind::Send { partition, values };
        RunningSend(self.recorder.invoke(self.client, kind))
    }

    /// The client polls.
    pub(crate) fn poll(&self, partition: i32) -> RunningPoll {
        let kind = Kind::Poll {
            partition,
            records: Vec::new(),
        };
        RunningPoll(self.recorder.invoke(self.client, kind))
    }

    /// The client is about to go on elsewhere in a partition.
    pub(crate) fn assign(&self, partition: i32) {
        let running = self
            .recorder
            .invoke(self.client, Kind::Assign { partition });
        running.complete(Outcome::Ok, |_| {});
    }

    /// The client has read a partition from its start to its end, and no fault comes any more.
    pub(crate) fn drained(&self, partition: i32) {
        let running = self.recorder.invoke(self.client, Kind::Drain { partition });
        running.complete(Outcome::Ok, |_| {});
    }

    /// The client loses its memory; another takes its place.
    pub(crate) fn crash(self) -> Self {
        let running = self.recorder.invoke(self.client, Kind::Crash);
        running.complete(Outcome::Ok, |_| {});
        self.recorder.client()
    }
}

/// An operation under way. If it is dropped, as with its task, its outcome stays unknown.
struct Running {
    recorder: Recorder,
    at: usize,
}

impl Running {
    fn complete(self, outcome: Outcome, change: impl FnOnce(&mut Kind)) {
        let mut tape = self.recorder.tape();
        let completed = tape.moment(self.recorder.shared.began);
        let operation = &mut tape.operations[self.at];
        operation.completed = Some(completed);
        operation.outcome = outcome;
        change(&mut operation.kind);
    }
}

/// A send under way.
pub(crate) struct RunningSend(Running);

impl RunningSend {
    /// It was acknowledged, with the offset of its first value if that is known.
    pub(crate) fn ok(self, base_offset: Option<i64>) {
        let shared = self.0.recorder.shared.clone();
        self.0.complete(Outcome::Ok, |kind| {
            let Kind::Send { values, .. } = kind else {
                return;
            };
            for ((_, offset), at) in values.iter_mut().zip(0..) {
                *offset = base_offset.map(|base| base + at);
            }
            let acknowledged = u64::try_from(values.len()).unwrap_or(u64::MAX);
            shared
                .acknowledged
                .fetch_add(acknowledged, Ordering::Relaxed);
        });
    }

    /// It was refused before it had any effect.
    pub(crate) fn fail(self) {
        self.0.complete(Outcome::Fail, |_| {});
    }

    /// The client has given up waiting.
    pub(crate) fn info(self) {
        self.0.complete(Outcome::Info, |_| {});
    }
}

/// A poll under way.
pub(crate) struct RunningPoll(Running);

impl RunningPoll {
    /// It returned records, perhaps none.
    pub(crate) fn ok(self, read: Vec<(i64, Value)>) {
        let shared = self.0.recorder.shared.clone();
        shared.read.fetch_add(
            u64::try_from(read.len()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        self.0.complete(Outcome::Ok, |kind| {
            if let Kind::Poll { records, .. } = kind {
                *records = read;
            }
        });
    }

    /// It returned nothing.
    pub(crate) fn fail(self) {
        self.0.complete(Outcome::Fail, |_| {});
    }
}
