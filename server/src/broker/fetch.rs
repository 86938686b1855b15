//! Reads committed batches of a partition from this node's replica, waiting at its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kelda_proto::{
    batch,
    internal::v1::{BatchHeader, PartitionCommand, partition_command},
    limits::DECOMPRESSED_BYTES_MAX,
    v1,
};
use prost::Message;
use tokio::sync::watch;

use super::{
    Bounds, Error, Fetch, Fetched, ReadBatch, Start,
    partition::{self, Partition, Stopped},
};
use crate::{
    consensus::PartitionView,
    storage::{BatchRead, EntryHead, EntryKind, Search},
    telemetry::Metrics,
    types::{LogIndex, Offset, OffsetRow},
};

/// Headers of entries that a search by time reads in one go, and holds in memory.
const SEARCH_HEADS: usize = 64;

/// Reads one partition from its replica on this node. Clones are independent readers.
#[derive(Clone)]
pub(super) struct LocalReader {
    partition: Arc<Partition>,
    view: watch::Receiver<PartitionView>,
    stopped: watch::Receiver<Stopped>,
    metrics: Arc<Metrics>,
}

impl LocalReader {
    pub(super) fn new(partition: Arc<Partition>, metrics: Arc<Metrics>) -> Self {
        Self {
            view: partition.group.watch(),
            stopped: partition.stopped(),
            partition,
            metrics,
        }
    }

    /// What there is to read, now.
    pub(super) fn bounds(&self) -> Bounds {
        partition::bounds(&self.view.borrow())
    }

    /// The offset that a start means.
    pub(super) async fn resolve(&self, start: Start) -> Result<Offset, Error> {
        let bounds = self.bounds();
        match start {
            Start::Earliest => Ok(bounds.log_start),
            Start::Latest => Ok(bounds.end),
            Start::Offset(offset) => {
                let wanted = u64::try_from(offset).map(Offset);
                match wanted {
                    Ok(wanted) if bounds.log_start <= wanted && wanted <= bounds.end => Ok(wanted),
                    _ => Err(self.out_of_range(offset)),
                }
            }
            Start::Timestamp(timestamp_ms) => self.offset_at_time(timestamp_ms).await,
        }
    }

    /// Committed batches from the one that holds `from`, while they begin below `to`; about `bytes_max` of them, but
    /// at least one if there is one.
    pub(super) async fn read(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<ReadBatch>, Error> {
        let batches = self.look(from, to, bytes_max).await?;
        self.count(&batches);
        Ok(batches)
    }

    pub(super) fn count(&self, batches: &[ReadBatch]) {
        let records = batches.iter().map(|batch| u64::from(batch.record_count));
        let bytes = batches.iter().map(|batch| batch.records.len() as u64);
        self.metrics.fetched(records.sum(), bytes.sum());
    }

    /// As [`LocalReader::read`], for what is not handed out.
    async fn look(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<ReadBatch>, Error> {
        let bounds = self.bounds();
        if from < bounds.log_start {
            return Err(self.out_of_range(from.into()));
        }
        let to = to.min(bounds.end);
        if from >= to {
            return Ok(Vec::new());
        }
        let store = self.partition.group.store();
        let batches = store
            .read_batches(from, to, bytes_max)
            .await
            .map_err(|error| self.partition.storage_error(&error))?;
        let gap = batches
            .first()
            .is_none_or(|first| first.row.base_offset > from);
        if gap && self.bounds().log_start > from {
            // Retention has overtaken the read.
            return Err(self.out_of_range(from.into()));
        }
        if !continuous(from, &batches) {
            // What is being deleted may be half there.
            return Err(self.partition.gone().unwrap_or_else(|| self.corrupt()));
        }
        decode(batches).ok_or_else(|| self.corrupt())
    }

    /// Waits until there is a record behind `offset`, or `offset` is no longer there. Safe to cancel.
    pub(super) async fn wait_for_end_above(&mut self, offset: Offset) -> Result<Bounds, Error> {
        self.wait_for(|view| view.end > offset || view.log_start > offset)
            .await
    }

    async fn wait_for(
        &mut self,
        wanted: impl FnMut(&PartitionView) -> bool,
    ) -> Result<Bounds, Error> {
        let view = &mut self.view;
        let stopped = &mut self.stopped;
        // Both only watch: dropping either loses nothing.
        tokio::select! {
            changed = view.wait_for(wanted) => {
                changed.map(|view| partition::bounds(&view)).map_err(|_| Error::NotReady)
            }
            _ = stopped.wait_for(|stopped| *stopped != Stopped::No) => {
                Err(self.partition.gone().unwrap_or(Error::NotReady))
            }
        }
    }

    /// Reads twice at most, however many appends there are meanwhile: the running total of bytes tells when there is
    /// enough.
    pub(super) async fn long_poll(
        &mut self,
        offset: Offset,
        call: &Fetch,
        deadline: Instant,
    ) -> Result<Fetched, Error> {
        let wanted = call.min_bytes.clamp(1, call.max_bytes.max(1));
        let PartitionView { end, end_bytes, .. } = *self.view.borrow();
        let mut batches = self.look(offset, end, call.max_bytes).await?;
        let bytes: usize = batches.iter().map(|batch| batch.records.len()).sum();
        // A read that stopped before the end was full, even if the last batch did not fit.
        let is_all = batches.last().map_or(offset, ReadBatch::end_offset) >= end;
        let left = deadline.saturating_duration_since(Instant::now());
        if is_all && bytes < wanted && left > Duration::ZERO {
            // Many may wait at a time: none of them holds what it will read again.
            drop(batches);
            let enough = end_bytes.saturating_add((wanted - bytes) as u64);
            let waiting = self.wait_for(|view| view.end_bytes >= enough || view.log_start > offset);
            if let Ok(waited) = tokio::time::timeout(left, waiting).await {
                waited?;
            }
            batches = self.look(offset, self.bounds().end, call.max_bytes).await?;
        }
        let next_offset = batches.last().map_or(offset, ReadBatch::end_offset);
        Ok(Fetched {
            batches,
            next_offset,
            bounds: self.bounds(),
        })
    }

    /// Offset of the first record at or behind a time.
    ///
    /// The rows know the highest timestamp up to them, so the first that is late enough names the batch, unless the
    /// record it owes that to was deleted. From there on the headers of the entries name the next batch to look into.
    async fn offset_at_time(&self, timestamp_ms: i64) -> Result<Offset, Error> {
        let bounds = self.bounds();
        let Some(row) = self.find(Search::TimestampFrom(timestamp_ms)).await? else {
            return Ok(bounds.end);
        };
        let mut from = row.base_offset.max(bounds.log_start);
        while from < bounds.end {
            // One batch.
            let behind = Offset(from.0.saturating_add(1));
            let looked = self.look(from, behind, 0).await;
            match looked {
                Ok(batches) => {
                    let Some(last) = batches.last() else { break };
                    let next = last.end_offset();
                    if let Some(found) = self.first_in(batches, from, timestamp_ms).await? {
                        return Ok(found);
                    }
                    match self.next_batch_at_time(next, timestamp_ms).await? {
                        Some(base) => from = base,
                        None => break,
                    }
                }
                Err(Error::OffsetOutOfRange { .. }) => {}
                Err(error) => return Err(error),
            }
            // Retention may have overtaken the search, which then goes on with what is still there.
            from = from.max(self.bounds().log_start);
        }
        Ok(bounds.end)
    }

    /// Where the first batch begins, from offset `from` on, whose header says that a record of it is late enough.
    async fn next_batch_at_time(
        &self,
        from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, Error> {
        let Some(row) = self.find(Search::Contains(from)).await? else {
            return Ok(None);
        };
        let store = self.partition.group.store();
        let mut place = (row.index, row.part);
        loop {
            let heads = store
                .read_heads(place.0, LogIndex(u64::MAX), SEARCH_HEADS)
                .await
                .map_err(|error| self.partition.storage_error(&error))?;
            if heads.is_empty() {
                // Behind the end of the log, or overtaken by retention: the batch that is first now will do.
                return Ok(self
                    .find(Search::Contains(from))
                    .await?
                    .and_then(|row| (row.base_offset > from).then_some(row.base_offset)));
            }
            for head in heads {
                // A header may describe very many batches.
                tokio::task::yield_now().await;
                let index = head.id.index;
                for part in late_parts(&head, timestamp_ms) {
                    if (index, part) < place {
                        continue;
                    }
                    let Some(row) = self.find(Search::Place { index, part }).await? else {
                        return Ok(None);
                    };
                    place = (row.index, row.part);
                    if place == (index, part) {
                        return Ok(Some(row.base_offset.max(from)));
                    }
                    // A batch that was refused has no row: the search goes on with the one behind it.
                }
                place = place.max((LogIndex(index.0.saturating_add(1)), 0));
            }
        }
    }

    async fn find(&self, search: Search) -> Result<Option<OffsetRow>, Error> {
        let store = self.partition.group.store();
        let found = store.find(search).await;
        found.map_err(|error| self.partition.storage_error(&error))
    }

    /// Offset of the first record that is late enough. The first batch may begin before `from`, with records that
    /// are deleted.
    async fn first_in(
        &self,
        batches: Vec<ReadBatch>,
        from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, Error> {
        let search = move || {
            for read in batches {
                let packed = read.packed();
                let skipped = from.0.saturating_sub(read.base_offset.0);
                let position = batch::position_at_time(
                    &packed,
                    u32::try_from(skipped).unwrap_or(u32::MAX),
                    read.append_time_ms,
                    timestamp_ms,
                    DECOMPRESSED_BYTES_MAX,
                )?;
                if let Some(position) = position {
                    return Ok(Some(Offset(read.base_offset.0 + u64::from(position))));
                }
            }
            Ok::<_, batch::Error>(None)
        };
        let found = tokio::task::spawn_blocking(search)
            .await
            .map_err(|error| Error::Internal {
                detail: format!("search failed: {error}"),
            })?;
        found.map_err(|_| self.corrupt())
    }

    fn out_of_range(&self, offset: i64) -> Error {
        let Bounds { log_start, end } = self.bounds();
        Error::OffsetOutOfRange {
            offset,
            log_start,
            end,
        }
    }

    fn corrupt(&self) -> Error {
        Error::CorruptData {
            topic: self.partition.topic.clone(),
            partition: self.partition.number,
        }
    }
}

impl ReadBatch {
    /// Offset behind the last record.
    pub fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0 + u64::from(self.record_count))
    }

    /// The batch as the producer packed it.
    pub fn packed(&self) -> v1::RecordBatch {
        v1::RecordBatch {
            compression: self.compression,
            record_count: i32::try_from(self.record_count).unwrap_or(i32::MAX),
            crc32c: self.crc32c,
            records: self.records.clone(),
        }
    }
}

/// Whether there are batches from the one that holds `from`, each where the one before it ends. There are always, but
/// in a damaged database, whose rows may have gone missing.
fn continuous(from: Offset, batches: &[BatchRead]) -> bool {
    let mut next = from;
    let follows = |batch: &BatchRead| {
        let OffsetRow {
            base_offset,
            record_count,
            ..
        } = batch.row;
        let fits = base_offset == next || (base_offset < next && next == from);
        next = Offset(base_offset.0.saturating_add(record_count.into()));
        fits && next > from
    };
    !batches.is_empty() && batches.iter().all(follows)
}

/// Joins each batch with its description in the header of its entry, which batches of one entry share.
fn decode(reads: Vec<BatchRead>) -> Option<Vec<ReadBatch>> {
    let mut headers: (Bytes, Vec<BatchHeader>) = Default::default();
    let mut batches = Vec::with_capacity(reads.len());
    for BatchRead { row, header, part } in reads {
        if headers.0 != header || headers.1.is_empty() {
            headers = (header.clone(), batch_headers(header)?);
        }
        let OffsetRow {
            base_offset,
            record_count,
            append_time_ms,
            part: position,
            ..
        } = row;
        let described = headers.1.get(position as usize)?;
        batches.push(ReadBatch {
            base_offset,
            append_time_ms,
            compression: described.compression,
            record_count,
            crc32c: part.crc32c,
            records: part.bytes,
        });
    }
    Some(batches)
}

/// The batches of an entry whose headers say that they have a record at or behind a time.
fn late_parts(head: &EntryHead, timestamp_ms: i64) -> Vec<u32> {
    let batches = match head.kind {
        EntryKind::Command => batch_headers(head.header.clone()).unwrap_or_default(),
        EntryKind::Blank | EntryKind::Membership => Vec::new(),
    };
    let late = (0..)
        .zip(batches)
        .filter(|(_, batch)| batch.max_timestamp_ms >= timestamp_ms);
    late.map(|(part, _)| part).collect()
}

fn batch_headers(header: Bytes) -> Option<Vec<BatchHeader>> {
    match PartitionCommand::decode(header).ok()?.command? {
        partition_command::Command::Append(append) => Some(append.batches),
        partition_command::Command::Trim(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Part;

    fn batches(bounds: &[(u64, u32)]) -> Vec<BatchRead> {
        let read = |(base_offset, record_count): &(u64, u32)| BatchRead {
            row: OffsetRow {
                base_offset: Offset(*base_offset),
                index: LogIndex(0),
                part: 0,
                record_count: *record_count,
                append_time_ms: 0,
                max_timestamp_ms: 0,
                end_bytes: 0,
            },
            header: Bytes::new(),
            part: Part {
                bytes: Bytes::new(),
                crc32c: 0,
            },
        };
        bounds.iter().map(read).collect()
    }

    #[test]
    fn batches_with_a_gap_or_beside_the_wanted_offset_are_noticed() {
        let check = |from, bounds: &[(u64, u32)]| continuous(Offset(from), &batches(bounds));
        assert!(check(5, &[(5, 1)]));
        assert!(check(7, &[(5, 3), (8, 1), (9, 100)]));
        for wrong in [
            &[][..],
            &[(8, 1)],
            &[(5, 2)],
            &[(5, 3), (9, 1)],
            &[(5, 3), (7, 3)],
            &[(5, 3), (5, 3)],
        ] {
            assert!(!check(7, wrong), "{wrong:?}");
        }
    }
}
