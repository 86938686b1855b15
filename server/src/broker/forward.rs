//! Hands batches on to the nodes that lead their partitions.
//!
//! A partition's batches wait in one queue, and one request of them is under way at a time: so they arrive in order, and
//! while a leader is looked for none overtakes another. A queue exists only while it holds something. When leadership
//! comes to this node, the whole queue goes to the group here; what the group refuses comes back as a queue. So a
//! partition's batches are either here or there, never in both.

use std::{
    collections::{HashMap, VecDeque},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kelda_proto::{
    internal::v1::{ForwardRequest, ForwardResponse, forward_response::outcome::Outcome},
    v1::{self, ErrorReason},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Broker, Error,
    accumulator::{Failure, Pending, Placed},
    partition::Partition,
    route::{LOOK_AGAIN, Place, is_passing, not_leader},
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

/// A partition: its topic and number.
pub(super) type Key = (String, u32);

/// The queues of all partitions.
#[derive(Default)]
pub(super) struct Forwarding(RwLock<Queues>);

type Queues = HashMap<Key, VecDeque<Pending>>;

impl Forwarding {
    /// Held while a batch goes to a group here: meanwhile no queue comes into being.
    fn read(&self) -> RwLockReadGuard<'_, Queues> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Queues> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Queues a batch behind those before it: in front of the partition's group if that is `here` and led here, or else
    /// among those that are handed on. Either queue is bounded by the permits that its batches hold.
    pub(super) fn enqueue(
        &self,
        (topic, number): (&str, u32),
        here: Option<&Partition>,
        pending: Pending,
    ) {
        // The term first: if the lead is lost and won again in between, what came in the old one is refused.
        let led = here.map(|it| (it, it.group.group().term(), it.may_lead()));
        // To the group also if it is not led any more while batches wait there: they are refused and handed on together.
        let led = || led.filter(|(it, _, may_lead)| *may_lead || it.accumulator.is_busy());
        let queues = self.shared.forwarding.read();
        let is_handed_on = !queues.is_empty() && queues.contains_key(&(topic.to_owned(), number));
        if !is_handed_on && let Some((partition, term, _)) = led() {
            let wake = partition.accumulator.push([pending], term);
            drop(queues);
            partition.accumulator.wake(wake);
            return;
        }
        drop(queues);
        let key = (topic.to_owned(), number);
        let mut queues = self.shared.forwarding.write();
        if let Some(queue) = queues.get_mut(&key) {
            queue.push_back(pending);
        } else if let Some((partition, term, _)) = led() {
            partition.accumulator.submit(pending, term);
        } else {
            queues.insert(key.clone(), VecDeque::from([pending]));
            drop(queues);
            let broker = self.clone();
            self.shared.runtime.spawn(broker.hand_on(key));
        }
    }

    /// Hands on what the group here has refused, and then what `behind` takes of what waits there, in one step: so that
    /// no later batch comes between.
    pub(super) fn forward_refused(
        &self,
        key: &Key,
        refused: Vec<Pending>,
        behind: impl FnOnce() -> Vec<Pending>,
    ) {
        let mut queues = self.shared.forwarding.write();
        let batches = refused.into_iter().chain(behind());
        if let Some(queue) = queues.get_mut(key) {
            // The partition was moved away and came back, as another one. Later batches may be gone by now, behind which
            // only a session keeps its order.
            let (kept, failed): (Vec<_>, Vec<_>) = batches.partition(|it| it.session.is_some());
            queue.extend(kept);
            drop(queues);
            let failure = Failure::Propose(ProposeError::NotLeader { leader: None });
            failed.into_iter().for_each(|it| it.fail(failure.clone()));
            return;
        }
        queues.insert(key.clone(), batches.collect());
        drop(queues);
        let (broker, key) = (self.clone(), key.clone());
        self.shared.runtime.spawn(async move {
            // A leader that can not hand over keeps its lead and refuses all the same.
            sleep(LOOK_AGAIN).await;
            broker.hand_on(key).await;
        });
    }

    async fn hand_on(self, key: Key) {
        let number = i32::try_from(key.1).unwrap_or(i32::MAX);
        // What was taken from the queue and is to be tried again, before the rest of it.
        let mut batches: VecDeque<Pending> = VecDeque::new();
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
                    let mut queues = self.shared.forwarding.write();
                    batches.extend(queues.remove(&key).unwrap_or_default());
                    let wake = partition.accumulator.push(batches, term);
                    drop(queues);
                    partition.accumulator.wake(wake);
                    return;
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
    async fn send(&self, key: &Key, node: NodeId, batches: &mut VecDeque<Pending>) {
        let number = i32::try_from(key.1).unwrap_or(i32::MAX);
        let request = ForwardRequest {
            appends: batches.iter().map(|it| append(key, it)).collect(),
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
                let lost = |it: &Pending| it.session.is_none();
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
    fn take(&self, key: &Key) -> Option<VecDeque<Pending>> {
        let mut queues = self.write();
        let queue = queues.get_mut(key)?;
        if queue.is_empty() {
            queues.remove(key);
            return None;
        }
        let mut bytes = 0;
        let fits = queue.iter().take(REQUEST_BATCHES_MAX).take_while(|it| {
            let fits = bytes < REQUEST_BYTES;
            bytes += it.batch.records.len();
            fits
        });
        let count = fits.count();
        Some(queue.drain(..count).collect())
    }
}

fn give_up_late_ones(batches: &mut VecDeque<Pending>) {
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
fn settle(batches: &mut VecDeque<Pending>, answer: ForwardResponse) -> Option<Option<NodeId>> {
    let mut leader = None;
    let mut again = Vec::new();
    let mut outcomes = answer.outcomes.into_iter();
    let mut judged = Vec::with_capacity(batches.len());
    for pending in batches.drain(..) {
        let session = pending.session.as_ref().map(|it| it.id.clone());
        let outcome = outcomes.next().and_then(|it| it.outcome);
        let verdict = judge(outcome, session.as_ref(), &again);
        if let Verdict::Again(error) = &verdict {
            leader = not_leader(error).or(leader);
            again.extend(session);
        }
        judged.push((pending, verdict));
    }
    // Sequences keep the order of a session. Without one, a batch that was refused must not end up behind a later one:
    // unless all of those were refused too, it is the client's to decide whether it is still wanted.
    let mut overtaken = false;
    for (pending, verdict) in judged.into_iter().rev() {
        let in_order = pending.session.is_some();
        match verdict {
            Verdict::Again(_) if in_order || !overtaken => batches.push_front(pending),
            Verdict::Again(error) => pending.fail(remote(error)),
            Verdict::Done(result) => {
                overtaken |= !in_order;
                pending.answer(result);
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
