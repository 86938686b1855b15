//! What waits in front of a partition's group while its leader changes.

use std::time::Duration;

use kelda_proto::{batch, v1::Record};
use tokio::sync::Semaphore;

use super::*;
use crate::{
    consensus::Groups,
    peers::Peers,
    storage::{Config, Hooks, Storage},
    types::GroupId,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The one replica of a partition, in memory.
async fn partition() -> (Storage, PartitionGroup) {
    let storage = Storage::open(Config::in_memory(), Hooks::default()).expect("a new store opens");
    let peers = Peers::alone();
    let founders = [peers.node()];
    let groups = Groups::new(storage.clone(), peers);
    let group = groups.open_partition(GroupId(1), &founders).await;
    (storage, group.expect("a new group opens"))
}

fn pending() -> (Pending, Answer) {
    let (sender, answer) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1));
    let packed = batch::pack(&[Record::default()], Compression::Unspecified).expect("packed");
    let summary = batch::Summary {
        record_count: 1,
        max_timestamp_ms: 0,
        timestamp_missing: true,
        largest_record_bytes: packed.records.len(),
    };
    let pending = Pending {
        batch: Checked {
            compression: Compression::Unspecified,
            crc32c: packed.crc32c,
            records: packed.records,
            summary,
        },
        session: None,
        expected_offset: None,
        answer: sender,
        permit: Arc::new(room.try_acquire_owned().expect("there is room")),
        deadline: Instant::now() + PATIENCE,
        broker: None,
    };
    (pending, answer)
}

async fn answered(answer: Answer) -> Result<Placed, Failure> {
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    answered.expect("answered in time").expect("answered")
}

#[tokio::test]
async fn what_came_in_an_earlier_term_is_refused_and_does_not_overtake() {
    let (_storage, group) = partition().await;
    let now = group.group().term();
    let earlier = now - 1;
    let accumulator = Accumulator::new(group, ("orders".to_owned(), 0), Handle::current());
    // Between the two, another node may have led and taken later batches.
    let ((before, refused), (after, taken)) = (pending(), pending());
    accumulator.submit(before, earlier);
    let refused = answered(refused).await;
    assert!(
        matches!(
            refused,
            Err(Failure::Propose(ProposeError::NotLeader { .. }))
        ),
        "{refused:?}"
    );
    accumulator.submit(after, now);
    let taken = answered(taken).await.map(|placed| placed.base_offset);
    assert_eq!(taken, Ok(Offset(0)));
}

#[tokio::test]
async fn a_refusal_takes_along_what_waits_behind_it() {
    let (_storage, group) = partition().await;
    let inner = Inner {
        group,
        key: ("orders".to_owned(), 0),
        queue: Mutex::default(),
        more: Notify::new(),
    };
    let mut answers = Vec::new();
    for term in [3, 3, 4] {
        let (pending, answer) = pending();
        let mut queue = inner.queue();
        queue.bytes += pending.bytes();
        queue.waiting.push_back(Queued { pending, term });
        answers.push(answer);
    }
    let (first, answer) = pending();
    answers.push(answer);
    let mut refused = Refusals::default();
    let number = refused.next_number();
    let error = ProposeError::NotLeader { leader: None };
    refused.note(&inner, number, End::Refused(vec![first], error));
    refused.take().settle(&inner);
    let failed = answers.iter_mut().map(|answer| answer.try_recv().is_ok());
    assert_eq!(failed.collect::<Vec<_>>(), [true; 4]);
    assert!(inner.queue().take().is_none());
    assert_eq!(inner.queue().bytes, 0);
}
