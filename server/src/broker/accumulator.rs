//! In front of a partition's group: batches that wait together become one Raft entry.
//!
//! While an entry is on its way to the disk the next one fills up, so a partition takes as much in a commit as there
//! is, without waiting on purpose. A task runs only while there is something to propose. What the group refuses, since
//! this node does not lead it any more, is handed on in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::stream::{FuturesUnordered, StreamExt};
use kelda_proto::{internal::v1::SessionStamp, v1::Compression};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::{Broker, Error, forward, validate::Checked};
use crate::{
    consensus::{PartitionGroup, ProposeError},
    machine::partition::Rejection,
    telemetry::clock,
    types::Offset,
};
use entry::{End, Entry};
use refusals::Refusals;

mod entry;
mod refusals;

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
    /// Room in the node's memory, given back when the batch is answered. A small batch that was joined is there twice
    /// until then: it may have to be handed on.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    /// Until when a leader is looked for.
    pub(super) deadline: Instant,
    /// What hands it on if this node turns out not to lead. `None` if another node has handed it on, which then looks
    /// further. A broker that waits for itself here is let go when the batch is answered: in a while, whatever happens.
    pub(super) broker: Option<Broker>,
}

impl Pending {
    pub(super) fn fail(self, failure: Failure) {
        self.answer(Err(failure));
    }

    pub(super) fn answer(self, result: Result<Placed, Failure>) {
        drop(self.permit);
        // Nobody waits any more if the call was cancelled.
        let _ = self.answer.send(result);
    }

    /// Whether this node looks further if the group refuses it.
    fn may_go_on(&self) -> bool {
        self.broker.is_some()
    }

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
    /// The term in which it came. It is proposed in no other: the node that handed it on may have given it up and sent
    /// later ones to the next leader, and it must not follow them if this node is elected again.
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
    key: forward::Key,
    queue: Mutex<Queue>,
    more: Notify,
}

/// What is owed for batches that were pushed.
#[must_use]
pub(super) struct Wake {
    is_idle: bool,
}

/// Takes batches for one partition, in order.
pub(super) struct Accumulator {
    inner: Arc<Inner>,
    runtime: Handle,
}

impl Accumulator {
    /// In front of `group`, which is that of the partition `key`, with its task on `runtime`.
    pub(super) fn new(group: PartitionGroup, key: forward::Key, runtime: Handle) -> Self {
        Self {
            inner: Arc::new(Inner {
                group,
                key,
                queue: Mutex::default(),
                more: Notify::new(),
            }),
            runtime,
        }
    }

    /// Whether batches wait or are on their way: then later ones must not go another way.
    pub(super) fn is_busy(&self) -> bool {
        self.inner.queue().draining
    }

    /// Queues a batch that came in this term behind those before it. The queue is bounded by the permits that its
    /// batches hold.
    pub(super) fn submit(&self, pending: Pending, term: u64) {
        let wake = self.push([pending], term);
        self.wake(wake);
    }

    /// As [`Accumulator::submit`] for some batches, of which nothing comes before [`Accumulator::wake`] is called: what
    /// costs time can wait until locks are given back.
    pub(super) fn push(&self, batches: impl IntoIterator<Item = Pending>, term: u64) -> Wake {
        let mut queue = self.inner.queue();
        for pending in batches {
            queue.bytes += pending.bytes();
            queue.waiting.push_back(Queued { pending, term });
        }
        Wake {
            is_idle: !std::mem::replace(&mut queue.draining, true),
        }
    }

    pub(super) fn wake(&self, Wake { is_idle }: Wake) {
        if is_idle {
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
        let mut refusals = Refusals::default();
        let group = self.group.group();
        loop {
            // What waits behind a refused entry must not overtake it.
            while refusals.is_empty()
                && let Some(entry) = self.next_entry(in_flight.len())
            {
                let number = refusals.next_number();
                let Entry {
                    term,
                    command,
                    batches,
                } = entry;
                match group.propose_in(term, command).await {
                    Ok(proposal) => in_flight.push(async move {
                        (number, entry::answer(group, proposal, batches).await)
                    }),
                    Err(error) => refusals.note(&self, number, entry::fail(batches, &error)),
                }
            }
            if in_flight.is_empty() {
                refusals.take().settle(&self);
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.draining = false;
                    return;
                }
                continue;
            }
            // Both are safe to cancel: a notification that is not taken stays, and so does an unfinished proposal.
            tokio::select! {
                Some((number, end)) = in_flight.next() => refusals.note(&self, number, end),
                () = self.more.notified() => {}
            }
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
        Some(Entry::build(term, taken, append_time_ms))
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

    /// All batches of this kind.
    fn take_all(&mut self, is_meant: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (taken, left): (Vec<_>, Vec<_>) = waiting.partition(|it| is_meant(&it.pending));
        self.waiting = left.into();
        let taken: Vec<_> = taken.into_iter().map(|it| it.pending).collect();
        self.bytes -= taken.iter().map(Pending::bytes).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests;
