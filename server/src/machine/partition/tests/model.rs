//! A partition that remembers every append there ever was and searches all of them: slow, and plainly right.

use std::collections::BTreeMap;

use kelda_proto::limits::SESSION_RECENT_MAX;

use super::*;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) rows: Vec<OffsetRow>,
    sessions: BTreeMap<String, Session>,
}

/// Every append of a session in its present epoch; the position is the sequence.
#[derive(Debug)]
struct Session {
    epoch: i32,
    appends: Vec<OffsetRow>,
}

impl Model {
    pub(super) fn next_offset(&self) -> u64 {
        self.rows
            .iter()
            .map(|row| u64::from(row.record_count))
            .sum()
    }

    pub(super) fn next_sequence(&self, id: &str, epoch: i32) -> i64 {
        self.sessions
            .get(id)
            .filter(|session| session.epoch == epoch)
            .map_or(0, |session| session.appends.len() as i64)
    }

    /// Forgets idle sessions; the caller does so once an entry.
    pub(super) fn now(&mut self, append_time_ms: i64) -> i64 {
        let newest = self.rows.iter().map(|row| row.append_time_ms).max();
        let now_ms = append_time_ms.max(newest.unwrap_or(0));
        self.sessions.retain(|_, session| {
            let newest = session.appends.iter().map(|row| row.append_time_ms).max();
            now_ms - newest.unwrap() <= 24 * 3_600_000
        });
        now_ms
    }

    pub(super) fn append(&mut self, batch: &BatchHeader, row: OffsetRow) -> Outcome {
        match self.refusal(batch) {
            Some(outcome) => outcome,
            None => self.accept(batch, row),
        }
    }

    fn refusal(&self, batch: &BatchHeader) -> Option<Outcome> {
        let rejected = |rejection| Some(Outcome::Rejected(rejection));
        if batch.record_count == 0 {
            return rejected(Rejection::Malformed);
        }
        if let Some(stamp) = &batch.session {
            if stamp.id.is_empty() || stamp.sequence < 0 {
                return rejected(Rejection::Malformed);
            }
            let session = self.sessions.get(&stamp.id);
            if let Some(session) = session
                && session.epoch > stamp.epoch
            {
                let current_epoch = session.epoch;
                return rejected(Rejection::Fenced { current_epoch });
            }
            let expected_sequence = self.next_sequence(&stamp.id, stamp.epoch);
            if stamp.sequence > expected_sequence {
                return rejected(Rejection::SequenceOutOfOrder { expected_sequence });
            }
            if stamp.sequence < expected_sequence {
                let last_sequence = expected_sequence - 1;
                if expected_sequence - stamp.sequence > SESSION_RECENT_MAX as i64 {
                    return rejected(Rejection::DuplicateForgotten { last_sequence });
                }
                let first = session.unwrap().appends[stamp.sequence as usize];
                return Some(Outcome::Duplicate {
                    base_offset: first.base_offset,
                    record_count: first.record_count,
                    append_time_ms: first.append_time_ms,
                });
            }
        }
        let next_offset = Offset(self.next_offset());
        if batch
            .expected_offset
            .is_some_and(|expected| expected != next_offset.0 as i64)
        {
            return rejected(Rejection::UnexpectedOffset { next_offset });
        }
        None
    }

    fn accept(&mut self, batch: &BatchHeader, row: OffsetRow) -> Outcome {
        let bytes = row.end_bytes;
        let row = OffsetRow {
            base_offset: Offset(self.next_offset()),
            end_bytes: bytes + self.rows.last().map_or(0, |last| last.end_bytes),
            max_timestamp_ms: self
                .rows
                .iter()
                .map(|row| row.max_timestamp_ms)
                .fold(row.max_timestamp_ms.max(0), i64::max),
            ..row
        };
        self.rows.push(row);
        if let Some(stamp) = &batch.session {
            let session = self.sessions.entry(stamp.id.clone()).or_insert(Session {
                epoch: stamp.epoch,
                appends: Vec::new(),
            });
            if session.epoch != stamp.epoch {
                session.epoch = stamp.epoch;
                session.appends.clear();
            }
            session.appends.push(row);
        }
        Outcome::Appended {
            base_offset: row.base_offset,
            append_time_ms: row.append_time_ms,
        }
    }
}
