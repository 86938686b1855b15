//! The outbox against a model broker that loses, repeats and delays appends.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const AGE: Duration = Duration::from_secs(60);

fn sealed(id: u64, partition: u32, born: Instant) -> Sealed {
    Sealed {
        id,
        partition,
        records: Bytes::from_static(b"records"),
        record_count: 1,
        born,
        completion: None,
    }
}

fn admit(outbox: &mut Outbox, id: u64, partition: u32, now: Instant) {
    let batch = RecordBatch {
        // Stands for the content, so that the model can tell batches apart.
        crc32c: id as u32,
        ..RecordBatch::default()
    };
    outbox.admit(sealed(id, partition, now), batch, now);
}

fn drain(outbox: &mut Outbox, window: usize, now: Instant) -> Vec<Append> {
    std::iter::from_fn(|| outbox.next(window, now)).collect()
}

fn ids(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.sealed.id).collect()
}

#[test]
fn sequences_count_by_partition_and_stay_when_sent_again() {
    let now = Instant::now();
    let mut outbox = Outbox::new(0);
    for (id, partition) in [(0, 7), (1, 8), (2, 7)] {
        admit(&mut outbox, id, partition, now);
    }
    let numbered = |appends: Vec<Append>| -> Vec<_> {
        let fields = appends.iter().map(|a| (a.partition, a.sequence));
        fields.collect()
    };
    let expected = [(Some(7), 0), (Some(8), 0), (Some(7), 1)];
    assert_eq!(numbered(drain(&mut outbox, 9, now)), expected);
    assert_eq!(numbered(drain(&mut outbox, 9, now)), []);
    outbox.restart();
    assert_eq!(numbered(drain(&mut outbox, 9, now)), expected);
}

#[test]
fn the_window_limits_what_is_without_an_ack() {
    let now = Instant::now();
    let mut outbox = Outbox::new(0);
    (0..5).for_each(|id| admit(&mut outbox, id, 0, now));
    let sent = drain(&mut outbox, 2, now);
    assert_eq!(sent.len(), 2);
    assert!(outbox.settle(sent[1].correlation_id).is_some());
    assert_eq!(drain(&mut outbox, 2, now).len(), 1);
}

#[test]
fn answers_of_an_older_stream_are_not_taken_for_those_of_this_one() {
    let now = Instant::now();
    let mut outbox = Outbox::new(0);
    admit(&mut outbox, 0, 0, now);
    let old = drain(&mut outbox, 1, now)[0].correlation_id;
    outbox.restart();
    assert!(outbox.find(old).is_none());
    let new = drain(&mut outbox, 1, now)[0].correlation_id;
    assert!(outbox.settle(old).is_none());
    assert!(outbox.settle(new).is_some());
    assert!(outbox.settle(new).is_none());
}

#[test]
fn only_an_earlier_batch_of_the_partition_is_a_predecessor() {
    let now = Instant::now();
    let mut outbox = Outbox::new(0);
    for (id, partition) in [(0, 1), (1, 2), (2, 1)] {
        admit(&mut outbox, id, partition, now);
    }
    let sent = drain(&mut outbox, 9, now);
    let has = |outbox: &Outbox| -> Vec<bool> {
        let answers = sent
            .iter()
            .map(|a| outbox.has_predecessor(a.correlation_id));
        answers.collect()
    };
    assert_eq!(has(&outbox), [false, false, true]);
    outbox.settle(sent[0].correlation_id);
    assert_eq!(has(&outbox), [false, false, false]);
}

#[test]
fn abandoning_gives_up_what_was_sent_and_renumbers_the_rest() {
    let now = Instant::now();
    let mut outbox = Outbox::new(3);
    (0..4).for_each(|id| admit(&mut outbox, id, 0, now));
    drain(&mut outbox, 2, now);
    assert_eq!(ids(&outbox.abandon(AGE, now)), [0, 1]);
    assert_eq!(outbox.epoch(), 4);
    let sent = drain(&mut outbox, 9, now);
    let sequences: Vec<_> = sent
        .iter()
        .map(|a| (a.batch.as_ref().map(|b| b.crc32c), a.sequence))
        .collect();
    assert_eq!(sequences, [(Some(2), 0), (Some(3), 1)]);
}

#[test]
fn expired_batches_are_taken_wherever_they_are() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut outbox = Outbox::new(0);
    admit(&mut outbox, 0, 0, later);
    admit(&mut outbox, 1, 0, now);
    admit(&mut outbox, 2, 0, later);
    let sent = drain(&mut outbox, 2, now);
    assert_eq!(outbox.oldest_born(), Some(now));
    assert_eq!(ids(&outbox.take_expired(AGE, now + AGE)), [1]);
    assert!(outbox.find(sent[0].correlation_id).is_some());
    assert_eq!(drain(&mut outbox, 2, now).len(), 1);
}

#[test]
fn a_partition_that_was_idle_for_long_is_stale() {
    let now = Instant::now();
    let mut outbox = Outbox::new(0);
    assert!(!outbox.is_stale(0, now));
    admit(&mut outbox, 0, 0, now);
    assert!(!outbox.is_stale(0, now + SESSION_IDLE_MAX));
    assert!(outbox.is_stale(0, now + SESSION_IDLE_MAX + AGE));
    outbox.take_all();
    outbox.abandon(AGE, now);
    assert!(!outbox.is_stale(0, now + SESSION_IDLE_MAX + AGE));
}

/// What the contract says of a broker: per partition a log, and per partition the session's epoch and next sequence.
#[derive(Default)]
struct Broker {
    logs: BTreeMap<i32, Vec<u32>>,
    sessions: BTreeMap<i32, (i32, i64)>,
}

impl Broker {
    /// Whether the append is in the log now.
    fn append(&mut self, epoch: i32, append: &Append) -> bool {
        let partition = append.partition.expect("always given");
        let session = self.sessions.entry(partition).or_insert((epoch, 0));
        if epoch > session.0 {
            *session = (epoch, 0);
        }
        if epoch < session.0 || append.sequence > session.1 {
            return false;
        }
        if append.sequence == session.1 {
            session.1 += 1;
            let content = append.batch.as_ref().expect("always given").crc32c;
            self.logs.entry(partition).or_default().push(content);
        }
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u32),
    Send,
    /// The broker gets the oldest append on its way, and its ack arrives or not.
    Arrive {
        acknowledged: bool,
    },
    /// The stream breaks; what is on its way may still arrive, late.
    Break,
    /// A batch fails for good before it is written.
    Fail,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..3).prop_map(Step::Admit),
        4 => Just(Step::Send),
        5 => any::<bool>().prop_map(|acknowledged| Step::Arrive { acknowledged }),
        1 => Just(Step::Break),
        1 => Just(Step::Fail),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #[test]
    fn acknowledged_batches_are_written_once_and_in_order(steps in steps()) {
        let now = Instant::now();
        let mut broker = Broker::default();
        let mut outbox = Outbox::new(0);
        let mut on_the_way: VecDeque<(i32, Append)> = VecDeque::new();
        let mut admitted = 0;
        let mut acknowledged: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        // The steps, and then all that is left.
        let rest = std::iter::repeat_n([Step::Send, Step::Arrive { acknowledged: true }], 300);
        let end = std::iter::once(Step::Break).chain(rest.flatten());
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Admit(partition) => {
                    admit(&mut outbox, admitted, partition, now);
                    admitted += 1;
                }
                Step::Send => if let Some(append) = outbox.next(4, now) {
                    on_the_way.push_back((outbox.epoch(), append));
                },
                Step::Arrive { acknowledged: arrives } => if let Some((epoch, append)) = on_the_way.pop_front() {
                    let written = broker.append(epoch, &append);
                    if outbox.find(append.correlation_id).is_none() {
                        // Late, from a stream that is gone: nobody hears the answer.
                        continue;
                    }
                    // The present stream is in order, so there is nothing to refuse.
                    prop_assert!(written);
                    if !arrives {
                        outbox.restart();
                    } else if let Some(entry) = outbox.settle(append.correlation_id) {
                        let partition = append.partition.expect("always given");
                        acknowledged.entry(partition).or_default().push(entry.sealed.id as u32);
                    }
                },
                Step::Break => outbox.restart(),
                Step::Fail => if let Some((_, append)) = on_the_way.pop_front()
                    && outbox.settle(append.correlation_id).is_some()
                {
                    outbox.abandon(AGE, now);
                },
            }
        }
        prop_assert!(outbox.is_empty());
        for (partition, log) in &broker.logs {
            let mut once = log.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(&once, log, "in order and once");
            let acknowledged = acknowledged.get(partition).cloned().unwrap_or_default();
            prop_assert!(acknowledged.iter().all(|id| log.contains(id)));
        }
    }
}
