//! In front of a partition's group: batches that wait together become one Raft entry.
//!
//! While an entry is on its way to the disk the next one fills up, so a partition takes as much in a commit as there
//! is, without waiting on purpose. A task runs only while there is something to propose.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use futures::stream::{FuturesUnordered, StreamExt};
use kelda_proto::{
    batch::crc32c,
    internal::v1::{BatchHeader, PartitionCommand, SessionStamp, partition_command},
    limits::BATCH_RECORDS_MAX,
    v1::Compression,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, oneshot},
};

use super::{Error, validate::Checked};
use crate::{
    consensus::{Command, Group, PartitionGroup, Proposal, ProposeError, Reply},
    machine::partition::{Outcome, Rejection},
    storage::Part,
    telemetry::clock,
    types::Offset,
};

/// An entry is closed when it has this many bytes; a larger batch is an entry of its own.
const ENTRY_BYTES: usize = 1 << 20;
/// Most batches of an entry.
const ENTRY_BATCHES_MAX: usize = 8192;
/// Entries that may be on their way at a time.
const ENTRIES_IN_FLIGHT: usize = 16;
/// With an entry on its way, the next one waits until it has this many bytes, or until none is on its way: small
/// records gain more from a common commit than they lose by waiting for the one before.
const EAGER_BYTES: usize = 32 << 10;
/// Uncompressed batches up to this size may be joined.
const JOIN_BYTES_MAX: usize = 16 << 10;
/// A joined batch is closed at this size.
const JOINED_BYTES: usize = 128 << 10;

/// Where a batch was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) base_offset: Offset,
    pub(super) append_time_ms: i64,
    pub(super) duplicate: bool,
}

/// Why a batch was not put anywhere, or may not have been.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    Rejected(Rejection),
    Propose(ProposeError),
    /// On the way to the leader, or there.
    Broker(Box<Error>),
}

pub(super) type Answer = oneshot::Receiver<Result<Placed, Failure>>;

/// A batch that waits.
pub(super) struct Pending {
    pub(super) batch: Checked,
    pub(super) session: Option<SessionStamp>,
    pub(super) expected_offset: Option<i64>,
    pub(super) answer: oneshot::Sender<Result<Placed, Failure>>,
    /// Room in the node's memory, given back when the batch is committed.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.batch.records.len()
    }

    fn can_join(&self) -> bool {
        self.session.is_none()
            && self.expected_offset.is_none()
            && self.batch.compression == Compression::Unspecified
            && self.bytes() <= JOIN_BYTES_MAX
    }
}

/// A batch in the queue.
struct Queued {
    pending: Pending,
    /// The term in which it came. It is proposed in no other: once this node has lost the lead, later batches go to
    /// the leader that follows, and must not be overtaken if this node is elected again.
    term: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    bytes: usize,
    draining: bool,
    last_append_time_ms: i64,
}

struct Inner {
    group: PartitionGroup,
    queue: Mutex<Queue>,
    more: Notify,
}

/// Takes batches for one partition, in order.
pub(super) struct Accumulator {
    inner: Arc<Inner>,
    runtime: Handle,
}

impl Accumulator {
    /// In front of `group`, with its task on `runtime`.
    pub(super) fn new(group: PartitionGroup, runtime: Handle) -> Self {
        Self {
            inner: Arc::new(Inner {
                group,
                queue: Mutex::default(),
                more: Notify::new(),
            }),
            runtime,
        }
    }

    /// Queues a batch that came in this term behind those before it. The queue is bounded by the permits that its
    /// batches hold.
    pub(super) fn submit(&self, pending: Pending, term: u64) {
        let start = {
            let mut queue = self.inner.queue();
            queue.bytes += pending.bytes();
            queue.waiting.push_back(Queued { pending, term });
            !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            self.runtime.spawn(Arc::clone(&self.inner).drain());
        } else {
            self.inner.more.notify_one();
        }
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whoever held the lock only moved batches and counted them; neither can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proposes entries until nothing waits and nothing is on its way.
    async fn drain(self: Arc<Self>) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            while let Some(entry) = self.next_entry(in_flight.len()) {
                let group = self.group.group();
                match group.propose_in(entry.term, entry.command).await {
                    Ok(proposal) => in_flight.push(answer(group, proposal, entry.waiters)),
                    Err(error) => {
                        fail(entry.waiters, &error);
                        self.refuse(entry.term, &error);
                    }
                }
            }
            if in_flight.is_empty() {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.draining = false;
                    return;
                }
                continue;
            }
            // Both are safe to cancel: a notification that is not taken stays, and so does an unfinished proposal.
            tokio::select! {
                _ = in_flight.next() => {}
                () = self.more.notified() => {}
            }
        }
    }

    /// Refuses what waits behind a batch that was refused in the same term: it would overtake that one if the lead were
    /// confirmed after all.
    fn refuse(&self, term: u64, error: &ProposeError) {
        let refused = self.queue().take_all(term);
        for pending in refused {
            let _ = pending.answer.send(Err(Failure::Propose(error.clone())));
        }
    }

    fn next_entry(&self, in_flight: usize) -> Option<Entry> {
        let mut queue = self.queue();
        let eager = in_flight == 0 || (queue.bytes >= EAGER_BYTES && in_flight < ENTRIES_IN_FLIGHT);
        if queue.waiting.is_empty() || !eager {
            return None;
        }
        let newest = self
            .group
            .view()
            .append_time_ms
            .max(queue.last_append_time_ms);
        let append_time_ms = clock::now_ms().max(newest);
        queue.last_append_time_ms = append_time_ms;
        let (term, taken) = queue.take()?;
        drop(queue);
        let (command, waiters) = build(taken, append_time_ms);
        Some(Entry {
            term,
            command,
            waiters,
        })
    }
}

impl Queue {
    /// An entry's worth of batches, all of one term.
    fn take(&mut self) -> Option<(u64, Vec<Pending>)> {
        let term = self.waiting.front()?.term;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let full =
                bytes + next.pending.bytes() > ENTRY_BYTES || taken.len() >= ENTRY_BATCHES_MAX;
            if next.term != term || (!taken.is_empty() && full) {
                break;
            }
            bytes += next.pending.bytes();
            taken.extend(self.waiting.pop_front().map(|next| next.pending));
        }
        self.bytes -= bytes;
        Some((term, taken))
    }

    /// All batches of a term.
    fn take_all(&mut self, term: u64) -> Vec<Pending> {
        let mut taken = Vec::new();
        while self.waiting.front().is_some_and(|next| next.term == term) {
            taken.extend(self.waiting.pop_front().map(|next| next.pending));
        }
        self.bytes -= taken.iter().map(Pending::bytes).sum::<usize>();
        taken
    }
}

/// What is proposed at a time.
struct Entry {
    term: u64,
    command: Command,
    waiters: Vec<Waiter>,
}

/// Who waits for which part of an entry.
struct Waiter {
    part: usize,
    /// Records of the part in front of this waiter's.
    records_before: u64,
    answer: oneshot::Sender<Result<Placed, Failure>>,
    permit: Arc<OwnedSemaphorePermit>,
}

/// A part under construction: one batch, or several joined.
struct Open {
    header: BatchHeader,
    parts: Vec<Checked>,
    bytes: usize,
    can_join: bool,
}

impl Open {
    fn takes(&self, pending: &Pending) -> bool {
        let records =
            self.header.record_count as usize + pending.batch.summary.record_count as usize;
        self.can_join
            && pending.can_join()
            && self.bytes + pending.bytes() <= JOINED_BYTES
            && records <= BATCH_RECORDS_MAX
    }

    /// The encodings of two record sets behind each other are the encoding of their concatenation.
    fn close(mut self) -> (BatchHeader, Part) {
        if self.parts.len() == 1
            && let Some(only) = self.parts.pop()
        {
            return (
                self.header,
                Part {
                    bytes: only.records,
                    crc32c: only.crc32c,
                },
            );
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        for part in &self.parts {
            joined.extend_from_slice(&part.records);
        }
        let bytes = joined.freeze();
        let crc32c = crc32c(&bytes);
        (self.header, Part { bytes, crc32c })
    }
}

fn build(taken: Vec<Pending>, append_time_ms: i64) -> (Command, Vec<Waiter>) {
    let mut open: Vec<Open> = Vec::new();
    let mut waiters = Vec::with_capacity(taken.len());
    for pending in taken {
        let joins = open.last().is_some_and(|last| last.takes(&pending));
        if !joins {
            open.push(Open {
                header: BatchHeader {
                    compression: pending.batch.compression.into(),
                    record_count: 0,
                    max_timestamp_ms: 0,
                    session: pending.session.clone(),
                    expected_offset: pending.expected_offset,
                },
                parts: Vec::new(),
                bytes: 0,
                can_join: pending.can_join(),
            });
        }
        let part = open.len() - 1;
        let last = &mut open[part];
        waiters.push(Waiter {
            part,
            records_before: last.header.record_count.into(),
            answer: pending.answer,
            permit: pending.permit,
        });
        let summary = &pending.batch.summary;
        last.bytes += pending.batch.records.len();
        last.header.record_count += summary.record_count;
        last.header.max_timestamp_ms = last
            .header
            .max_timestamp_ms
            .max(summary.max_timestamp_seen_ms(append_time_ms));
        last.parts.push(pending.batch);
    }
    let (batches, parts) = open.into_iter().map(Open::close).unzip();
    let append = partition_command::Append {
        append_time_ms,
        batches,
    };
    let command = PartitionCommand {
        command: Some(partition_command::Command::Append(append)),
    };
    (Command::partition(&command, parts), waiters)
}

async fn answer(group: &Group, proposal: Proposal, waiters: Vec<Waiter>) {
    let outcome = tokio::select! {
        outcome = proposal.wait() => outcome,
        // Whether it is carried out after all is known once the others can be reached. Nobody should wait for that.
        () = group.left_alone() => Err(ProposeError::Indefinite),
    };
    let outcomes = match outcome {
        Ok(Reply::Partition(outcomes)) => outcomes,
        Ok(_) => return fail(waiters, &ProposeError::Indefinite),
        Err(error) => return fail(waiters, &error),
    };
    for waiter in waiters {
        let result = match outcomes.get(waiter.part) {
            Some(Outcome::Appended {
                base_offset,
                append_time_ms,
            }) => Ok(Placed {
                base_offset: Offset(base_offset.0 + waiter.records_before),
                append_time_ms: *append_time_ms,
                duplicate: false,
            }),
            Some(Outcome::Duplicate {
                base_offset,
                append_time_ms,
                ..
            }) => Ok(Placed {
                base_offset: *base_offset,
                append_time_ms: *append_time_ms,
                duplicate: true,
            }),
            Some(Outcome::Rejected(rejection)) => Err(Failure::Rejected(*rejection)),
            None => Err(Failure::Propose(ProposeError::Indefinite)),
        };
        drop(waiter.permit);
        // Nobody waits any more if the call was cancelled.
        let _ = waiter.answer.send(result);
    }
}

fn fail(waiters: Vec<Waiter>, error: &ProposeError) {
    for waiter in waiters {
        let _ = waiter.answer.send(Err(Failure::Propose(error.clone())));
    }
}

#[cfg(test)]
mod tests;
