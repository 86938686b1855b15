//! What becomes of a request's batches when the node that was asked takes some of them and not others.

use std::{sync::Arc, time::Duration};

use kelda_proto::{
    batch::Summary,
    internal::v1::{SessionStamp, forward_response},
};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::broker::{accumulator::Answer, validate::Checked};

fn pending(session: Option<SessionStamp>) -> (Pending, Answer) {
    let (sender, answer) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1));
    let pending = Pending {
        batch: Checked {
            compression: v1::Compression::Unspecified,
            crc32c: 0,
            records: bytes::Bytes::new(),
            summary: Summary {
                record_count: 1,
                max_timestamp_ms: 0,
                timestamp_missing: true,
                largest_record_bytes: 0,
            },
        },
        session,
        expected_offset: None,
        answer: sender,
        permit: Arc::new(room.try_acquire_owned().expect("there is room")),
        deadline: Instant::now() + Duration::from_secs(60),
        broker: None,
    };
    (pending, answer)
}

fn stamp(id: &str, sequence: i64) -> Option<SessionStamp> {
    Some(SessionStamp {
        id: id.to_owned(),
        epoch: 0,
        sequence,
    })
}

fn produced(base_offset: i64) -> Outcome {
    Outcome::Produced(v1::ProduceResponse {
        partitions: vec![v1::PartitionAck {
            base_offset,
            record_count: 1,
            ..v1::PartitionAck::default()
        }],
        acks: v1::Acks::Quorum.into(),
    })
}

fn refused(reason: ErrorReason) -> Outcome {
    Outcome::Error(v1::Error {
        reason: reason.into(),
        ..v1::Error::default()
    })
}

/// Settles batches of these sessions with these outcomes. Returns which of them are to be tried again, in order, and
/// the answers of all.
fn settled(
    sessions: Vec<Option<SessionStamp>>,
    outcomes: Vec<Outcome>,
) -> (Vec<usize>, Vec<Answer>) {
    let (mut batches, answers): (VecDeque<_>, Vec<_>) = sessions.into_iter().map(pending).unzip();
    // Told apart by their deadlines.
    let first = batches[0].deadline;
    let after = |index: usize| first + Duration::from_secs(index as u64);
    for (index, pending) in batches.iter_mut().enumerate() {
        pending.deadline = after(index);
    }
    let outcomes = outcomes.into_iter().map(Some);
    let outcomes = outcomes.map(|outcome| forward_response::Outcome { outcome });
    let answer = ForwardResponse {
        outcomes: outcomes.collect(),
    };
    settle(&mut batches, answer);
    let index = |pending: &Pending| (0..).find(|index| after(*index) == pending.deadline);
    let again = batches.iter().filter_map(index).collect();
    (again, answers)
}

fn offset_of(answer: &mut Answer) -> Option<u64> {
    let placed = answer.try_recv().ok()?.ok()?;
    Some(placed.base_offset.0)
}

fn reason_of(answer: &mut Answer) -> Option<ErrorReason> {
    match answer.try_recv().ok()?.err()? {
        Failure::Broker(error) => match *error {
            Error::Remote(remote) => Some(remote.reason()),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn what_the_node_does_not_lead_is_tried_again_in_order() {
    let refusal = || refused(ErrorReason::NotLeader);
    let outcomes = vec![produced(7), refusal(), refusal()];
    let (again, mut answers) = settled(vec![None, None, None], outcomes);
    assert_eq!(again, [1, 2]);
    assert_eq!(offset_of(&mut answers[0]), Some(7));
}

#[test]
fn a_refused_batch_is_not_sent_again_behind_one_that_was_taken() {
    let refusal = || refused(ErrorReason::NotLeader);
    let outcomes = vec![refusal(), produced(7), refusal()];
    let (again, mut answers) = settled(vec![None, None, None], outcomes);
    assert_eq!(again, [2]);
    assert_eq!(reason_of(&mut answers[0]), Some(ErrorReason::NotLeader));
    assert_eq!(offset_of(&mut answers[1]), Some(7));
}

#[test]
fn a_refused_batch_is_not_sent_again_behind_one_that_may_have_been_taken() {
    let outcomes = vec![
        refused(ErrorReason::NotLeader),
        refused(ErrorReason::NoLeader),
    ];
    let (again, mut answers) = settled(vec![None, None], outcomes);
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(reason_of(&mut answers[0]), Some(ErrorReason::NotLeader));
    assert_eq!(reason_of(&mut answers[1]), Some(ErrorReason::NoLeader));
}

#[test]
fn batches_of_sessions_and_those_without_do_not_stand_in_each_others_way() {
    let refusal = || refused(ErrorReason::NotLeader);
    let outcomes = vec![refusal(), refusal(), produced(7), produced(8)];
    let sessions = vec![stamp("a", 0), None, stamp("b", 0), None];
    let (again, mut answers) = settled(sessions, outcomes);
    assert_eq!(again, [0], "its sequence keeps its place");
    assert_eq!(reason_of(&mut answers[1]), Some(ErrorReason::NotLeader));
}

#[test]
fn what_its_session_refuses_behind_a_batch_that_is_tried_again_is_tried_again_too() {
    let gap = || refused(ErrorReason::SequenceOutOfOrder);
    let outcomes = vec![refused(ErrorReason::NotLeader), gap(), gap()];
    let sessions = vec![stamp("a", 0), stamp("a", 1), stamp("b", 1)];
    let (again, mut answers) = settled(sessions, outcomes);
    assert_eq!(again, [0, 1]);
    let gap = Some(ErrorReason::SequenceOutOfOrder);
    assert_eq!(reason_of(&mut answers[2]), gap, "of another session");
}
