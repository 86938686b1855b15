//! openraft's log on the storage room. Votes and entries of a group go through storage's one queue, so they never
//! reorder; entries are readable when `append` returns, and their callback fires after the fsync.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use super::{LogId, RaftEntry, TypeConfig, Vote, encode};
use crate::{
    storage::{self, GroupState, GroupStore},
    types::LogIndex,
};

/// Bytes of entries that one replication or apply step reads.
const STEP_BYTES: usize = 2 << 20;

impl From<storage::Error> for io::Error {
    fn from(error: storage::Error) -> Self {
        Self::other(error)
    }
}

/// The snapshot that the state machine built last, for the purge that follows it.
pub(super) type SnapshotSlot = Arc<Mutex<Option<Bytes>>>;

#[derive(Clone, Debug)]
struct Ends {
    vote: Option<Vote>,
    /// Entry that once left this node out, kept beside the vote.
    left: Option<LogIndex>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Index of the first entry ever appended in this process to an empty log. Raft's is 0; openraft's own tests
    /// begin at 1, and then look below it.
    begin: u64,
}

/// The log of one group. Clones share their state.
#[derive(Clone)]
pub(super) struct LogStore {
    store: GroupStore,
    ends: Arc<Mutex<Ends>>,
    snapshot: SnapshotSlot,
}

impl LogStore {
    pub(super) fn new(
        store: GroupStore,
        state: &GroupState,
        snapshot: SnapshotSlot,
    ) -> Result<Self, encode::Invalid> {
        let vote = state.vote.as_ref().map(encode::decode_vote).transpose()?;
        let ends = Ends {
            vote: vote.map(|(vote, _)| vote),
            left: vote.and_then(|(_, left)| left),
            purged: state.purged.map(encode::log_id),
            last: state.last.map(encode::log_id),
            begin: 0,
        };
        Ok(Self {
            store,
            ends: Arc::new(Mutex::new(ends)),
            snapshot,
        })
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        // A panic while the lock was held can not leave `Ends` half written: its fields are set one by one and each
        // is valid by itself.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry that once left this node out of the group.
    pub(super) fn left(&self) -> Option<LogIndex> {
        self.ends().left
    }

    fn first_index(&self) -> u64 {
        let ends = self.ends();
        ends.purged.map_or(ends.begin, |purged| purged.index + 1)
    }

    async fn read(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let from = from.max(self.first_index());
        let entries = self
            .store
            .read(LogIndex(from), LogIndex(to), bytes_max)
            .await?;
        entries
            .into_iter()
            .map(|entry| encode::decode_entry(entry).map_err(io::Error::from))
            .collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let mut from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        while from < to {
            let step = self.read(from, to, STEP_BYTES).await?;
            let Some(last) = step.last() else { break };
            from = last.log_id.index + 1;
            entries.extend(step);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        from: u64,
        to: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(from, to, STEP_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.ends().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let ends = self.ends();
        Ok(LogState {
            last_purged_log_id: ends.purged,
            last_log_id: ends.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let left = self.ends().left;
        let stored = encode::encode_vote(vote, left);
        self.store.save_vote(stored).await?;
        self.ends().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|entry| encode::encode_entry(&entry))
            .collect();
        let first = entries.first().map_or(0, |entry| entry.id.index.0);
        let last = entries.last().map(|entry| encode::log_id(entry.id));
        let done = Box::new(move |result: Result<(), storage::Error>| {
            callback.io_completed(result.map_err(io::Error::from));
        });
        self.store.append(entries, done).await?;
        let mut ends = self.ends();
        if ends.last.is_none() {
            ends.begin = first;
        }
        ends.last = last.or(ends.last);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.store.truncate(LogIndex(from)).await?;
        let mut ends = self.ends();
        ends.last = ends.last.min(last.or(ends.purged));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let snapshot = self
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_default();
        let (stands_for, _) = encode::decode_snapshot(&snapshot)?;
        if stands_for
            .last_log_id
            .is_some_and(|snapshot| snapshot < upto)
        {
            return Err(encode::Invalid::new("snapshot behind the purge").into());
        }
        self.store.purge(encode::entry_id(&upto), snapshot).await?;
        let mut ends = self.ends();
        ends.purged = Some(upto);
        ends.last = ends.last.max(Some(upto));
        Ok(())
    }
}
