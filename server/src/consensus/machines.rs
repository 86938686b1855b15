//! The state machines behind a group: what they persist, what they publish, what their snapshots hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kelda_proto::internal::v1 as stored;
use prost::Message;
use tokio::sync::watch;

use super::{Command, LogId, Reply, StoredMembership, encode::Invalid};
use crate::{
    machine::{catalog::Catalog, partition::Partition},
    storage::Applied,
    types::{LogIndex, Offset},
};

/// The catalog is written whole, so not with every change: after a crash at most this many are applied again.
const CATALOG_CHANGES_PER_SAVE: u64 = 64;

/// What readers may see of a partition: `[log_start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// Oldest offset.
    pub log_start: Offset,
    /// Offset behind the newest committed record.
    pub end: Offset,
    /// Bytes of all batches ever accepted.
    pub end_bytes: u64,
    /// Append time of the newest batch.
    pub append_time_ms: i64,
}

/// The catalog as of some applied entry.
pub type CatalogView = Arc<Catalog>;

/// A partition's state at its retention point: the last entry that no reader needs any more.
///
/// A snapshot is of this point and not of the newest entry, because a replica that starts from a snapshot must still
/// get every retained record from the log behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct RetentionPoint {
    pub(super) at: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) partition: Partition,
}

/// All that decides up to where a partition's log is to be deleted. As long as it is the same, so is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) view: PartitionView,
    pub(super) applied: Option<LogIndex>,
}

/// A partition's machine, shared between the group's worker, which applies, and readers of its sessions.
#[derive(Debug)]
pub(super) struct PartitionMachine {
    partition: Mutex<Partition>,
    retention_point: Mutex<RetentionPoint>,
    /// Where the log was when there was nothing to delete.
    compacting: tokio::sync::Mutex<Option<Extent>>,
    view: watch::Sender<PartitionView>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever held the lock only called total functions of the machine: there is no half-done state to fear.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartitionMachine {
    pub(super) fn new(partition: Partition, retention_point: RetentionPoint) -> Arc<Self> {
        let (view, _) = watch::channel(view_of(&partition));
        Arc::new(Self {
            partition: Mutex::new(partition),
            retention_point: Mutex::new(retention_point),
            compacting: tokio::sync::Mutex::default(),
            view,
        })
    }

    pub(super) fn partition(&self) -> MutexGuard<'_, Partition> {
        locked(&self.partition)
    }

    pub(super) fn retention_point(&self) -> MutexGuard<'_, RetentionPoint> {
        locked(&self.retention_point)
    }

    /// Held by whoever moves the retention point, or finds that it is where it is to be.
    pub(super) async fn compacting(&self) -> tokio::sync::MutexGuard<'_, Option<Extent>> {
        self.compacting.lock().await
    }

    pub(super) fn watch(&self) -> watch::Receiver<PartitionView> {
        self.view.subscribe()
    }

    fn publish(&self) {
        let view = view_of(&self.partition());
        self.view
            .send_if_modified(|old| std::mem::replace(old, view) != view);
    }
}

fn view_of(partition: &Partition) -> PartitionView {
    PartitionView {
        log_start: partition.log_start(),
        end: partition.next_offset(),
        end_bytes: partition.end_bytes(),
        append_time_ms: partition.state().append_time_ms,
    }
}

/// The catalog's machine.
#[derive(Debug)]
pub(super) struct CatalogMachine {
    catalog: Catalog,
    changes_since_save: u64,
    view: watch::Sender<CatalogView>,
}

impl CatalogMachine {
    pub(super) fn new(catalog: Catalog) -> Self {
        let (view, _) = watch::channel(Arc::new(catalog.clone()));
        Self {
            catalog,
            changes_since_save: 0,
            view,
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<CatalogView> {
        self.view.subscribe()
    }
}

/// The machine of a group.
#[derive(Debug)]
pub(super) enum Machine {
    Catalog(CatalogMachine),
    Partition(Arc<PartitionMachine>),
}

impl Machine {
    /// Applies a command; what changed in rows goes to `applied`.
    pub(super) fn apply(
        &mut self,
        index: LogIndex,
        command: &Command,
        applied: &mut Applied,
    ) -> Reply {
        match self {
            Self::Catalog(machine) => {
                let Ok(command) = stored::CatalogCommand::decode(command.header.clone()) else {
                    return Reply::Malformed;
                };
                Reply::Catalog(machine.catalog.apply(&command))
            }
            Self::Partition(machine) => {
                let Ok(header) = stored::PartitionCommand::decode(command.header.clone()) else {
                    return Reply::Malformed;
                };
                let part_bytes: Vec<_> = command
                    .parts
                    .iter()
                    .map(|part| part.bytes.len() as u64)
                    .collect();
                let effects = machine.partition().apply(index, &header, &part_bytes);
                applied.rows.extend(effects.rows);
                applied
                    .state_rows
                    .extend(effects.sessions.into_iter().map(|(id, state)| {
                        (
                            Bytes::from(id),
                            state.map(|state| state.encode_to_vec().into()),
                        )
                    }));
                Reply::Partition(effects.outcomes)
            }
        }
    }

    /// State to store now, after `changes` more entries were applied; `None`: later.
    pub(super) fn state_to_save(&mut self, changes: u64) -> Option<Bytes> {
        match self {
            Self::Catalog(machine) => {
                machine.changes_since_save += changes;
                if machine.changes_since_save < CATALOG_CHANGES_PER_SAVE {
                    return None;
                }
                machine.changes_since_save = 0;
                Some(machine.catalog.state().encode_to_vec().into())
            }
            Self::Partition(machine) => Some(machine.partition().state().encode_to_vec().into()),
        }
    }

    /// Lets everybody see what was applied.
    pub(super) fn publish(&self) {
        match self {
            Self::Catalog(machine) => {
                let view = Arc::new(machine.catalog.clone());
                machine.view.send_if_modified(|old| {
                    let changed = old.version() != view.version();
                    *old = view;
                    changed
                });
            }
            Self::Partition(machine) => machine.publish(),
        }
    }

    /// Entry, membership and state that a snapshot taken now stands for.
    pub(super) fn snapshot(
        &self,
        applied: Option<&LogId>,
        membership: &StoredMembership,
    ) -> (Option<LogId>, StoredMembership, Bytes) {
        let machine = match self {
            Self::Catalog(machine) => {
                let state = machine.catalog.state().encode_to_vec().into();
                return (applied.cloned(), membership.clone(), state);
            }
            Self::Partition(machine) => machine,
        };
        let partition = machine.partition();
        let mut point = machine.retention_point();
        if partition.log_start() == partition.next_offset() && point.at.as_ref() < applied {
            // No record is retained, so no reader needs anything up to the newest entry.
            *point = RetentionPoint {
                at: applied.cloned(),
                membership: membership.clone(),
                partition: partition.clone(),
            };
        }
        let state = point.partition.snapshot().encode_to_vec().into();
        (point.at, point.membership.clone(), state)
    }

    /// Replaces the state by a snapshot's; what changed in rows goes to `applied`.
    pub(super) fn install(
        &mut self,
        at: Option<&LogId>,
        membership: &StoredMembership,
        state: &Bytes,
        applied: &mut Applied,
    ) -> Result<(), Invalid> {
        match self {
            Self::Catalog(machine) => {
                machine.catalog = decode_catalog(state)?;
                machine.changes_since_save = CATALOG_CHANGES_PER_SAVE;
            }
            Self::Partition(machine) => {
                let snapshot = stored::PartitionSnapshot::decode(state.clone())
                    .map_err(|_| Invalid::new("partition snapshot"))?;
                let old = machine.partition().snapshot().sessions;
                let gone = old
                    .into_keys()
                    .filter(|id| !snapshot.sessions.contains_key(id));
                applied
                    .state_rows
                    .extend(gone.map(|id| (Bytes::from(id), None)));
                applied
                    .state_rows
                    .extend(snapshot.sessions.iter().map(|(id, state)| {
                        (Bytes::from(id.clone()), Some(state.encode_to_vec().into()))
                    }));
                let partition = Partition::from_snapshot(snapshot)
                    .map_err(|_| Invalid::new("partition snapshot"))?;
                *machine.partition() = partition.clone();
                *machine.retention_point() = RetentionPoint {
                    at: at.cloned(),
                    membership: membership.clone(),
                    partition,
                };
            }
        }
        Ok(())
    }
}

/// The catalog of stored bytes; an empty one of none.
pub(super) fn decode_catalog(state: &Bytes) -> Result<Catalog, Invalid> {
    let state = stored::CatalogState::decode(state.clone()).map_err(|_| Invalid::new("catalog"))?;
    Catalog::restore(state).map_err(|_| Invalid::new("catalog"))
}
