//! Collects records into one open batch a partition and seals batches when they are full or due.
//!
//! Pure bookkeeping: time is an argument. What it holds is bounded by `batches_max` sealed batches without a result
//! and by `buffer_bytes_max` bytes in all; a record that does not fit is refused, and its sender waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kelda_proto::v1::Record;
use kelda_proto::{batch, partitioner};
use tokio::time::Instant;

use super::delivery::{Completion, Delivery};

/// When a batch is full or due, and how much may be held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a full batch, not compressed. A larger record gets a batch of its own.
    pub(super) batch_bytes: usize,
    /// Records of a full batch.
    pub(super) batch_records: usize,
    /// Age at which a batch is sealed though it is not full.
    pub(super) linger: Duration,
    /// Most sealed batches without a result.
    pub(super) batches_max: usize,
    /// Most bytes held, open batches included.
    pub(super) buffer_bytes_max: usize,
}

impl Bounds {
    fn is_full(&self, open: &Open) -> bool {
        open.encoded.len() >= self.batch_bytes || open.record_count as usize >= self.batch_records
    }
}

/// A batch that takes no more records.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Rises with the time at which batches were opened.
    pub(super) id: u64,
    pub(super) partition: u32,
    /// An encoded `RecordSet`.
    pub(super) records: Bytes,
    pub(super) record_count: u32,
    /// When its first record came.
    pub(super) born: Instant,
    pub(super) completion: Option<Completion>,
}

struct Open {
    id: u64,
    encoded: BytesMut,
    record_count: u32,
    born: Instant,
    completion: Option<Completion>,
}

/// A record is in a batch.
#[derive(Debug)]
pub(super) struct Taken {
    /// If it was asked for.
    pub(super) delivery: Option<Delivery>,
    /// There is something new to wait for or to send.
    pub(super) news: bool,
}

/// Open and sealed batches.
pub(super) struct Accumulator {
    bounds: Bounds,
    open: HashMap<u32, Open>,
    /// Partitions of the open batches by their id, which is by age.
    by_age: BTreeMap<u64, u32>,
    sealed: VecDeque<Sealed>,
    /// Every batch without a result.
    unresolved: BTreeSet<u64>,
    sealed_count: usize,
    buffered_bytes: usize,
    next_id: u64,
    /// Open batches with lower ids are due at once.
    due_below: u64,
    partition_count: u32,
    fixed_partition: Option<u32>,
    /// Where records without a key go, until that batch is sealed.
    sticky_partition: u32,
    /// Size of the batch sealed last: spares the next one most of its growing.
    size_hint: usize,
}

impl Accumulator {
    pub(super) fn new(bounds: Bounds, partition_count: u32, fixed_partition: Option<u32>) -> Self {
        Accumulator {
            bounds,
            open: HashMap::new(),
            by_age: BTreeMap::new(),
            sealed: VecDeque::new(),
            unresolved: BTreeSet::new(),
            sealed_count: 0,
            buffered_bytes: 0,
            next_id: 0,
            due_below: 0,
            partition_count,
            fixed_partition,
            sticky_partition: (crate::random::number() % u64::from(partition_count.max(1))) as u32,
            size_hint: 0,
        }
    }

    /// Takes `record`, of `record_bytes` encoded bytes, into the open batch of its partition. Nothing: there is no
    /// room until a batch gets its result.
    pub(super) fn push(
        &mut self,
        record: &Record,
        record_bytes: usize,
        wants_delivery: bool,
        now: Instant,
    ) -> Option<Taken> {
        let size = batch::framed_len(record_bytes);
        let partition = loop {
            let partition = self.partition_for(record);
            let full = self.open.get(&partition).is_some_and(|open| {
                open.encoded.len() + size > self.bounds.batch_bytes || self.bounds.is_full(open)
            });
            if !full {
                break partition;
            }
            // Behind a sealed batch, a record without a key goes on to the next partition.
            if !self.seal(partition) {
                return None;
            }
        };
        if self.buffered_bytes > 0 && self.buffered_bytes + size > self.bounds.buffer_bytes_max {
            // Only results make room, so nothing may linger.
            self.press();
            return None;
        }
        let opened = !self.open.contains_key(&partition);
        if opened {
            self.open_batch(partition, size, now);
        }
        let open = self.open.get_mut(&partition)?;
        batch::append_record(&mut open.encoded, record);
        let index = open.record_count;
        open.record_count += 1;
        let delivery = wants_delivery.then(|| {
            let completion = open.completion.get_or_insert_with(Completion::new);
            completion.delivery(index)
        });
        self.buffered_bytes += size;
        let full = self.bounds.is_full(open);
        let sealed = full && self.seal(partition);
        Some(Taken {
            delivery,
            news: opened || sealed,
        })
    }

    /// Seals the batches that are due, as far as there is room for them.
    pub(super) fn seal_due(&mut self, now: Instant) {
        while let Some((id, partition)) = self.oldest_open() {
            if self.due_at(id, partition).is_none_or(|due| due > now) || !self.seal(partition) {
                return;
            }
        }
    }

    /// When [`Accumulator::seal_due`] has something to do, if it is not results that it waits for.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (id, partition) = self.oldest_open()?;
        if self.sealed_count < self.bounds.batches_max {
            self.due_at(id, partition)
        } else {
            None
        }
    }

    /// The partition of the sealed batch that [`Accumulator::take_sealed`] takes next.
    pub(super) fn next_sealed_partition(&self) -> Option<u32> {
        self.sealed.front().map(|sealed| sealed.partition)
    }

    /// Takes the sealed batches, in the order in which they were sealed.
    pub(super) fn take_sealed(&mut self) -> Option<Sealed> {
        self.sealed.pop_front()
    }

    /// The batch `id`, of `bytes` not compressed bytes, has got its result.
    pub(super) fn resolve(&mut self, id: u64, bytes: usize) {
        assert!(self.unresolved.remove(&id), "a batch gets one result");
        self.sealed_count -= 1;
        self.buffered_bytes -= bytes;
    }

    /// Makes every open batch due, and returns what to pass to [`Accumulator::resolved_below`] to learn whether all
    /// records taken until now have a result.
    pub(super) fn press(&mut self) -> u64 {
        self.due_below = self.next_id;
        self.next_id
    }

    /// Whether every batch opened before `id` has its result.
    pub(super) fn resolved_below(&self, id: u64) -> bool {
        self.unresolved.first().is_none_or(|first| *first >= id)
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.unresolved.is_empty()
    }

    /// The topic has this many partitions now.
    pub(super) fn set_partition_count(&mut self, partition_count: u32) {
        self.partition_count = partition_count;
    }

    /// Seals everything, whatever the bounds: for giving up.
    pub(super) fn seal_all(&mut self) {
        self.bounds.batches_max = usize::MAX;
        while let Some((_, partition)) = self.oldest_open() {
            self.seal(partition);
        }
    }

    fn partition_for(&self, record: &Record) -> u32 {
        match (self.fixed_partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::partition_for_key(key, self.partition_count),
            (None, None) => self.sticky_partition,
        }
    }

    fn open_batch(&mut self, partition: u32, size: usize, now: Instant) {
        let id = self.next_id;
        self.next_id += 1;
        self.by_age.insert(id, partition);
        self.unresolved.insert(id);
        let open = Open {
            id,
            encoded: BytesMut::with_capacity(self.size_hint.max(size)),
            record_count: 0,
            born: now,
            completion: None,
        };
        self.open.insert(partition, open);
    }

    fn oldest_open(&self) -> Option<(u64, u32)> {
        self.by_age
            .first_key_value()
            .map(|(id, partition)| (*id, *partition))
    }

    fn due_at(&self, id: u64, partition: u32) -> Option<Instant> {
        let open = self.open.get(&partition)?;
        if id < self.due_below {
            return Some(open.born);
        }
        Some(open.born + self.bounds.linger)
    }

    /// Seals the open batch of `partition`, unless there is no room for it.
    fn seal(&mut self, partition: u32) -> bool {
        if self.sealed_count >= self.bounds.batches_max {
            return false;
        }
        let Some(open) = self.open.remove(&partition) else {
            return false;
        };
        self.by_age.remove(&open.id);
        self.sealed_count += 1;
        self.size_hint = open.encoded.len();
        if partition == self.sticky_partition {
            self.sticky_partition = (partition + 1) % self.partition_count.max(1);
        }
        self.sealed.push_back(Sealed {
            id: open.id,
            partition,
            records: open.encoded.freeze(),
            record_count: open.record_count,
            born: open.born,
            completion: open.completion,
        });
        true
    }
}

#[cfg(test)]
mod tests;
