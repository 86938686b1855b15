//! Tables for each rule, and properties against a model that remembers everything.

mod model;
mod properties;

use kelda_proto::internal::v1::SessionStamp;
use kelda_proto::internal::v1::partition_command::Trim;
use kelda_proto::limits::SESSION_RECENT_MAX;

use super::*;
use crate::machine::sessions::{IDLE_MAX_MS, SESSIONS_MAX};

fn command(append_time_ms: i64, batches: Vec<BatchHeader>) -> PartitionCommand {
    PartitionCommand {
        command: Some(Command::Append(Append {
            append_time_ms,
            batches,
        })),
    }
}

fn trim_command(log_start_offset: i64) -> PartitionCommand {
    PartitionCommand {
        command: Some(Command::Trim(Trim { log_start_offset })),
    }
}

fn batch(record_count: u32) -> BatchHeader {
    BatchHeader {
        record_count,
        ..BatchHeader::default()
    }
}

fn stamped(id: &str, epoch: i32, sequence: i64) -> BatchHeader {
    BatchHeader {
        session: Some(SessionStamp {
            id: id.to_owned(),
            epoch,
            sequence,
        }),
        ..batch(1)
    }
}

/// Applies one batch of 10 bytes.
fn append(partition: &mut Partition, time_ms: i64, batch: BatchHeader) -> Outcome {
    let effects = partition.apply(LogIndex(1), &command(time_ms, vec![batch]), &[10]);
    effects.outcomes[0]
}

fn appended(base_offset: u64, append_time_ms: i64) -> Outcome {
    Outcome::Appended {
        base_offset: Offset(base_offset),
        append_time_ms,
    }
}

fn out_of_order(expected_sequence: i64) -> Outcome {
    Outcome::Rejected(Rejection::SequenceOutOfOrder { expected_sequence })
}

#[test]
fn batches_of_an_entry_get_consecutive_offsets_and_running_totals() {
    let mut partition = Partition::new();
    let mut second = batch(2);
    second.max_timestamp_ms = 50;
    let batches = vec![batch(3), second, batch(1)];
    let effects = partition.apply(LogIndex(7), &command(100, batches), &[30, 20, 10]);
    assert_eq!(
        effects.outcomes,
        [appended(0, 100), appended(3, 100), appended(5, 100)]
    );
    let row = |base_offset, record_count, part, max_timestamp_ms, end_bytes| OffsetRow {
        base_offset: Offset(base_offset),
        record_count,
        index: LogIndex(7),
        part,
        append_time_ms: 100,
        max_timestamp_ms,
        end_bytes,
    };
    assert_eq!(
        effects.rows,
        [
            row(0, 3, 0, 0, 30),
            row(3, 2, 1, 50, 50),
            row(5, 1, 2, 50, 60)
        ]
    );
    assert_eq!(partition.next_offset(), Offset(6));
    assert_eq!(partition.end_bytes(), 60);
}

#[test]
fn append_times_never_fall_when_a_new_leaders_clock_is_behind() {
    let mut partition = Partition::new();
    assert_eq!(append(&mut partition, 100, batch(1)), appended(0, 100));
    assert_eq!(append(&mut partition, 90, batch(1)), appended(1, 100));
    assert_eq!(append(&mut partition, -5, batch(1)), appended(2, 100));
    assert_eq!(append(&mut partition, 101, batch(1)), appended(3, 101));
}

#[test]
fn a_repeat_is_answered_with_its_first_offset_even_if_it_expected_one() {
    let mut partition = Partition::new();
    let mut first = stamped("a", 0, 0);
    first.expected_offset = Some(0);
    assert_eq!(append(&mut partition, 10, first.clone()), appended(0, 10));
    assert_eq!(append(&mut partition, 11, batch(4)), appended(1, 11));
    let duplicate = Outcome::Duplicate {
        base_offset: Offset(0),
        record_count: 1,
        append_time_ms: 10,
    };
    assert_eq!(append(&mut partition, 12, first), duplicate);
    assert_eq!(partition.next_offset(), Offset(5));
}

#[test]
fn an_unexpected_offset_is_refused_and_does_not_use_up_the_sequence() {
    let mut partition = Partition::new();
    let mut wrong = stamped("a", 0, 0);
    wrong.expected_offset = Some(1);
    let next_offset = Offset(0);
    assert_eq!(
        append(&mut partition, 10, wrong),
        Outcome::Rejected(Rejection::UnexpectedOffset { next_offset })
    );
    assert_eq!(partition.last_sequence("a", 0), None);
    assert_eq!(
        append(&mut partition, 10, stamped("a", 0, 0)),
        appended(0, 10)
    );
}

#[test]
fn sequences_start_at_zero_and_leave_no_gap() {
    let mut partition = Partition::new();
    assert_eq!(
        append(&mut partition, 1, stamped("a", 0, 1)),
        out_of_order(0)
    );
    let entry = command(
        1,
        vec![
            stamped("a", 0, 0),
            stamped("a", 0, 2),
            stamped("a", 0, 1),
            stamped("a", 0, 0),
        ],
    );
    let effects = partition.apply(LogIndex(1), &entry, &[1; 4]);
    let duplicate = Outcome::Duplicate {
        base_offset: Offset(0),
        record_count: 1,
        append_time_ms: 1,
    };
    assert_eq!(
        effects.outcomes,
        [appended(0, 1), out_of_order(1), appended(1, 1), duplicate]
    );
    assert_eq!(effects.sessions.len(), 1);
    assert_eq!(partition.last_sequence("a", 0), Some(1));
    assert_eq!(partition.last_sequence("a", 1), None);
}

#[test]
fn a_higher_epoch_starts_again_and_fences_the_lower() {
    let mut partition = Partition::new();
    append(&mut partition, 1, stamped("a", 3, 0));
    assert_eq!(
        append(&mut partition, 2, stamped("a", 4, 1)),
        out_of_order(0)
    );
    assert_eq!(
        append(&mut partition, 2, stamped("a", 3, 1)),
        appended(1, 2),
        "a refused append does not take the session over"
    );
    assert_eq!(
        append(&mut partition, 3, stamped("a", 4, 0)),
        appended(2, 3)
    );
    let current_epoch = 4;
    assert_eq!(
        append(&mut partition, 4, stamped("a", 3, 0)),
        Outcome::Rejected(Rejection::Fenced { current_epoch })
    );
}

#[test]
fn a_repeat_older_than_the_remembered_appends_is_known_but_not_its_offset() {
    let mut partition = Partition::new();
    let newest = SESSION_RECENT_MAX as i64;
    for sequence in 0..=newest {
        append(&mut partition, 1, stamped("a", 0, sequence));
    }
    assert!(matches!(
        append(&mut partition, 1, stamped("a", 0, 1)),
        Outcome::Duplicate {
            base_offset: Offset(1),
            ..
        }
    ));
    let last_sequence = newest;
    assert_eq!(
        append(&mut partition, 1, stamped("a", 0, 0)),
        Outcome::Rejected(Rejection::DuplicateForgotten { last_sequence })
    );
}

#[test]
fn a_session_is_forgotten_after_a_day_without_appends() {
    let mut partition = Partition::new();
    append(&mut partition, 0, stamped("a", 0, 0));
    append(&mut partition, 1, stamped("b", 0, 0));
    append(&mut partition, IDLE_MAX_MS, batch(1));
    assert_eq!(partition.last_sequence("a", 0), Some(0), "not yet");
    let effects = partition.apply(
        LogIndex(1),
        &command(IDLE_MAX_MS + 1, vec![batch(1)]),
        &[10],
    );
    assert_eq!(effects.sessions, [("a".to_owned(), None)]);
    assert_eq!(partition.last_sequence("a", 0), None);
    assert_eq!(partition.last_sequence("b", 0), Some(0));
}

#[test]
fn of_too_many_sessions_the_one_idle_longest_is_forgotten() {
    let mut partition = Partition::new();
    let id = |number: usize| format!("session {number:06}");
    let last = SESSIONS_MAX - 1;
    // Two share each append time, so that ties are decided too.
    for number in 0..SESSIONS_MAX {
        append(
            &mut partition,
            number as i64 / 2,
            stamped(&id(number), 0, 0),
        );
    }
    append(&mut partition, 0, stamped(&id(0), 0, 1));
    for (newcomer, victim) in [("x", id(1)), ("y", id(2)), ("z", id(3))] {
        let entry = command(0, vec![stamped(newcomer, 0, 0)]);
        let effects = partition.apply(LogIndex(1), &entry, &[10]);
        let ids: Vec<&str> = effects.sessions.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, [victim.as_str(), newcomer]);
        assert_eq!(effects.sessions[0].1, None);
    }
    assert_eq!(partition.snapshot().sessions.len(), SESSIONS_MAX);
    assert_eq!(partition.last_sequence(&id(0), 0), Some(1));
    assert_eq!(partition.last_sequence(&id(last), 0), Some(0));
    let restored = Partition::from_snapshot(partition.snapshot());
    assert_eq!(restored, Ok(partition));
}

#[test]
fn the_log_start_moves_forward_to_the_end_at_most() {
    let mut partition = Partition::new();
    append(&mut partition, 1, batch(10));
    for (trim, log_start, moved) in [
        (4, 4, true),
        (3, 4, false),
        (-1, 4, false),
        (i64::MIN, 4, false),
        (11, 10, true),
        (i64::MAX, 10, false),
    ] {
        let effects = partition.apply(LogIndex(1), &trim_command(trim), &[]);
        assert_eq!(effects.log_start_moved, moved, "trim to {trim}");
        assert_eq!(partition.log_start(), Offset(log_start), "trim to {trim}");
        assert_eq!(partition.next_offset(), Offset(10));
    }
}

#[test]
fn malformed_batches_change_nothing_and_do_not_hurt_their_neighbours() {
    let mut partition = Partition::new();
    let malformed = Outcome::Rejected(Rejection::Malformed);
    let entry = command(
        5,
        vec![
            batch(0),
            stamped("", 0, 0),
            stamped("a", 0, -1),
            stamped("a", 0, i64::MIN),
            batch(2),
        ],
    );
    let effects = partition.apply(LogIndex(1), &entry, &[1, 1, 1, u64::MAX, 1]);
    let expected = [malformed, malformed, malformed, malformed, appended(0, 5)];
    assert_eq!(effects.outcomes, expected);
    assert_eq!(effects.sessions, []);

    let before = partition.clone();
    let effects = partition.apply(LogIndex(2), &entry, &[1; 4]);
    assert_eq!(effects.outcomes, [malformed; 5], "a part is missing");
    assert_eq!(partition, before);
    let effects = partition.apply(LogIndex(3), &PartitionCommand { command: None }, &[1]);
    assert_eq!(effects, Effects::default());
}

#[test]
fn numbers_that_would_overflow_are_refused() {
    let state = PartitionState {
        next_offset: i64::MAX - 1,
        end_bytes: u64::MAX - 10,
        ..PartitionState::default()
    };
    let mut partition = Partition::restore(state, []).unwrap();
    let malformed = Outcome::Rejected(Rejection::Malformed);
    assert_eq!(append(&mut partition, 0, batch(2)), malformed);
    assert_eq!(
        append(&mut partition, 0, batch(1)),
        appended(i64::MAX as u64 - 1, 0)
    );
    assert_eq!(append(&mut partition, 0, batch(1)), malformed);
    assert_eq!(partition.end_bytes(), u64::MAX);
}

#[test]
fn damaged_state_is_refused() {
    let mut partition = Partition::new();
    append(&mut partition, 5, stamped("a", 0, 0));
    append(&mut partition, 6, stamped("a", 0, 1));
    let good = partition.snapshot();
    assert_eq!(Partition::from_snapshot(good.clone()), Ok(partition));

    type Damage = fn(&mut PartitionState, &mut SessionState);
    let damages: [Damage; 13] = [
        |state, _| state.next_offset = -1,
        |state, _| state.next_offset = 1,
        |state, _| state.log_start_offset = -1,
        |state, _| state.log_start_offset = 3,
        |state, _| state.append_time_ms = 5,
        |state, _| state.max_timestamp_ms = -1,
        |_, session| session.recent.clear(),
        |_, session| session.recent.reverse(),
        |_, session| session.recent[0].record_count = 0,
        |_, session| session.recent[0].base_offset = i64::MAX,
        |_, session| session.append_time_ms = 5,
        |_, session| session.last_sequence = 0,
        |_, session| session.last_sequence = i64::MIN,
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut state = good.state.unwrap();
        let mut session = good.sessions["a"].clone();
        damage(&mut state, &mut session);
        let restored = Partition::restore(state, [("a".to_owned(), session)]);
        assert!(restored.is_err(), "damage {number}: {restored:?}");
    }
    let session = &good.sessions["a"];
    let state = good.state.unwrap();
    for ids in [vec![""], vec!["a", "a"]] {
        let sessions = ids.iter().map(|id| ((*id).to_owned(), session.clone()));
        assert!(Partition::restore(state, sessions).is_err(), "{ids:?}");
    }
}
