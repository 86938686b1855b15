//! Hands batches on to the nodes that lead their partitions.
//!
//! A partition's batches wait in one queue, and one request of them is under way at a time: so they arrive in order, and
//! while a leader is looked for none overtakes another. A queue exists only while it holds something. When leadership
//! comes to this node, what waits goes to the group here.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kelda_proto::{
    internal::v1::{ForwardRequest, ForwardResponse, forward_response::outcome::Outcome},
    v1::{self, ErrorReason},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Broker, Error,
    accumulator::{Failure, Pending, Placed},
    route::{LOOK_AGAIN, Place, ROUTE_TIMEOUT, is_passing, not_leader},
};
use crate::{
    consensus::ProposeError,
    peers::CallError,
    types::{NodeId, Offset},
};

/// A request is closed when it has this many bytes.
const REQUEST_BYTES: usize = 4 << 20;
/// Most batches of a request.
const REQUEST_BATCHES_MAX: usize = 4096;

type Key = (String, u32);

/// The queues of all partitions.
#[derive(Default)]
pub(super) struct Forwarding(Mutex<HashMap<Key, VecDeque<Waiting>>>);

struct Waiting {
    pending: Pending,
    deadline: Instant,
}

impl Forwarding {
    fn queues(&self) -> MutexGuard<'_, HashMap<Key, VecDeque<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether batches of a partition wait to be handed on: then later ones must not go another way.
    pub(super) fn is_active(&self, topic: &str, number: u32) -> bool {
        let queues = self.queues();
        !queues.is_empty() && queues.contains_key(&(topic.to_owned(), number))
    }
}

impl Broker {
    /// Queues a batch behind those before it. The queue is bounded by the permits that its batches hold.
    pub(super) fn forward(&self, topic: &str, number: u32, pending: Pending) {
        let key = (topic.to_owned(), number);
        let waiting = Waiting {
            pending,
            deadline: Instant::now() + ROUTE_TIMEOUT,
        };
        let mut queues = self.shared.forwarding.queues();
        if let Some(queue) = queues.get_mut(&key) {
            queue.push_back(waiting);
            return;
        }
        queues.insert(key.clone(), VecDeque::from([waiting]));
        drop(queues);
        let broker = self.clone();
        self.shared
            .runtime
            .spawn(async move { broker.hand_on(key).await });
    }

    async fn hand_on(self, key: Key) {
        let number = i32::try_from(key.1).unwrap_or(i32::MAX);
        // What was taken from the queue and is to be tried again, before the rest of it.
        let mut batches: VecDeque<Waiting> = VecDeque::new();
        loop {
            if batches.is_empty() {
                batches = match self.shared.forwarding.take(&key) {
                    Some(batches) => batches,
                    None => return,
                };
            }
            give_up_late_ones(&mut batches);
            match self.place_of(&key.0, number).await {
                Err(error) => {
                    let failure = Failure::Broker(Box::new(error));
                    batches.drain(..).for_each(|it| it.fail(failure.clone()));
                }
                Ok(Place::Here(partition)) => {
                    // Nothing was waited for since the lead was confirmed.
                    let term = partition.group.group().term();
                    let here = batches.drain(..);
                    here.for_each(|it| partition.accumulator.submit(it.pending, term));
                }
                Ok(Place::There(node)) if !batches.is_empty() => {
                    self.send(&key, node, &mut batches).await;
                }
                Ok(_) => {}
            }
            if !batches.is_empty() {
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Sends what it can to `node`; what is to be tried again stays in `batches`.
    async fn send(&self, key: &Key, node: NodeId, batches: &mut VecDeque<Waiting>) {
        let number = i32::try_from(key.1).unwrap_or(i32::MAX);
        let request = ForwardRequest {
            appends: batches.iter().map(|it| append(key, &it.pending)).collect(),
        };
        let deadline = batches.iter().map(|it| it.deadline).max();
        let deadline = deadline.unwrap_or_else(Instant::now);
        let answer = match self.peer(node) {
            // Either may be dropped: what becomes of the request is not known then, as after any lost answer.
            Ok(mut client) => tokio::select! {
                answer = timeout_at(deadline, client.forward(request)) => match answer {
                    Ok(answer) => answer.map_err(|status| CallError::from(&status)),
                    Err(_) => Err(CallError::Lost("no answer in time".to_owned())),
                },
                // One that is frozen or cut off closes no connection.
                () = self.succeeded(&key.0, number, node) => {
                    Err(CallError::Lost("another node leads by now".to_owned()))
                }
            },
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => {
                let leader = settle(batches, answer.into_inner());
                if let Some(leader) = leader {
                    self.not_led_by(&key.0, number, node, leader);
                }
            }
            Err(CallError::NotSent) => self.not_led_by(&key.0, number, node, None),
            Err(CallError::Lost(detail)) => {
                tracing::debug!(%node, topic = key.0, partition = key.1, detail, "leader does not answer");
                self.not_led_by(&key.0, number, node, None);
                // Nobody knows what became of them. A session makes a repeat harmless; without one it is the client's
                // to decide.
                let lost = |it: &Waiting| it.pending.session.is_none();
                let (gone, kept): (Vec<_>, Vec<_>) = batches.drain(..).partition(lost);
                let failure = Failure::Propose(ProposeError::Indefinite);
                gone.into_iter().for_each(|it| it.fail(failure.clone()));
                batches.extend(kept);
            }
        }
    }
}

impl Forwarding {
    /// Takes a request's worth from a queue; removes it if it is empty.
    fn take(&self, key: &Key) -> Option<VecDeque<Waiting>> {
        let mut queues = self.queues();
        let queue = queues.get_mut(key)?;
        if queue.is_empty() {
            queues.remove(key);
            return None;
        }
        let mut bytes = 0;
        let fits = queue.iter().take(REQUEST_BATCHES_MAX).take_while(|it| {
            let fits = bytes < REQUEST_BYTES;
            bytes += it.pending.batch.records.len();
            fits
        });
        let count = fits.count();
        Some(queue.drain(..count).collect())
    }
}

impl Waiting {
    fn answer(self, result: Result<Placed, Failure>) {
        // Whoever waits may have gone.
        let _ = self.pending.answer.send(result);
    }

    fn fail(self, failure: Failure) {
        self.answer(Err(failure));
    }
}

fn give_up_late_ones(batches: &mut VecDeque<Waiting>) {
    let now = Instant::now();
    let (late, kept): (Vec<_>, Vec<_>) = batches.drain(..).partition(|it| it.deadline <= now);
    let failure = Failure::Propose(ProposeError::Indefinite);
    late.into_iter().for_each(|it| it.fail(failure.clone()));
    batches.extend(kept);
}

/// What becomes of a batch that was sent.
enum Verdict {
    /// It is answered.
    Done(Result<Placed, Failure>),
    /// It was not taken, for this reason, and may be tried again.
    Again(v1::Error),
}

/// Answers what has an outcome. Batches that the node did not take because it does not lead stay, in order; then the
/// leader that it names, if any, is returned.
fn settle(batches: &mut VecDeque<Waiting>, answer: ForwardResponse) -> Option<Option<NodeId>> {
    let mut leader = None;
    let mut again = Vec::new();
    let mut outcomes = answer.outcomes.into_iter();
    let mut judged = Vec::with_capacity(batches.len());
    for waiting in batches.drain(..) {
        let session = waiting.pending.session.as_ref().map(|it| it.id.clone());
        let outcome = outcomes.next().and_then(|it| it.outcome);
        let verdict = judge(outcome, session.as_ref(), &again);
        if let Verdict::Again(error) = &verdict {
            leader = not_leader(error).or(leader);
            again.extend(session);
        }
        judged.push((waiting, verdict));
    }
    // Sequences keep the order of a session. Without one, a batch that was refused must not end up behind a later one:
    // unless all of those were refused too, it is the client's to decide whether it is still wanted.
    let mut overtaken = false;
    for (waiting, verdict) in judged.into_iter().rev() {
        let in_order = waiting.pending.session.is_some();
        match verdict {
            Verdict::Again(_) if in_order || !overtaken => batches.push_front(waiting),
            Verdict::Again(error) => waiting.fail(remote(error)),
            Verdict::Done(result) => {
                overtaken |= !in_order;
                waiting.answer(result);
            }
        }
    }
    leader
}

/// `again` are the sessions of the batches in front of this one that are tried again.
fn judge(outcome: Option<Outcome>, session: Option<&String>, again: &[String]) -> Verdict {
    let unknown = Verdict::Done(Err(Failure::Propose(ProposeError::Indefinite)));
    match outcome {
        Some(Outcome::Produced(produced)) => match produced.partitions.first() {
            Some(ack) => Verdict::Done(Ok(placed(ack))),
            None => unknown,
        },
        Some(Outcome::Error(error)) => {
            // What is missing may be in front of it.
            let gap = error.reason() == ErrorReason::SequenceOutOfOrder;
            let goes_along = gap && session.is_some_and(|id| again.contains(id));
            // With a session it may be repeated, whether it was taken or not.
            let repeats = session.is_some() && is_passing(&error);
            if not_leader(&error).is_some() || goes_along || repeats {
                Verdict::Again(error)
            } else {
                Verdict::Done(Err(remote(error)))
            }
        }
        None => unknown,
    }
}

fn remote(error: v1::Error) -> Failure {
    Failure::Broker(Box::new(Error::Remote(Box::new(error))))
}

fn placed(ack: &v1::PartitionAck) -> Placed {
    Placed {
        base_offset: Offset(u64::try_from(ack.base_offset).unwrap_or_default()),
        append_time_ms: ack.append_time_ms,
        duplicate: ack.duplicate,
    }
}

fn append((topic, number): &Key, pending: &Pending) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.clone(),
        partition: Some(i32::try_from(*number).unwrap_or(i32::MAX)),
        records: Vec::new(),
        batch: Some(v1::RecordBatch {
            compression: pending.batch.compression.into(),
            record_count: i32::try_from(pending.batch.summary.record_count).unwrap_or(i32::MAX),
            crc32c: pending.batch.crc32c,
            records: pending.batch.records.clone(),
        }),
        acks: v1::Acks::Quorum.into(),
        session: pending.session.as_ref().map(|stamp| v1::ProducerSession {
            id: stamp.id.clone(),
            epoch: stamp.epoch,
            sequence: stamp.sequence,
        }),
        expected_offset: pending.expected_offset,
    }
}

#[cfg(test)]
mod tests;
