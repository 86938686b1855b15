//! Tables of messages and what they mean.

use bytes::Bytes;
use kelda_proto::v1::consume_response::{End, Gap, Heartbeat};
use kelda_proto::v1::{Compression, Record};

use super::*;

fn record(value: u64, timestamp_ms: i64) -> Record {
    Record {
        value: Some(Bytes::from(value.to_string())),
        timestamp_ms,
        ..Record::default()
    }
}

fn at(partition: i32, next_offset: i64, end_offset: i64) -> v1::PartitionPosition {
    v1::PartitionPosition {
        partition,
        next_offset,
        end_offset,
    }
}

fn started(follow: bool, positions: Vec<v1::PartitionPosition>) -> Progress {
    let mut progress = Progress::new(follow);
    let heartbeat_interval_ms = 100;
    progress
        .start(Started {
            positions,
            heartbeat_interval_ms,
        })
        .expect("valid positions");
    progress
}

/// The batch with the records `[base, base + count)`.
fn batches(partition: i32, base: u64, count: u64) -> ConsumeResponse {
    let records: Vec<Record> = (base..base + count).map(|value| record(value, 0)).collect();
    let batch = batch::pack(&records, Compression::Lz4).expect("valid");
    let stored = StoredBatch {
        base_offset: base.cast_signed(),
        append_time_ms: 77,
        batch: Some(batch),
    };
    message(Message::Records(Records {
        partition,
        records: Vec::new(),
        batches: vec![stored],
        next_offset: (base + count).cast_signed(),
        end_offset: 100,
    }))
}

fn message(event: Message) -> ConsumeResponse {
    ConsumeResponse { event: Some(event) }
}

fn offsets(event: Result<Option<Event>, Error>) -> Vec<u64> {
    match event {
        Ok(Some(Event::Records { records, .. })) => records.iter().map(|r| r.offset).collect(),
        Ok(None) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

fn starts(request: &ConsumeRequest) -> Vec<(i32, i64)> {
    let starts = request.partitions.iter().map(|partition| {
        let position = partition.start.and_then(|start| start.position);
        match position {
            Some(Start::Offset(offset)) => (partition.partition, offset),
            other => panic!("{other:?}"),
        }
    });
    starts.collect()
}

#[test]
fn records_below_the_start_and_repeated_ones_are_skipped() {
    let mut progress = started(true, vec![at(0, 7, 100)]);
    assert_eq!(offsets(progress.take(batches(0, 5, 4))), [7, 8]);
    assert!(offsets(progress.take(batches(0, 5, 4))).is_empty());
    assert_eq!(offsets(progress.take(batches(0, 5, 6))), [9, 10]);
    assert_eq!(progress.positions()[0].next_offset, 11);
}

#[test]
fn the_append_time_is_filled_in() {
    let mut progress = started(true, vec![at(0, 0, 100)]);
    let event = progress.take(batches(0, 0, 1)).expect("valid");
    let Some(Event::Records { records, .. }) = event else {
        panic!("{event:?}");
    };
    assert_eq!(records[0].record, record(0, 77));
}

#[test]
fn a_resumed_stream_starts_where_the_last_one_broke() {
    let first = ConsumeRequest {
        topic: "t".to_owned(),
        follow: true,
        ..ConsumeRequest::default()
    };
    assert_eq!(Progress::new(true).resume(&first), first);
    let mut progress = started(true, vec![at(0, 7, 100), at(1, 3, 3)]);
    progress.take(batches(0, 5, 4)).expect("valid");
    let beat = Message::Heartbeat(Heartbeat {
        positions: vec![at(0, 9, 100), at(1, 5, 6)],
    });
    progress.take(message(beat)).expect("valid");
    let resumed = progress.resume(&first);
    assert_eq!(starts(&resumed), [(0, 9), (1, 5)]);
    assert!(resumed.follow && resumed.topic == "t");
}

#[test]
fn a_gap_moves_the_reader_either_way() {
    for to_offset in [20, 2] {
        let mut progress = started(true, vec![at(0, 7, 100)]);
        let gap = Message::Gap(Gap {
            partition: 0,
            from_offset: 7,
            to_offset,
        });
        assert!(matches!(
            progress.take(message(gap)),
            Ok(Some(Event::Gap { .. }))
        ));
        let base = to_offset.cast_unsigned();
        assert_eq!(offsets(progress.take(batches(0, base, 1))), [base]);
    }
}

#[test]
fn without_following_a_resumed_stream_keeps_the_first_end() {
    let first = ConsumeRequest::default();
    let mut progress = started(false, vec![at(0, 0, 4), at(1, 2, 2)]);
    assert_eq!(progress.ended(), None);
    assert_eq!(offsets(progress.take(batches(0, 0, 3))), [0, 1, 2]);
    assert_eq!(starts(&progress.resume(&first)), [(0, 3)]);
    // The next stream ends later, because more was written.
    let again = Started {
        positions: vec![at(0, 3, 9)],
        heartbeat_interval_ms: 100,
    };
    progress.start(again).expect("valid");
    assert_eq!(offsets(progress.take(batches(0, 3, 6))), [3]);
    assert!(matches!(progress.ended(), Some(Event::End { .. })));
}

#[test]
fn the_end_carries_all_positions() {
    let mut progress = started(false, vec![at(0, 0, 4), at(1, 2, 2)]);
    let end = Message::End(End {
        positions: vec![at(0, 4, 4)],
    });
    let Ok(Some(Event::End { positions })) = progress.take(message(end)) else {
        panic!("no end");
    };
    let next: Vec<_> = positions.iter().map(|p| p.next_offset).collect();
    assert_eq!(next, [4, 2]);
}

#[test]
fn broken_messages_are_errors() {
    let mut progress = started(true, vec![at(0, 0, 4)]);
    let mut damaged = batches(0, 0, 3);
    if let Some(Message::Records(records)) = &mut damaged.event
        && let Some(batch) = &mut records.batches[0].batch
    {
        batch.crc32c ^= 1;
    }
    assert!(matches!(progress.take(damaged), Err(Error::Batch(_))));
    let elsewhere = progress.take(batches(5, 0, 3));
    assert!(matches!(elsewhere, Err(Error::Protocol { .. })));
    let negative = Message::Heartbeat(Heartbeat {
        positions: vec![at(0, -1, 4)],
    });
    let negative = progress.take(message(negative));
    assert!(matches!(negative, Err(Error::Protocol { .. })));
    assert_eq!(progress.positions()[0].next_offset, 0);
}
