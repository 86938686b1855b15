//! Where a consumer is: what each message means for its positions, and how to resume from them.

use std::collections::BTreeMap;

use kelda_proto::v1::consume_response::{Event as Message, Records, Started};
use kelda_proto::v1::start_position::Position as Start;
use kelda_proto::v1::{
    self, ConsumeRequest, ConsumeResponse, PartitionStart, StartPosition, StoredBatch,
};
use kelda_proto::{batch, limits};

use super::{ConsumedRecord, Event, PartitionPosition};
use crate::error::Error;

/// Position in a partition.
#[derive(Clone, Copy)]
struct Position {
    next_offset: u64,
    end_offset: u64,
    /// Where to stop, if the consumer does not follow: the end when the first stream started.
    stop_offset: u64,
}

/// Positions of a consumer, over all of its streams.
pub(super) struct Progress {
    follow: bool,
    partitions: BTreeMap<u32, Position>,
}

impl Progress {
    pub(super) fn new(follow: bool) -> Self {
        Progress {
            follow,
            partitions: BTreeMap::new(),
        }
    }

    pub(super) fn positions(&self) -> Vec<PartitionPosition> {
        self.partitions
            .iter()
            .map(|(partition, position)| PartitionPosition {
                partition: *partition,
                next_offset: position.next_offset,
                end_offset: position.end_offset,
            })
            .collect()
    }

    /// The last event, if a stream broke with nothing left to read.
    pub(super) fn ended(&self) -> Option<Event> {
        let started = !self.partitions.is_empty();
        let mut positions = self.partitions.values();
        (started && positions.all(|position| position.next_offset >= position.stop_offset)).then(
            || Event::End {
                positions: self.positions(),
            },
        )
    }

    /// The request of the next stream: `first` until one has started, then what is left from the positions on.
    pub(super) fn resume(&self, first: &ConsumeRequest) -> ConsumeRequest {
        if self.partitions.is_empty() {
            return first.clone();
        }
        let left = self
            .partitions
            .iter()
            .filter(|(_, position)| position.next_offset < position.stop_offset);
        let partitions = left.map(|(partition, position)| PartitionStart {
            partition: crate::topics::wire_partition(*partition),
            start: Some(StartPosition {
                position: Some(Start::Offset(position.next_offset.cast_signed())),
            }),
        });
        ConsumeRequest {
            partitions: partitions.collect(),
            start: None,
            ..first.clone()
        }
    }

    /// A stream has started.
    pub(super) fn start(&mut self, started: Started) -> Result<(), Error> {
        for position in started.positions {
            let (partition, next_offset, end_offset) = unsigned_position(position)?;
            let stop_offset = if self.follow { u64::MAX } else { end_offset };
            self.partitions
                .entry(partition)
                .and_modify(|position| position.end_offset = end_offset)
                .or_insert(Position {
                    next_offset,
                    end_offset,
                    stop_offset,
                });
        }
        Ok(())
    }

    /// Takes a message of a stream that has started.
    pub(super) fn take(&mut self, message: ConsumeResponse) -> Result<Option<Event>, Error> {
        match message.event {
            Some(Message::Records(records)) => self.records(records),
            Some(Message::Heartbeat(heartbeat)) => {
                self.move_to(heartbeat.positions)?;
                let positions = self.positions();
                Ok(Some(Event::Heartbeat { positions }))
            }
            Some(Message::Gap(gap)) => {
                let partition = unsigned(gap.partition.into())? as u32;
                let (from_offset, to_offset) =
                    (unsigned(gap.from_offset)?, unsigned(gap.to_offset)?);
                // The broker may place the reader further back as well as further on.
                self.position(partition)?.next_offset = to_offset;
                Ok(Some(Event::Gap {
                    partition,
                    from_offset,
                    to_offset,
                }))
            }
            Some(Message::End(end)) => {
                self.move_to(end.positions)?;
                let positions = self.positions();
                Ok(Some(Event::End { positions }))
            }
            Some(Message::Started(_)) => Err(Error::Protocol {
                detail: "a stream started twice",
            }),
            // An event of a later version.
            None => Ok(None),
        }
    }

    fn records(&mut self, message: Records) -> Result<Option<Event>, Error> {
        let partition = unsigned(message.partition.into())? as u32;
        let next_offset = unsigned(message.next_offset)?;
        let end_offset = unsigned(message.end_offset)?;
        let position = self.position(partition)?;
        let wanted = position.next_offset..position.stop_offset;

        let mut records = Vec::with_capacity(message.records.len());
        for consumed in message.records {
            let offset = unsigned(consumed.offset)?;
            let record = consumed.record.unwrap_or_default();
            if wanted.contains(&offset) {
                records.push(ConsumedRecord { offset, record });
            }
        }
        for stored in message.batches {
            unpack(stored, &wanted, &mut records)?;
        }
        position.next_offset = position.next_offset.max(next_offset);
        position.end_offset = end_offset;
        Ok((!records.is_empty()).then_some(Event::Records {
            partition,
            records,
            next_offset,
            end_offset,
        }))
    }

    fn move_to(&mut self, positions: Vec<v1::PartitionPosition>) -> Result<(), Error> {
        for position in positions {
            let (partition, next_offset, end_offset) = unsigned_position(position)?;
            let position = self.position(partition)?;
            position.next_offset = position.next_offset.max(next_offset);
            position.end_offset = end_offset;
        }
        Ok(())
    }

    fn position(&mut self, partition: u32) -> Result<&mut Position, Error> {
        self.partitions.get_mut(&partition).ok_or(Error::Protocol {
            detail: "a message names a partition that the stream did not start with",
        })
    }
}

/// Unpacks a batch and adds those of its records that are wanted.
fn unpack(
    stored: StoredBatch,
    wanted: &std::ops::Range<u64>,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), Error> {
    let base_offset = unsigned(stored.base_offset)?;
    let batch = stored.batch.ok_or(Error::Protocol {
        detail: "a stored batch lacks its batch",
    })?;
    let unpacked = batch::unpack(&batch, limits::DECOMPRESSED_BYTES_MAX)?;
    records.reserve(unpacked.len());
    for (offset, mut record) in (base_offset..).zip(unpacked) {
        if !wanted.contains(&offset) {
            continue;
        }
        if record.timestamp_ms == 0 {
            record.timestamp_ms = stored.append_time_ms;
        }
        records.push(ConsumedRecord { offset, record });
    }
    Ok(())
}

fn unsigned_position(position: v1::PartitionPosition) -> Result<(u32, u64, u64), Error> {
    Ok((
        unsigned(position.partition.into())? as u32,
        unsigned(position.next_offset)?,
        unsigned(position.end_offset)?,
    ))
}

fn unsigned(value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::Protocol {
        detail: "an offset or a partition is negative",
    })
}

#[cfg(test)]
mod tests;
