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
    machines::{Extent, RetentionPoint},
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
    ///
    /// Storage is not asked again as long as nothing was applied since it had nothing to delete: most partitions are idle
    /// most of the time.
    pub async fn compact(&self) -> Result<bool, io::Error> {
        // One at a time: two would take the retention point from each other, and it must never go back.
        let mut nothing_at = self.machine().compacting().await;
        let now = self.extent();
        if *nothing_at == Some(now) {
            return Ok(false);
        }
        let Some(target) = self.last_unneeded(&now).await? else {
            return Ok(false);
        };
        if self.group().purged().is_some_and(|purged| purged >= target) {
            *nothing_at = Some(now);
            return Ok(false);
        }
        let from = self.machine().retention_point().clone();
        let point = self.replay(from, target).await?;
        let Some(at) = point.at.filter(|at| at.index >= target.0) else {
            return Err(Invalid::new("log in front of the retention point").into());
        };
        *self.machine().retention_point() = point;
        self.group().purge(at).await?;
        // Nothing is left of what was not needed then.
        *nothing_at = Some(now);
        Ok(true)
    }

    /// Where the log is now.
    fn extent(&self) -> Extent {
        let data = self.group().raft.data_metrics();
        let applied = data.borrow_watched().last_applied;
        // The view is read last: what it is ahead of `applied` makes the next look differ.
        Extent {
            applied: applied.map(|id| LogIndex(id.index)),
            view: self.view(),
        }
    }

    /// Index of the last entry that holds no visible record and has none in front of it.
    async fn last_unneeded(&self, now: &Extent) -> Result<Option<LogIndex>, io::Error> {
        let log_start = now.view.log_start;
        if let Some(row) = self.store().find(Search::Contains(log_start)).await? {
            return Ok(row.index.0.checked_sub(1).map(LogIndex));
        }
        // Records may have come since the look-up; then their entries are behind `applied` or found next time.
        if self.view().end > log_start {
            return Ok(None);
        }
        Ok(now.applied)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kelda_proto::internal::v1::{
        BatchHeader,
        partition_command::{Append, Command as Kind, Trim},
    };

    use super::*;
    use crate::{
        consensus::{Command, Groups},
        peers::Peers,
        storage::{Config, Hooks, Part, Storage},
        types::GroupId,
    };

    async fn propose(partition: &PartitionGroup, command: Kind, parts: Vec<Part>) {
        let command = PartitionCommand {
            command: Some(command),
        };
        let command = Command::partition(&command, parts);
        let proposal = partition.group().propose(command).await;
        proposal.expect("proposed").wait().await.expect("applied");
    }

    async fn append(partition: &PartitionGroup) {
        let batch = BatchHeader {
            record_count: 1,
            ..BatchHeader::default()
        };
        let append = Append {
            append_time_ms: 1,
            batches: vec![batch],
        };
        let part = Part {
            bytes: Bytes::from_static(b"x"),
            // Nothing here reads the part.
            crc32c: 0,
        };
        propose(partition, Kind::Append(append), vec![part]).await;
    }

    /// Whether the next call will not look.
    async fn rests(partition: &PartitionGroup) -> bool {
        *partition.machine().compacting().await == Some(partition.extent())
    }

    #[tokio::test]
    async fn storage_is_asked_again_once_something_was_applied_and_after_a_failure() {
        let storage = Storage::open(Config::in_memory(), Hooks::default()).expect("opened");
        let groups = Groups::new(storage.clone(), Peers::alone());
        let founders = [groups.node()];
        let opened = groups.open_partition(GroupId(1), &founders).await;
        let partition = opened.expect("opened");

        append(&partition).await;
        while partition.compact().await.expect("looked") {}
        assert!(rests(&partition).await, "a record is kept");
        append(&partition).await;
        assert!(!rests(&partition).await, "a record has come");
        assert!(!partition.compact().await.expect("looked"));
        assert!(rests(&partition).await, "both are kept");

        let log_start_offset = 2;
        let trim = Kind::Trim(Trim { log_start_offset });
        propose(&partition, trim, Vec::new()).await;
        assert!(!rests(&partition).await, "records are out of sight");
        assert!(partition.compact().await.expect("purged"));
        assert!(!partition.compact().await.expect("looked"));
        assert!(rests(&partition).await, "nothing is kept");

        append(&partition).await;
        storage.close().await.expect("closed");
        partition.compact().await.expect_err("it can not look");
        assert!(!rests(&partition).await, "it did not look");
    }
}
