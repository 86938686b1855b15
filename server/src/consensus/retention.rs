//! Deleting the front of a group's log once no reader needs it.
//!
//! Crash order: the trim is committed first, so readers no longer see the records; then the snapshot at the retention
//! point and the purge go to disk in one transaction; the rows go last. A crash in between is finished by the next run.

use std::{io, time::Duration};

use kelda_proto::internal::v1::PartitionCommand;
use openraft::async_runtime::WatchReceiver;
use prost::Message;

use super::{
    Group, LogId, PartitionGroup, StoredMembership,
    encode::{self, Invalid},
    machines::RetentionPoint,
};
use crate::{
    storage::{EntryHead, EntryKind, Search},
    types::LogIndex,
};

/// Entry heads that one step reads. A head describes up to some thousand batches.
const STEP_ENTRIES: usize = 64;
/// How long a snapshot and a purge may take.
const PURGE_TIMEOUT: Duration = Duration::from_secs(60);

impl PartitionGroup {
    /// Deletes the entries in front of the first one that holds a visible record. Returns whether there were any.
    pub async fn compact(&self) -> Result<bool, io::Error> {
        // One at a time: two would take the retention point from each other, and it must never go back.
        let _one = self.machine().compacting().await;
        let Some(target) = self.last_unneeded().await? else {
            return Ok(false);
        };
        if self.group().purged().is_some_and(|purged| purged >= target) {
            return Ok(false);
        }
        let from = self.machine().retention_point().clone();
        let point = self.replay(from, target).await?;
        let Some(at) = point.at.filter(|at| at.index >= target.0) else {
            return Err(Invalid::new("log in front of the retention point").into());
        };
        *self.machine().retention_point() = point;
        self.group().purge(at).await?;
        Ok(true)
    }

    /// Index of the last entry that holds no visible record and has none in front of it.
    async fn last_unneeded(&self) -> Result<Option<LogIndex>, io::Error> {
        let view = self.view();
        if let Some(row) = self.store().find(Search::Contains(view.log_start)).await? {
            return Ok(row.index.0.checked_sub(1).map(LogIndex));
        }
        let applied = self
            .group()
            .raft
            .data_metrics()
            .borrow_watched()
            .last_applied;
        // Records may have come since the look-up; then their entries are behind `applied` or found next time.
        if self.view().end > view.log_start {
            return Ok(None);
        }
        Ok(applied.map(|id| LogIndex(id.index)))
    }

    /// Carries the state at one retention point on to a later one, by applying the commands in between again.
    async fn replay(
        &self,
        mut point: RetentionPoint,
        target: LogIndex,
    ) -> Result<RetentionPoint, io::Error> {
        let mut next = point.at.as_ref().map_or(0, |at| at.index + 1);
        while next <= target.0 {
            let heads = self
                .store()
                .read_heads(LogIndex(next), LogIndex(target.0 + 1), STEP_ENTRIES)
                .await?;
            let Some(last) = heads.last() else { break };
            next = last.id.index.0 + 1;
            for head in heads {
                replay_entry(&mut point, &head)?;
            }
            tokio::task::yield_now().await;
        }
        Ok(point)
    }
}

fn replay_entry(point: &mut RetentionPoint, head: &EntryHead) -> Result<(), Invalid> {
    let id = encode::log_id(head.id);
    match head.kind {
        EntryKind::Blank => {}
        EntryKind::Membership => {
            let membership = encode::decode_membership(&head.header)?;
            point.membership = StoredMembership::new(Some(id), membership);
        }
        EntryKind::Command => {
            // One that can not be decoded changed nothing when it was applied either.
            let part_bytes: Vec<_> = head
                .part_lengths
                .iter()
                .map(|length| u64::from(*length))
                .collect();
            if let Ok(command) = PartitionCommand::decode(head.header.clone()) {
                point.partition.apply(head.id.index, &command, &part_bytes);
            }
        }
    }
    point.at = Some(id);
    Ok(())
}

impl Group {
    pub(super) fn purged(&self) -> Option<LogIndex> {
        let data = self.raft.data_metrics();
        let purged = data.borrow_watched().purged;
        purged.map(|id| LogIndex(id.index))
    }

    /// Purges the log up to and with an entry that the next snapshot stands for.
    pub(super) async fn purge(&self, upto: LogId) -> Result<(), io::Error> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(io::Error::other)?;
        let wait = self.raft.wait(Some(PURGE_TIMEOUT));
        wait.metrics(
            |metrics| metrics.snapshot.as_ref() >= Some(&upto),
            "the snapshot is taken",
        )
        .await
        .map_err(io::Error::other)?;
        self.raft
            .trigger()
            .purge_log(upto.index)
            .await
            .map_err(io::Error::other)?;
        wait.metrics(
            |metrics| metrics.purged.as_ref() >= Some(&upto),
            "the log is purged",
        )
        .await
        .map_err(io::Error::other)?;
        Ok(())
    }
}
