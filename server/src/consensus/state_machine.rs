//! openraft's state machine over the room's machines. Acknowledges (answers the proposer) only what is committed and
//! visible to readers; what applying changed reaches the disk with a later commit, and is applied again after a
//! crash.

use std::{io, sync::PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine},
};

use super::{
    LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig,
    encode::{self, AppliedState},
    log_store::SnapshotSlot,
    machines::Machine,
};
use crate::{
    storage::{Applied, GroupStore},
    types::LogIndex,
};

/// Entries that are applied before their effects are handed on together.
const APPLY_CHUNK: usize = 64;

type Snapshot = SnapshotOf<TypeConfig, Bytes>;

/// State machine of one group.
pub(crate) struct StateMachine {
    store: GroupStore,
    machine: Machine,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: SnapshotSlot,
}

impl StateMachine {
    pub(super) fn new(
        store: GroupStore,
        machine: Machine,
        state: &AppliedState,
        snapshot: SnapshotSlot,
    ) -> Self {
        Self {
            store,
            machine,
            applied: state.applied,
            membership: state.membership.clone(),
            snapshot,
        }
    }

    fn set_snapshot(&self, snapshot: Bytes) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }

    async fn save(&mut self, mut applied: Applied, changes: u64) -> Result<(), io::Error> {
        if let Some(machine) = self.machine.state_to_save(changes) {
            applied.state = encode::encode_applied(&AppliedState {
                applied: self.applied,
                membership: self.membership.clone(),
                machine,
            });
            self.store.apply(applied).await?;
        }
        Ok(())
    }

    async fn apply_chunk(
        &mut self,
        entries: Vec<Result<EntryResponder<TypeConfig>, io::Error>>,
    ) -> Result<(), io::Error> {
        let changes = entries.len() as u64;
        let mut applied = Applied::default();
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            let (entry, responder) = entry?;
            let reply = match entry.payload {
                EntryPayload::Blank => Reply::Nothing,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Reply::Nothing
                }
                EntryPayload::Normal(command) => {
                    self.machine
                        .apply(LogIndex(entry.log_id.index), &command, &mut applied)
                }
            };
            self.applied = Some(entry.log_id);
            replies.push((responder, reply));
        }
        // Readers find the rows before anybody hears of them.
        self.save(applied, changes).await?;
        self.machine.publish();
        for (responder, reply) in replies {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        while let Some(chunk) = chunks.next().await {
            self.apply_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (last_log_id, last_membership, machine) = self
            .machine
            .snapshot(self.applied.as_ref(), &self.membership);
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        self.set_snapshot(encode::encode_snapshot(&meta, &machine));
        Builder { meta, machine }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        machine: Bytes,
    ) -> Result<(), io::Error> {
        let mut applied = Applied::default();
        self.machine.install(
            meta.last_log_id.as_ref(),
            &meta.last_membership,
            &machine,
            &mut applied,
        )?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.set_snapshot(encode::encode_snapshot(meta, &machine));
        self.save(applied, 0).await?;
        self.machine.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshot = self
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(snapshot) = snapshot else {
            return Ok(None);
        };
        let (meta, machine) = encode::decode_snapshot(&snapshot)?;
        Ok(Some(Snapshot {
            meta,
            snapshot: machine,
        }))
    }
}

/// A snapshot that is already built: it is small, metadata only.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    machine: Bytes,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: self.machine.clone(),
        })
    }
}
