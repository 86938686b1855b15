//! Batches on their way: in which order they are sent, which of them wait for an ack, and which sequences they have.
//!
//! Pure bookkeeping: time is an argument. Sequences are given in the order of sealing and stay with a batch when it
//! is sent again, which is what lets the broker recognise it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kelda_proto::v1::RecordBatch;
use kelda_proto::v1::produce_stream_request::Append;
use tokio::time::Instant;

use super::accumulator::Sealed;

/// A partition idle for this long starts over in a new epoch: half the time after which the broker may forget its
/// session, and then could not tell a lost session from a lost batch.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// A batch without a result.
#[derive(Debug)]
pub(super) struct Entry {
    /// Without its records, which are in the batch.
    pub(super) sealed: Sealed,
    /// Size of its records, not compressed.
    pub(super) bytes: usize,
    batch: RecordBatch,
    sequence: i64,
    /// Of its present stream.
    correlation_id: u64,
    /// When it was put on its present stream.
    sent_at: Instant,
    /// It was on some stream, so it may have been written.
    pub(super) ever_sent: bool,
}

/// Where the numbering of a partition is.
struct Lane {
    next_sequence: i64,
    used_at: Instant,
}

/// Batches in the order of their sealing. The first `sent` of them are on the present stream.
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    sent: usize,
    next_correlation_id: u64,
    lanes: HashMap<u32, Lane>,
    epoch: i32,
}

impl Outbox {
    /// An outbox of a session that is in `epoch`.
    pub(super) fn new(epoch: i32) -> Self {
        Outbox {
            entries: VecDeque::new(),
            sent: 0,
            next_correlation_id: 0,
            lanes: HashMap::new(),
            epoch,
        }
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the session has to change its epoch before a batch of `partition` can be admitted.
    pub(super) fn is_stale(&self, partition: u32, now: Instant) -> bool {
        self.lanes
            .get(&partition)
            .is_some_and(|lane| now.saturating_duration_since(lane.used_at) > SESSION_IDLE_MAX)
    }

    /// Queues a batch and gives it its sequence.
    pub(super) fn admit(&mut self, mut sealed: Sealed, batch: RecordBatch, now: Instant) {
        let bytes = std::mem::take(&mut sealed.records).len();
        let sequence = self.next_sequence(sealed.partition, now);
        self.entries.push_back(Entry {
            sealed,
            bytes,
            batch,
            sequence,
            correlation_id: 0,
            sent_at: now,
            ever_sent: false,
        });
    }

    /// The next append to put on the stream, unless `window` of them are on it without an ack.
    pub(super) fn next(&mut self, window: usize, now: Instant) -> Option<Append> {
        if self.sent >= window {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        self.sent += 1;
        entry.correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        entry.sent_at = now;
        entry.ever_sent = true;
        Some(Append {
            correlation_id: entry.correlation_id,
            partition: Some(crate::topics::wire_partition(entry.sealed.partition)),
            records: Vec::new(),
            batch: Some(entry.batch.clone()),
            sequence: entry.sequence,
            expected_offset: None,
        })
    }

    /// The batch that an answer on the present stream is about.
    pub(super) fn find(&self, correlation_id: u64) -> Option<&Entry> {
        self.position(correlation_id)
            .map(|index| &self.entries[index])
    }

    /// Takes out the batch that an answer on the present stream is about.
    pub(super) fn settle(&mut self, correlation_id: u64) -> Option<Entry> {
        let index = self.position(correlation_id)?;
        self.sent -= 1;
        self.entries.remove(index)
    }

    /// Whether an earlier batch of the same partition has no result, so that a broker which misses that one must
    /// refuse this one.
    pub(super) fn has_predecessor(&self, correlation_id: u64) -> bool {
        self.position(correlation_id).is_some_and(|index| {
            let partition = self.entries[index].sealed.partition;
            let mut earlier = self.entries.iter().take(index);
            earlier.any(|entry| entry.sealed.partition == partition)
        })
    }

    /// The stream is gone: everything has to be sent again, in order and with the same sequences.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }

    /// Takes out the batches whose first record is `age` old, without a change of epoch: for a producer without a
    /// session.
    pub(super) fn take_expired(&mut self, age: Duration, now: Instant) -> Vec<Entry> {
        let sent_before = self.sent;
        let mut kept = VecDeque::with_capacity(self.entries.len());
        let mut expired = Vec::new();
        for (index, entry) in self.entries.drain(..).enumerate() {
            if entry.sealed.born + age > now {
                kept.push_back(entry);
                continue;
            }
            if index < sent_before {
                self.sent -= 1;
            }
            expired.push(entry);
        }
        self.entries = kept;
        expired
    }

    /// Gives up every batch that may have been written and those whose first record is `age` old, and starts over
    /// in the next epoch with the rest. In it the broker refuses whatever is still on its way from this one.
    pub(super) fn abandon(&mut self, age: Duration, now: Instant) -> Vec<Entry> {
        let (lost, kept): (Vec<_>, Vec<_>) = self
            .entries
            .drain(..)
            .partition(|entry| entry.ever_sent || entry.sealed.born + age <= now);
        self.sent = 0;
        self.epoch += 1;
        self.lanes.clear();
        for mut entry in kept {
            entry.sequence = self.next_sequence(entry.sealed.partition, now);
            self.entries.push_back(entry);
        }
        lost
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.sent = 0;
        self.entries.drain(..).collect()
    }

    /// When the batch that waits longest for its ack was sent.
    pub(super) fn oldest_sent_at(&self) -> Option<Instant> {
        self.entries.front().filter(|_| self.sent > 0)?;
        self.entries
            .iter()
            .take(self.sent)
            .map(|entry| entry.sent_at)
            .min()
    }

    /// When the oldest batch got its first record.
    pub(super) fn oldest_born(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.sealed.born).min()
    }

    fn position(&self, correlation_id: u64) -> Option<usize> {
        // Ids rise with the order of sending.
        let sent = self.entries.iter().take(self.sent);
        sent.enumerate()
            .find(|(_, entry)| entry.correlation_id == correlation_id)
            .map(|(index, _)| index)
    }

    fn next_sequence(&mut self, partition: u32, now: Instant) -> i64 {
        let lane = self.lanes.entry(partition).or_insert(Lane {
            next_sequence: 0,
            used_at: now,
        });
        let sequence = lane.next_sequence;
        lane.next_sequence += 1;
        lane.used_at = now;
        sequence
    }
}

#[cfg(test)]
mod tests;
