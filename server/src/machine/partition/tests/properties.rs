//! Properties over random histories.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use prost::Message;

use super::model::Model;
use super::*;

/// A batch as the producers of a history plan it: relative to what the partition holds by then.
#[derive(Clone, Debug)]
struct Plan {
    record_count: u32,
    bytes: u64,
    max_timestamp_ms: i64,
    session: Option<(&'static str, i32, i64)>,
    expected: Option<i64>,
}

/// An entry of a history.
#[derive(Clone, Debug)]
enum Step {
    Append { clock_ms: i64, plans: Vec<Plan> },
    Trim { behind_end: i64 },
}

fn plan() -> impl Strategy<Value = Plan> {
    let session = (
        prop_oneof![9 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("")],
        prop_oneof![30 => Just(0), 1 => -1..3],
        prop_oneof![20 => Just(0), 3 => -5..3_i64, 1 => -40..0_i64],
    );
    (
        prop_oneof![1 => Just(0_u32), 20 => 1..5_u32],
        0..1000_u64,
        -10..5000_i64,
        weighted(0.8, session),
        weighted(0.2, prop_oneof![4 => Just(0), 1 => -3..3_i64]),
    )
        .prop_map(
            |(record_count, bytes, max_timestamp_ms, session, expected)| Plan {
                record_count,
                bytes,
                max_timestamp_ms,
                session,
                expected,
            },
        )
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let clock = prop_oneof![20 => -50..1000_i64, 1 => 80_000_000..90_000_000_i64];
    let step = prop_oneof![
        9 => (clock, vec(plan(), 0..6))
            .prop_map(|(clock_ms, plans)| Step::Append { clock_ms, plans }),
        1 => (-5..20_i64).prop_map(|behind_end| Step::Trim { behind_end }),
    ];
    vec(step, 1..60)
}

/// Turns a history into commands while the model and the partition run beside each other.
#[derive(Default)]
struct Run {
    model: Model,
    partition: Partition,
    clock_ms: i64,
    commands: Vec<(LogIndex, PartitionCommand, Vec<u64>)>,
    effects: Vec<Effects>,
}

impl Run {
    fn of(history: Vec<Step>) -> Result<Self, TestCaseError> {
        let mut run = Self::default();
        for (index, step) in (1..).zip(history) {
            match step {
                Step::Append { clock_ms, plans } => {
                    run.append(LogIndex(index), clock_ms, &plans)?;
                }
                Step::Trim { behind_end } => {
                    let end = run.model.next_offset() as i64;
                    let trim = trim_command(end - behind_end);
                    run.apply(LogIndex(index), trim, Vec::new());
                }
            }
        }
        Ok(run)
    }

    fn apply(&mut self, index: LogIndex, command: PartitionCommand, bytes: Vec<u64>) -> Effects {
        let effects = self.partition.apply(index, &command, &bytes);
        self.commands.push((index, command, bytes));
        self.effects.push(effects.clone());
        effects
    }

    fn append(&mut self, index: LogIndex, ms: i64, plans: &[Plan]) -> Result<(), TestCaseError> {
        self.clock_ms += ms;
        let now_ms = self.model.now(self.clock_ms);
        let rows_before = self.model.rows.len();
        let mut outcomes = Vec::new();
        let mut batches = Vec::new();
        for (part, plan) in (0..).zip(plans) {
            let next_offset = self.model.next_offset() as i64;
            let stamp = plan.session.map(|(id, epoch, delta)| SessionStamp {
                id: id.to_owned(),
                epoch,
                sequence: self.model.next_sequence(id, epoch) + delta,
            });
            let batch = BatchHeader {
                record_count: plan.record_count,
                max_timestamp_ms: plan.max_timestamp_ms,
                session: stamp,
                expected_offset: plan.expected.map(|delta| next_offset + delta),
                ..BatchHeader::default()
            };
            let row = OffsetRow {
                base_offset: Offset(0),
                record_count: plan.record_count,
                index,
                part,
                append_time_ms: now_ms,
                max_timestamp_ms: plan.max_timestamp_ms,
                end_bytes: plan.bytes,
            };
            outcomes.push(self.model.append(&batch, row));
            batches.push(batch);
        }
        let bytes = plans.iter().map(|plan| plan.bytes).collect();
        let effects = self.apply(index, command(self.clock_ms, batches), bytes);
        prop_assert_eq!(effects.outcomes, outcomes);
        prop_assert_eq!(&effects.rows, &self.model.rows[rows_before..]);
        prop_assert_eq!(self.partition.next_offset().0, self.model.next_offset());
        for id in ["a", "b", "c"] {
            let model = self.model.next_sequence(id, 0).checked_sub(1);
            let known = self.partition.last_sequence(id, 0).or(Some(-1));
            prop_assert_eq!(known, model);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_partition_does_what_the_model_does(history in history()) {
        Run::of(history)?;
    }

    #[test]
    fn applying_from_any_snapshot_is_the_same_as_applying_everything(history in history()) {
        let run = Run::of(history)?;
        let mut partition = Partition::new();
        for cut in 0..run.commands.len() {
            let stored = partition.snapshot().encode_to_vec();
            let stored = PartitionSnapshot::decode(&*stored).unwrap();
            let mut late = Partition::from_snapshot(stored).unwrap();
            for ((index, command, bytes), effects) in
                run.commands.iter().zip(&run.effects).skip(cut)
            {
                prop_assert_eq!(&late.apply(*index, command, bytes), effects);
            }
            prop_assert_eq!(&late, &run.partition);
            let (index, command, bytes) = &run.commands[cut];
            partition.apply(*index, command, bytes);
        }
    }

    #[test]
    fn the_rows_that_effects_name_are_the_whole_state(history in history()) {
        let run = Run::of(history)?;
        let mut partition = Partition::new();
        let mut stored = BTreeMap::new();
        for (index, command, bytes) in &run.commands {
            for (id, session) in partition.apply(*index, command, bytes).sessions {
                match session {
                    Some(session) => stored.insert(id, session),
                    None => stored.remove(&id),
                };
            }
            let restored = Partition::restore(partition.state(), stored.clone());
            prop_assert_eq!(restored.as_ref(), Ok(&partition));
        }
    }

    #[test]
    fn any_command_on_any_state_is_applied_without_a_panic(
        state in (any_i64(), any_i64(), any_i64(), any_i64(), any::<u64>()),
        entries in vec((any_i64(), vec((any_batch(), any::<u64>()), 0..4), any::<bool>()), 1..20),
    ) {
        let state = PartitionState {
            log_start_offset: state.0,
            next_offset: state.1,
            append_time_ms: state.2,
            max_timestamp_ms: state.3,
            end_bytes: state.4,
        };
        let mut partition = Partition::restore(state, []).unwrap_or_default();
        for (time_ms, batches, is_trim) in entries {
            let (batches, mut bytes): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
            let count = batches.len();
            if time_ms % 7 == 0 {
                bytes.pop();
            }
            let effects = if is_trim {
                partition.apply(LogIndex(u64::MAX), &trim_command(time_ms), &bytes)
            } else {
                let effects = partition.apply(LogIndex(0), &command(time_ms, batches), &bytes);
                prop_assert_eq!(effects.outcomes.len(), count);
                effects
            };
            prop_assert!(effects.rows.len() <= count);
            let restored = Partition::from_snapshot(partition.snapshot());
            prop_assert_eq!(restored.as_ref(), Ok(&partition));
        }
    }
}

fn any_i64() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), 0..9_i64]
}

fn any_batch() -> impl Strategy<Value = BatchHeader> {
    let stamp = ("[ab]?", -2..2, any_i64()).prop_map(|(id, epoch, sequence)| SessionStamp {
        id,
        epoch,
        sequence,
    });
    let count = prop_oneof![any::<u32>(), 0..3_u32];
    (
        any::<i32>(),
        count,
        any_i64(),
        proptest::option::of(stamp),
        weighted(0.2, any_i64()),
    )
        .prop_map(
            |(compression, record_count, max_timestamp_ms, session, expected_offset)| BatchHeader {
                compression,
                record_count,
                max_timestamp_ms,
                session,
                expected_offset,
            },
        )
}
