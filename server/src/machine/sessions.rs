//! The producer sessions of a partition: which appends are repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kelda_proto::internal::v1::{PartitionState, RecentAppend, SessionStamp, SessionState};
use kelda_proto::limits::SESSION_RECENT_MAX;

use super::partition::Rejection;
use super::{Invalid, ensure};

/// A session that appended nothing for longer than this is forgotten.
pub(super) const IDLE_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// Sessions that a partition remembers.
pub(super) const SESSIONS_MAX: usize = 10_000;

/// Every session of a partition, and the order in which they are forgotten.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sessions {
    by_id: BTreeMap<Arc<str>, SessionState>,
    /// Append time and id of each session: the one idle longest comes first.
    by_idle: BTreeSet<(i64, Arc<str>)>,
}

impl Sessions {
    /// Takes over stored sessions of a partition that is in `state`.
    pub(super) fn restore(
        state: &PartitionState,
        stored: impl IntoIterator<Item = (String, SessionState)>,
    ) -> Result<Self, Invalid> {
        let mut sessions = Self::default();
        for (id, session) in stored {
            check(state, &session)?;
            ensure(!id.is_empty(), "session without an id")?;
            let id: Arc<str> = id.into();
            sessions
                .by_idle
                .insert((session.append_time_ms, Arc::clone(&id)));
            let before = sessions.by_id.insert(id, session);
            ensure(before.is_none(), "two sessions with the same id")?;
            ensure(sessions.by_id.len() <= SESSIONS_MAX, "too many sessions")?;
        }
        Ok(sessions)
    }

    /// Returns a session.
    pub(super) fn get(&self, id: &str) -> Option<&SessionState> {
        self.by_id.get(id)
    }

    /// Returns all sessions by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &SessionState)> {
        self.by_id.iter()
    }

    /// Says whether an append is the next of its session (`None`), a repeat, or out of place.
    pub(super) fn place(&self, stamp: &SessionStamp) -> Result<Option<RecentAppend>, Rejection> {
        if stamp.id.is_empty() || stamp.sequence < 0 {
            return Err(Rejection::Malformed);
        }
        let session = self.get(&stamp.id);
        if let Some(session) = session.filter(|session| stamp.epoch < session.epoch) {
            let current_epoch = session.epoch;
            return Err(Rejection::Fenced { current_epoch });
        }
        let Some(session) = session.filter(|session| stamp.epoch == session.epoch) else {
            return next_is(0, stamp);
        };
        if stamp.sequence > session.last_sequence {
            // It can not overflow: the last sequence is less than another.
            return next_is(session.last_sequence + 1, stamp);
        }
        let last_sequence = session.last_sequence;
        usize::try_from(last_sequence - stamp.sequence)
            .ok()
            .and_then(|back| session.recent.iter().rev().nth(back))
            .map(|append| Some(*append))
            .ok_or(Rejection::DuplicateForgotten { last_sequence })
    }

    /// Remembers an append that [`Sessions::place`] called the next. Returns the session forgotten for it.
    pub(super) fn remember(
        &mut self,
        stamp: &SessionStamp,
        append: RecentAppend,
    ) -> Option<Arc<str>> {
        let (id, before) = match self.by_id.remove_entry(stamp.id.as_str()) {
            Some((id, session)) => {
                self.by_idle
                    .remove(&(session.append_time_ms, Arc::clone(&id)));
                (id, session)
            }
            None => (stamp.id.as_str().into(), SessionState::default()),
        };
        let mut session = SessionState {
            epoch: stamp.epoch,
            last_sequence: stamp.sequence,
            append_time_ms: append.append_time_ms,
            recent: before.recent,
        };
        if stamp.sequence == 0 {
            session.recent.clear();
        }
        if session.recent.len() >= SESSION_RECENT_MAX {
            session.recent.remove(0);
        }
        session.recent.push(append);

        // Room is made before the newcomer is in, so that it is never its own victim.
        let forgotten = (self.by_id.len() >= SESSIONS_MAX)
            .then(|| self.forget_most_idle())
            .flatten();
        self.by_idle
            .insert((session.append_time_ms, Arc::clone(&id)));
        self.by_id.insert(id, session);
        forgotten
    }

    /// Forgets the sessions that are idle for too long at `now_ms`, and returns their ids.
    pub(super) fn expire(&mut self, now_ms: i64) -> Vec<Arc<str>> {
        let mut forgotten = Vec::new();
        while self
            .by_idle
            .first()
            .is_some_and(|(append_time_ms, _)| now_ms.saturating_sub(*append_time_ms) > IDLE_MAX_MS)
        {
            forgotten.extend(self.forget_most_idle());
        }
        forgotten
    }

    fn forget_most_idle(&mut self) -> Option<Arc<str>> {
        let (_, id) = self.by_idle.pop_first()?;
        self.by_id.remove(&id);
        Some(id)
    }
}

fn next_is(
    expected_sequence: i64,
    stamp: &SessionStamp,
) -> Result<Option<RecentAppend>, Rejection> {
    if stamp.sequence == expected_sequence {
        Ok(None)
    } else {
        Err(Rejection::SequenceOutOfOrder { expected_sequence })
    }
}

/// Checks a stored session against the state of its partition.
fn check(state: &PartitionState, session: &SessionState) -> Result<(), Invalid> {
    let recent = &session.recent;
    let newest = recent
        .last()
        .ok_or(Invalid("session without recent appends"))?;
    ensure(
        newest.append_time_ms == session.append_time_ms
            && session.append_time_ms <= state.append_time_ms,
        "append time of a session does not fit",
    )?;
    ensure(
        session.last_sequence >= 0 && recent.len() <= SESSION_RECENT_MAX,
        "sequences of a session do not fit",
    )?;
    ensure(
        recent.len() as u64 - 1 <= session.last_sequence.cast_unsigned(),
        "session remembers more appends than it made",
    )?;
    let mut end = 0;
    let mut time = 0;
    for append in recent {
        ensure(
            append.base_offset >= end && append.append_time_ms >= time && append.record_count > 0,
            "recent appends of a session are not in order",
        )?;
        time = append.append_time_ms;
        end = append
            .base_offset
            .checked_add(i64::from(append.record_count))
            .filter(|end| *end <= state.next_offset)
            .ok_or(Invalid("session ends behind its partition"))?;
    }
    Ok(())
}
