//! Tables for when batches are sealed, and a property over random use.

use std::collections::HashMap;

use futures::FutureExt;
use kelda_proto::v1::{Record, RecordSet};
use proptest::prelude::*;
use prost::Message;

use super::super::delivery::RecordPosition;
use super::*;

const LINGER: Duration = Duration::from_millis(10);

fn bounds() -> Bounds {
    Bounds {
        batch_bytes: 100,
        batch_records: 4,
        linger: LINGER,
        batches_max: 2,
        buffer_bytes_max: 400,
    }
}

fn record(key: Option<u8>, value_bytes: usize) -> Record {
    Record {
        key: key.map(|key| Bytes::from(vec![key])),
        value: Some(Bytes::from(vec![b'x'; value_bytes])),
        ..Record::default()
    }
}

fn push(accumulator: &mut Accumulator, record: &Record, now: Instant) -> Option<Taken> {
    accumulator.push(record, record.encoded_len(), false, now)
}

/// Sealed batches as partition and number of records.
fn take_all(accumulator: &mut Accumulator) -> Vec<(u32, u32)> {
    std::iter::from_fn(|| accumulator.take_sealed())
        .map(|sealed| (sealed.partition, sealed.record_count))
        .collect()
}

#[test]
fn a_batch_is_sealed_when_it_is_full_or_old() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 1, Some(0));
    for _ in 0..4 {
        assert!(push(&mut accumulator, &record(None, 1), now).is_some());
    }
    assert_eq!(take_all(&mut accumulator), [(0, 4)]);
    push(&mut accumulator, &record(None, 1), now);
    assert_eq!(accumulator.next_due(), Some(now + LINGER));
    accumulator.seal_due(now + LINGER - Duration::from_micros(1));
    assert_eq!(take_all(&mut accumulator), []);
    accumulator.seal_due(now + LINGER);
    assert_eq!(take_all(&mut accumulator), [(0, 1)]);
    assert_eq!(accumulator.next_due(), None);
}

#[test]
fn a_batch_that_the_next_record_would_overfill_is_sealed_before_it() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 1, Some(0));
    push(&mut accumulator, &record(None, 60), now);
    push(&mut accumulator, &record(None, 60), now);
    assert_eq!(take_all(&mut accumulator), [(0, 1)]);
    // Larger than a full batch: a batch of its own.
    push(&mut accumulator, &record(None, 200), now);
    assert_eq!(take_all(&mut accumulator), [(0, 1)]);
}

#[test]
fn without_room_records_are_refused_until_a_result() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 1, Some(0));
    for _ in 0..12 {
        assert!(push(&mut accumulator, &record(None, 1), now).is_some());
    }
    assert!(push(&mut accumulator, &record(None, 1), now).is_none());
    accumulator.seal_due(now + LINGER);
    assert_eq!(accumulator.next_due(), None);
    let sealed = accumulator.take_sealed().expect("a full batch");
    accumulator.resolve(sealed.id, sealed.records.len());
    assert!(push(&mut accumulator, &record(None, 1), now).is_some());
    assert!(push(&mut accumulator, &record(None, 1), now).is_some());
}

#[test]
fn a_full_buffer_makes_open_batches_due() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 100, None);
    let mut keys = 0..;
    while push(&mut accumulator, &record(keys.next(), 40), now).is_some() {}
    accumulator.seal_due(now);
    assert_eq!(take_all(&mut accumulator).len(), 2);
}

#[test]
fn pressing_makes_what_is_open_due_and_not_what_comes_later() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 1, Some(0));
    push(&mut accumulator, &record(None, 1), now);
    let pressed = accumulator.press();
    accumulator.seal_due(now);
    let sealed = accumulator.take_sealed().expect("pressed");
    push(&mut accumulator, &record(None, 1), now);
    accumulator.seal_due(now);
    assert_eq!(take_all(&mut accumulator), []);
    assert!(!accumulator.resolved_below(pressed));
    accumulator.resolve(sealed.id, sealed.records.len());
    assert!(accumulator.resolved_below(pressed));
    assert!(!accumulator.is_empty());
}

#[test]
fn records_without_a_key_change_partition_with_every_batch() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 3, None);
    let mut partitions = Vec::new();
    for _ in 0..3 {
        for _ in 0..4 {
            push(&mut accumulator, &record(None, 1), now);
        }
        let sealed = accumulator.take_sealed().expect("a full batch");
        accumulator.resolve(sealed.id, sealed.records.len());
        partitions.push(sealed.partition);
    }
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2]);
}

#[test]
fn a_delivery_counts_from_the_first_record_of_its_batch() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(bounds(), 1, Some(0));
    let one = record(None, 1);
    push(&mut accumulator, &one, now);
    let taken = accumulator.push(&one, one.encoded_len(), true, now);
    let delivery = taken.and_then(|taken| taken.delivery).expect("asked for");
    accumulator.seal_all();
    let completion = accumulator
        .take_sealed()
        .and_then(|sealed| sealed.completion);
    let first = RecordPosition {
        partition: 0,
        offset: Some(40),
    };
    completion.expect("asked for").complete(Ok(first));
    let offset = Some(41);
    let expected = RecordPosition { offset, ..first };
    assert_eq!(delivery.now_or_never(), Some(Ok(expected)));
}

#[derive(Clone, Debug)]
enum Step {
    Push { key: Option<u8>, value_bytes: usize },
    Wait(u64),
    Press,
    Resolve,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (prop::option::of(0_u8..6), 0_usize..130)
        .prop_map(|(key, value_bytes)| Step::Push { key, value_bytes });
    let step = prop_oneof![
        8 => push,
        2 => (0_u64..15).prop_map(Step::Wait),
        1 => Just(Step::Press),
        3 => Just(Step::Resolve),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn every_record_is_in_one_batch_in_order_and_within_the_bounds(steps in steps()) {
        let bounds = bounds();
        let mut now = Instant::now();
        let mut accumulator = Accumulator::new(bounds, 4, None);
        let mut taken: HashMap<Option<u8>, Vec<i64>> = HashMap::new();
        let mut sealed_records: HashMap<Option<u8>, Vec<i64>> = HashMap::new();
        let mut waiting: VecDeque<(u64, usize)> = VecDeque::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Push { key, value_bytes } => {
                    number += 1;
                    let record = Record { timestamp_ms: number, ..record(key, value_bytes) };
                    if push(&mut accumulator, &record, now).is_some() {
                        taken.entry(key).or_default().push(number);
                    } else {
                        // Something will give a result, or the caller would wait for ever.
                        accumulator.seal_due(now);
                        prop_assert!(!waiting.is_empty() || accumulator.next_sealed_partition().is_some());
                    }
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Press => { accumulator.press(); }
                Step::Resolve => if let Some((id, bytes)) = waiting.pop_front() {
                    accumulator.resolve(id, bytes);
                },
            }
            accumulator.seal_due(now);
            while let Some(sealed) = accumulator.take_sealed() {
                let records = RecordSet::decode(sealed.records.clone()).expect("encoded here").records;
                prop_assert_eq!(records.len(), sealed.record_count as usize);
                prop_assert!(records.len() <= bounds.batch_records);
                prop_assert!(sealed.records.len() <= bounds.batch_bytes || records.len() == 1);
                waiting.push_back((sealed.id, sealed.records.len()));
                for record in records {
                    let key = record.key.map(|key| key[0]);
                    sealed_records.entry(key).or_default().push(record.timestamp_ms);
                }
            }
            prop_assert!(waiting.len() <= bounds.batches_max);
            prop_assert!(accumulator.buffered_bytes <= bounds.buffer_bytes_max);
        }
        accumulator.seal_all();
        while let Some(sealed) = accumulator.take_sealed() {
            waiting.push_back((sealed.id, sealed.records.len()));
            for record in RecordSet::decode(sealed.records).expect("encoded here").records {
                let key = record.key.map(|key| key[0]);
                sealed_records.entry(key).or_default().push(record.timestamp_ms);
            }
        }
        // Without a key there is no order to keep.
        for (key, numbers) in &mut sealed_records {
            if key.is_none() {
                numbers.sort_unstable();
            }
        }
        prop_assert_eq!(taken, sealed_records);
        for (id, bytes) in waiting {
            accumulator.resolve(id, bytes);
        }
        prop_assert!(accumulator.is_empty());
        prop_assert_eq!(accumulator.buffered_bytes, 0);
    }
}
