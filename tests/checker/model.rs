//! A model of a right log, and clients that do at random what clients do.

use proptest::{collection::vec, prelude::*};

use crate::support::checker::{History, Kind, Operation, Outcome, Value, check};

pub(super) const PARTITIONS: i32 = 2;
const CLIENTS: usize = 3;

/// What happens next to a client.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It sends values.
    Send { partition: i32, count: u32 },
    /// The send under way reaches the log, perhaps once more: the log knows it by its session.
    Arrive,
    /// The send under way is refused, if it has not arrived.
    Refuse,
    /// The send under way is acknowledged.
    Answer,
    /// The client gives the send under way up, and crashes.
    GiveUp,
    /// A send that was given up reaches the log after all.
    Land,
    /// It polls.
    Poll { partition: i32, count: usize },
    /// It polls, and the answer is lost.
    LostPoll { partition: i32 },
    /// It goes on elsewhere.
    Assign { partition: i32, per_mille: usize },
    /// It crashes, whatever is under way.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        4 => (partition.clone(), 1..5_u32)
            .prop_map(|(partition, count)| Step::Send { partition, count }),
        3 => Just(Step::Arrive),
        1 => Just(Step::Refuse),
        4 => Just(Step::Answer),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Land),
        5 => (partition.clone(), 0..6_usize)
            .prop_map(|(partition, count)| Step::Poll { partition, count }),
        1 => partition.clone().prop_map(|partition| Step::LostPoll { partition }),
        1 => (partition, 0..1000_usize)
            .prop_map(|(partition, per_mille)| Step::Assign { partition, per_mille }),
        1 => Just(Step::Crash),
    ]
}

/// Operations of a valid history that has at least one place for each fault that can be planted.
pub(super) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    vec((0..CLIENTS, step()), 0..120).prop_map(|steps| {
        let mut model = Model::default();
        for (client, step) in prelude() {
            model.take(client, &step);
        }
        for (client, step) in steps {
            model.take(client, &step);
        }
        model.finish()
    })
}

fn prelude() -> Vec<(usize, Step)> {
    let send = |count| Step::Send {
        partition: 0,
        count,
    };
    vec![
        (0, send(3)),
        (1, send(2)),
        (0, Step::Answer),
        (1, Step::Arrive),
        (1, Step::GiveUp),
        (0, send(2)),
        (0, Step::Answer),
        (2, send(1)),
        (2, Step::Refuse),
    ]
}

/// A send under way.
struct Pending {
    operation: usize,
    partition: usize,
    values: Vec<Value>,
    base: Option<usize>,
}

#[derive(Default)]
struct Client {
    id: u32,
    sent: u32,
    positions: [usize; PARTITIONS as usize],
    pending: Option<Pending>,
}

#[derive(Default)]
struct Model {
    operations: Vec<Operation>,
    moment: u64,
    logs: [Vec<Value>; PARTITIONS as usize],
    clients: [Client; CLIENTS],
    client_ids: u32,
    /// Sends that were given up and may still arrive.
    limbo: Vec<Pending>,
}

impl Model {
    fn take(&mut self, at: usize, step: &Step) {
        if self.clients[at].id == 0 {
            self.renew(at);
        }
        match step {
            Step::Send { partition, count } => self.send(at, *partition, *count),
            Step::Arrive => self.arrive(at),
            Step::Refuse => self.end_send(at, Outcome::Fail),
            Step::Answer => {
                self.arrive(at);
                self.end_send(at, Outcome::Ok);
            }
            Step::GiveUp => {
                self.end_send(at, Outcome::Info);
                self.crash(at);
            }
            Step::Land => {
                if let Some(mut pending) = self.limbo.pop() {
                    self.append(&mut pending);
                }
            }
            Step::Poll { partition, count } => self.poll(at, *partition, *count),
            Step::LostPoll { partition } => {
                let kind = Kind::Poll {
                    partition: *partition,
                    records: Vec::new(),
                };
                let poll = self.invoke(at, kind);
                self.complete(poll, Outcome::Fail);
            }
            Step::Assign {
                partition,
                per_mille,
            } => {
                let index = usize::try_from(*partition).expect("small");
                let position = self.logs[index].len() * per_mille / 1000;
                self.clients[at].positions[index] = position;
                let partition = *partition;
                let assign = self.invoke(at, Kind::Assign { partition });
                self.complete(assign, Outcome::Ok);
            }
            Step::Crash => self.crash(at),
        }
    }

    fn renew(&mut self, at: usize) {
        self.client_ids += 1;
        self.clients[at] = Client {
            id: self.client_ids,
            ..Client::default()
        };
    }

    fn moment(&mut self) -> u64 {
        // There is room for planted ones between.
        self.moment += 10;
        self.moment
    }

    fn invoke(&mut self, at: usize, kind: Kind) -> usize {
        let invoked = self.moment();
        self.operations.push(Operation {
            client: self.clients[at].id,
            invoked,
            completed: None,
            kind,
            outcome: Outcome::Info,
        });
        self.operations.len() - 1
    }

    fn complete(&mut self, operation: usize, outcome: Outcome) {
        let completed = self.moment();
        self.operations[operation].completed = Some(completed);
        self.operations[operation].outcome = outcome;
    }

    fn send(&mut self, at: usize, partition: i32, count: u32) {
        let client = &mut self.clients[at];
        if client.pending.is_some() {
            return;
        }
        let first = client.sent;
        client.sent += count;
        let producer = client.id;
        let values = (first..client.sent).map(|number| Value { producer, number });
        let values: Vec<_> = values.collect();
        let kind = Kind::Send {
            partition,
            values: values.iter().map(|value| (*value, None)).collect(),
        };
        let operation = self.invoke(at, kind);
        self.clients[at].pending = Some(Pending {
            operation,
            partition: usize::try_from(partition).expect("small"),
            values,
            base: None,
        });
    }

    fn arrive(&mut self, at: usize) {
        if let Some(mut pending) = self.clients[at].pending.take() {
            self.append(&mut pending);
            self.clients[at].pending = Some(pending);
        }
    }

    /// A repeat changes nothing.
    fn append(&mut self, pending: &mut Pending) {
        if pending.base.is_none() {
            let log = &mut self.logs[pending.partition];
            pending.base = Some(log.len());
            log.extend(&pending.values);
        }
    }

    fn end_send(&mut self, at: usize, outcome: Outcome) {
        let Some(pending) = self.clients[at].pending.take() else {
            return;
        };
        if outcome == Outcome::Fail && pending.base.is_some() {
            self.clients[at].pending = Some(pending);
            return;
        }
        self.complete(pending.operation, outcome);
        match (outcome, pending.base) {
            (Outcome::Ok, Some(base)) => {
                let kind = &mut self.operations[pending.operation].kind;
                if let Kind::Send { values, .. } = kind {
                    let offsets = i64::try_from(base).expect("small")..;
                    for ((_, offset), at) in values.iter_mut().zip(offsets) {
                        *offset = Some(at);
                    }
                }
            }
            (Outcome::Info, None) => self.limbo.push(pending),
            _ => {}
        }
    }

    fn poll(&mut self, at: usize, partition: i32, count: usize) {
        let index = usize::try_from(partition).expect("small");
        let position = self.clients[at].positions[index];
        let end = (position + count).min(self.logs[index].len());
        self.clients[at].positions[index] = end;
        let offsets = i64::try_from(position).expect("small")..;
        let values = self.logs[index][position..end].iter().copied();
        let kind = Kind::Poll {
            partition,
            records: offsets.zip(values).collect(),
        };
        let poll = self.invoke(at, kind);
        self.complete(poll, Outcome::Ok);
    }

    fn crash(&mut self, at: usize) {
        // The operation stays without an end.
        self.limbo.extend(self.clients[at].pending.take());
        let crash = self.invoke(at, Kind::Crash);
        self.complete(crash, Outcome::Ok);
        self.renew(at);
    }

    /// A last client reads everything.
    fn finish(mut self) -> Vec<Operation> {
        self.renew(0);
        for partition in 0..PARTITIONS {
            let index = usize::try_from(partition).expect("small");
            while self.clients[0].positions[index] < self.logs[index].len() {
                self.poll(0, partition, 5);
            }
            let drain = self.invoke(0, Kind::Drain { partition });
            self.complete(drain, Outcome::Ok);
        }
        self.operations
    }
}

proptest! {
    #[test]
    fn a_right_log_breaks_no_rule(operations in operations()) {
        check(History::new(operations)).assert_valid();
    }
}
