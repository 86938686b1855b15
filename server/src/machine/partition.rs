//! The partition machine: gives offsets to appended batches, knows repeats, and moves the log's start.
//!
//! ```text
//!            log_start            next_offset
//!    forgotten   |   readable          |  next batch
//!   -------------+---------------------+------------->  offsets
//! ```
//!
//! A snapshot holds the whole state: whoever starts from one and applies the commands behind it ends in the same
//! state, with the same outcomes, as whoever applied all of them. Retention rests on that.

use std::collections::BTreeSet;
use std::sync::Arc;

use kelda_proto::internal::v1::partition_command::{Append, Command};
use kelda_proto::internal::v1::{
    BatchHeader, PartitionCommand, PartitionSnapshot, PartitionState, RecentAppend, SessionState,
};

use super::sessions::Sessions;
use super::{Invalid, ensure};
use crate::types::{LogIndex, Offset, OffsetRow};

/// State of a partition: everything that decides over the next append.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partition {
    /// No number in it is negative, and `log_start_offset <= next_offset`.
    state: PartitionState,
    sessions: Sessions,
}

/// What a command changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// What became of each batch of the command, in its order.
    pub outcomes: Vec<Outcome>,
    /// Where the accepted batches are, in ascending order.
    pub rows: Vec<OffsetRow>,
    /// Sessions that changed, by id, each at most once; `None` was forgotten.
    pub sessions: Vec<(String, Option<SessionState>)>,
    /// Whether the log's start is another one than before.
    pub log_start_moved: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was appended.
    Appended {
        /// Offset of its first record.
        base_offset: Offset,
        /// When it was appended; never less than that of the batch before it.
        append_time_ms: i64,
    },
    /// It had been appended before, and nothing was now.
    Duplicate {
        /// Offset that its first record got then.
        base_offset: Offset,
        /// Number of records that were appended then.
        record_count: u32,
        /// When it was appended.
        append_time_ms: i64,
    },
    /// It was not appended and changed nothing.
    Rejected(Rejection),
}

/// Why a batch was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The batch expected another offset.
    #[error("the next offset is {next_offset}: read what came in between, then decide")]
    UnexpectedOffset {
        /// Offset that the next record gets.
        next_offset: Offset,
    },
    /// The session was taken over.
    #[error("a producer with epoch {current_epoch} took this session over: stop")]
    Fenced {
        /// Epoch of the session now.
        current_epoch: i32,
    },
    /// An append of the session is missing before this one.
    #[error("the session's next sequence is {expected_sequence}: send the missing appends first")]
    SequenceOutOfOrder {
        /// Sequence that the session must send next; 0 of a session that is not known, or no longer.
        expected_sequence: i64,
    },
    /// A repeat older than the appends remembered: it is known to be appended, but no longer where.
    #[error("the append is in the log, but too old for its offset to be known")]
    DuplicateForgotten {
        /// Newest sequence of the session.
        last_sequence: i64,
    },
    /// The command is not one that a broker proposes: no records, a negative sequence, an empty session id, parts
    /// that do not match the batches, or more than the offsets or byte counts can number.
    #[error("the batch is malformed")]
    Malformed,
}

impl Partition {
    /// Makes an empty partition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a stored state and its sessions.
    ///
    /// # Errors
    /// If the state contradicts itself.
    pub fn restore(
        state: PartitionState,
        sessions: impl IntoIterator<Item = (String, SessionState)>,
    ) -> Result<Self, Invalid> {
        ensure(
            0 <= state.log_start_offset && state.log_start_offset <= state.next_offset,
            "offsets of a partition are not in order",
        )?;
        ensure(
            state.append_time_ms >= 0 && state.max_timestamp_ms >= 0,
            "negative time in a partition",
        )?;
        let sessions = Sessions::restore(&state, sessions)?;
        Ok(Self { state, sessions })
    }

    /// Takes over a snapshot; see [`Partition::restore`].
    ///
    /// # Errors
    /// If the snapshot contradicts itself.
    pub fn from_snapshot(snapshot: PartitionSnapshot) -> Result<Self, Invalid> {
        Self::restore(snapshot.state.unwrap_or_default(), snapshot.sessions)
    }

    /// Returns the whole state.
    pub fn snapshot(&self) -> PartitionSnapshot {
        let session = |(id, session): (&Arc<str>, &SessionState)| (id.to_string(), session.clone());
        PartitionSnapshot {
            state: Some(self.state),
            sessions: self.sessions.iter().map(session).collect(),
        }
    }

    /// Returns the state without the sessions.
    pub fn state(&self) -> PartitionState {
        self.state
    }

    /// Offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        offset(self.state.next_offset)
    }

    /// Oldest offset that readers may see.
    pub fn log_start(&self) -> Offset {
        offset(self.state.log_start_offset)
    }

    /// Bytes of all batches ever accepted.
    pub fn end_bytes(&self) -> u64 {
        self.state.end_bytes
    }

    /// Newest sequence of a session, if it is known with this epoch.
    pub fn last_sequence(&self, session: &str, epoch: i32) -> Option<i64> {
        self.sessions
            .get(session)
            .filter(|state| state.epoch == epoch)
            .map(|state| state.last_sequence)
    }

    /// Applies the command of the entry at `index`. `part_bytes` is the size of each of the entry's parts.
    pub fn apply(
        &mut self,
        index: LogIndex,
        command: &PartitionCommand,
        part_bytes: &[u64],
    ) -> Effects {
        match &command.command {
            Some(Command::Append(append)) => self.append(index, append, part_bytes),
            Some(Command::Trim(trim)) => self.trim(trim.log_start_offset),
            None => Effects::default(),
        }
    }

    fn append(&mut self, index: LogIndex, append: &Append, part_bytes: &[u64]) -> Effects {
        let mut effects = Effects::default();
        if part_bytes.len() != append.batches.len() {
            let malformed = Outcome::Rejected(Rejection::Malformed);
            effects.outcomes = vec![malformed; append.batches.len()];
            return effects;
        }
        // A new leader's clock may be behind the old one's.
        let now_ms = append.append_time_ms.max(self.state.append_time_ms);
        let mut changed: BTreeSet<Arc<str>> = self.sessions.expire(now_ms).into_iter().collect();
        for (part, (batch, bytes)) in (0..).zip(append.batches.iter().zip(part_bytes)) {
            let outcome = match self.accept(batch, *bytes, now_ms) {
                Err(rejection) => Outcome::Rejected(rejection),
                Ok(Some(first)) => Outcome::Duplicate {
                    base_offset: offset(first.base_offset),
                    record_count: first.record_count,
                    append_time_ms: first.append_time_ms,
                },
                Ok(None) => {
                    let row = self.row(index, part, batch.record_count);
                    changed.extend(self.remember(batch, &row));
                    effects.rows.push(row);
                    Outcome::Appended {
                        base_offset: row.base_offset,
                        append_time_ms: now_ms,
                    }
                }
            };
            effects.outcomes.push(outcome);
        }
        effects.sessions = changed
            .into_iter()
            .map(|id| (id.to_string(), self.sessions.get(&id).cloned()))
            .collect();
        effects
    }

    /// Moves the state behind the batch, or says that it is a repeat.
    fn accept(
        &mut self,
        batch: &BatchHeader,
        bytes: u64,
        now_ms: i64,
    ) -> Result<Option<RecentAppend>, Rejection> {
        let mut next = self.state;
        next.next_offset = next
            .next_offset
            .checked_add(i64::from(batch.record_count))
            .filter(|_| batch.record_count > 0)
            .ok_or(Rejection::Malformed)?;
        next.end_bytes = next
            .end_bytes
            .checked_add(bytes)
            .ok_or(Rejection::Malformed)?;
        next.append_time_ms = now_ms;
        next.max_timestamp_ms = next.max_timestamp_ms.max(batch.max_timestamp_ms);

        // The session comes first: a repeat is a repeat even if its expected offset is long taken, by itself.
        if let Some(stamp) = &batch.session
            && let Some(first) = self.sessions.place(stamp)?
        {
            return Ok(Some(first));
        }
        if let Some(expected) = batch.expected_offset
            && expected != self.state.next_offset
        {
            let next_offset = self.next_offset();
            return Err(Rejection::UnexpectedOffset { next_offset });
        }
        self.state = next;
        Ok(None)
    }

    /// Describes the batch that was accepted last.
    fn row(&self, index: LogIndex, part: u32, record_count: u32) -> OffsetRow {
        OffsetRow {
            base_offset: offset(self.state.next_offset - i64::from(record_count)),
            record_count,
            index,
            part,
            append_time_ms: self.state.append_time_ms,
            max_timestamp_ms: self.state.max_timestamp_ms,
            end_bytes: self.state.end_bytes,
        }
    }

    /// Remembers an accepted batch in its session. Returns the ids of the sessions that changed.
    fn remember(&mut self, batch: &BatchHeader, row: &OffsetRow) -> Vec<Arc<str>> {
        let Some(stamp) = &batch.session else {
            return Vec::new();
        };
        let append = RecentAppend {
            base_offset: row.base_offset.0.cast_signed(),
            record_count: row.record_count,
            append_time_ms: row.append_time_ms,
        };
        let forgotten = self.sessions.remember(stamp, append);
        let id: Arc<str> = stamp.id.as_str().into();
        forgotten.into_iter().chain([id]).collect()
    }

    fn trim(&mut self, log_start_offset: i64) -> Effects {
        let before = self.state.log_start_offset;
        self.state.log_start_offset = log_start_offset.clamp(before, self.state.next_offset);
        Effects {
            log_start_moved: self.state.log_start_offset != before,
            ..Effects::default()
        }
    }
}

/// Stored offsets are never negative: see [`Partition::restore`].
fn offset(stored: i64) -> Offset {
    Offset(stored.cast_unsigned())
}

#[cfg(test)]
mod tests;
