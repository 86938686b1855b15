//! One running group: takes commands, answers when they are committed and applied.

use std::sync::{Arc, atomic::AtomicBool};

use openraft::{
    Config, SnapshotPolicy,
    errors::ClientWriteError,
    raft::{ClientWriteResult, responder::ProgressResponder},
    vote::leader_id_adv::CommittedLeaderId,
};
use tokio::sync::{oneshot, watch};

use super::{
    Command, PartitionView, Raft, Reply, TypeConfig,
    encode::{self, AppliedState},
    groups::Home,
    inbox::Inbox,
    log_store::LogStore,
    machines::{Machine, PartitionMachine, RetentionPoint},
    network::Network,
    seat::Seat,
    state_machine::StateMachine,
};
use crate::{
    machine::partition::Partition,
    storage::{self, GroupState, GroupStore},
    types::{GroupId, LogIndex, NodeId},
};

/// Why a group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// What is stored makes no sense.
    #[error(transparent)]
    Invalid(#[from] encode::Invalid),
    /// Raft gave up.
    #[error("group {group} did not start: {detail}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What Raft says.
        detail: String,
    },
}

impl OpenError {
    /// Whether stored bytes are wrong, so that trying again does not help.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_corrupt(),
            Self::Invalid(_) => true,
            Self::Raft { .. } => false,
        }
    }
}

/// Why a command was not, or may not have been, carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not: another node leads.
    #[error("not the leader")]
    NotLeader {
        /// The leader, where known.
        leader: Option<NodeId>,
    },
    /// It may have been or may still be: leadership changed on the way.
    #[error("leadership changed while the command was under way")]
    Indefinite,
    /// The group has stopped; whether the command was carried out is not known.
    #[error("the group has stopped")]
    Stopped,
}

/// A command on its way; its place in the log is behind everything proposed before.
#[derive(Debug)]
pub struct Proposal(oneshot::Receiver<ClientWriteResult<TypeConfig>>);

impl Proposal {
    /// Waits until the command is committed (fsynced on a quorum) and applied.
    pub async fn wait(self) -> Result<Reply, ProposeError> {
        match self.0.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(ProposeError::NotLeader {
                leader: forward.leader_id,
            }),
            Ok(Err(_)) => Err(ProposeError::Indefinite),
            Err(_) => Err(ProposeError::Stopped),
        }
    }
}

/// A running group. Clones share it.
#[derive(Clone)]
pub struct Group {
    pub(super) id: GroupId,
    pub(super) raft: Raft,
    pub(super) store: GroupStore,
    /// Set while leadership is handed over: the next leader does not wait for the lease of this one.
    pub(super) handing_over: Arc<AtomicBool>,
    pub(super) seat: Arc<Seat>,
    pub(super) inbox: Inbox,
}

impl Group {
    /// Proposes a command. When this returns, its place behind earlier proposals of the same caller is fixed.
    pub async fn propose(&self, command: Command) -> Result<Proposal, ProposeError> {
        self.write(command, None).await
    }

    /// As [`Group::propose`], but it is refused unless this node leads in `term`: also if it leads in a later one, since
    /// another node may have led, and taken commands, in between.
    pub async fn propose_in(&self, term: u64, command: Command) -> Result<Proposal, ProposeError> {
        self.write(command, Some(term)).await
    }

    async fn write(&self, command: Command, term: Option<u64>) -> Result<Proposal, ProposeError> {
        self.seat.touch();
        if self.seat.is_drowsy() && self.may_lead() && !self.confirm_lead().await {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let (responder, receiver) = ProgressResponder::complete_only();
        let mut write = self.raft.write(command).responder(responder);
        if let Some(term) = term {
            let node_id = *self.raft.node_id();
            write = write.with_leader(CommittedLeaderId { term, node_id });
        }
        write.await.map_err(|_| ProposeError::Stopped)?;
        Ok(Proposal(receiver))
    }

    /// The node that leads the group, as far as this one knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.seat.leader()
    }

    /// Whether it has nothing to do, and so neither heartbeats nor elections by timeout.
    pub fn is_quiesced(&self) -> bool {
        self.seat.is_quiesced()
    }

    /// Lets a quiesced group look for its leader: it is not where it was.
    pub fn rouse(&self) {
        self.seat.rouse();
    }

    /// Id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Stops the group. What was acknowledged is durable; what is under way may or may not be carried out.
    pub async fn stop(&self) {
        self.inbox.remove(self.id);
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.id, %error, "group did not stop cleanly");
        }
    }

    pub(super) async fn start(
        home: &Home,
        store: GroupStore,
        state: &GroupState,
        machine: Machine,
        applied: &AppliedState,
        founders: &[NodeId],
    ) -> Result<Self, OpenError> {
        let id = store.id();
        let failed = |detail: String| OpenError::Raft { group: id, detail };
        let snapshot = Arc::new(std::sync::Mutex::new(state.snapshot.clone()));
        let log = LogStore::new(store.clone(), state, Arc::clone(&snapshot))?;
        let left = log.left();
        let machine = StateMachine::new(store.clone(), machine, applied, snapshot);
        let config = config()
            .validate()
            .map_err(|error| failed(error.to_string()))?;
        let network = Network {
            peers: home.peers.clone(),
            group: id,
        };
        let me = home.peers.node();
        let raft = match Raft::new(me, Arc::new(config), network, log, machine).await {
            Ok(raft) => raft,
            Err(error) => return Err(explain(&store, state, &error).await),
        };
        let seat = Arc::new(Seat::new(
            id,
            raft.clone(),
            left,
            Arc::clone(home.inbox.stir()),
        ));
        home.inbox.add(Arc::clone(&seat));
        let group = Self {
            id,
            raft,
            store,
            handing_over: Arc::default(),
            seat,
            inbox: home.inbox.clone(),
        };
        if let Err(error) = group.take_part(me, founders, left).await {
            group.stop().await;
            return Err(explain(&group.store, state, &error).await);
        }
        Ok(group)
    }
}

fn config() -> Config {
    Config {
        heartbeat_interval: 200,
        election_timeout_min: 600,
        election_timeout_max: 1200,
        enable_tick: false,
        enable_pre_vote: Some(true),
        // A leader that comes back has to be elected anew: only its first entry tells what is committed.
        enable_leader_restore: Some(false),
        // Snapshots are taken by retention only, see `retention.rs`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        replication_lag_threshold: u64::MAX / 2,
        // A group's queues; measured to keep a thousand idle groups small.
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(128),
        log_stage_capacity: Some(8),
        api_batch_capacity: 256,
        max_payload_entries: 300,
        max_append_entries: Some(256),
        ..Config::default()
    }
}

/// A partition's group.
#[derive(Clone)]
pub struct PartitionGroup {
    group: Group,
    machine: Arc<PartitionMachine>,
}

impl PartitionGroup {
    pub(super) async fn open(
        home: &Home,
        store: GroupStore,
        founders: &[NodeId],
    ) -> Result<Self, OpenError> {
        let state = store.load().await?;
        let applied = applied_state(&state)?;
        let machine = PartitionMachine::new(restore(&state, &applied)?, retention_point(&state)?);
        let running = Machine::Partition(Arc::clone(&machine));
        let group = Group::start(home, store, &state, running, &applied, founders).await?;
        Ok(Self { group, machine })
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Storage of the group, for reads below [`PartitionView::end`].
    pub fn store(&self) -> &GroupStore {
        &self.group.store
    }

    /// What readers may see, now.
    pub fn view(&self) -> PartitionView {
        *self.machine.watch().borrow()
    }

    /// What readers may see, as it changes.
    pub fn watch(&self) -> watch::Receiver<PartitionView> {
        self.machine.watch()
    }

    /// Newest sequence that a session appended.
    pub fn last_sequence(&self, session: &str, epoch: i32) -> Option<i64> {
        self.machine.partition().last_sequence(session, epoch)
    }

    /// Bytes of the batches that are stored, trimmed ones included until they are purged.
    pub fn stored_bytes(&self) -> u64 {
        let purged = self.machine.retention_point().partition.end_bytes();
        self.view().end_bytes.saturating_sub(purged)
    }

    pub(super) fn machine(&self) -> &PartitionMachine {
        &self.machine
    }
}

/// Why a group did not start. Raft hands on only the text of what storage told it, so the log is read once more.
async fn explain(store: &GroupStore, state: &GroupState, error: &impl ToString) -> OpenError {
    match check_log(store, state).await {
        Err(found) => found.into(),
        Ok(()) => OpenError::Raft {
            group: store.id(),
            detail: error.to_string(),
        },
    }
}

async fn check_log(store: &GroupStore, state: &GroupState) -> Result<(), storage::Error> {
    const READ_BYTES: usize = 4 << 20;
    let behind = |index: LogIndex| LogIndex(index.0.saturating_add(1));
    let mut next = state.purged.map_or(LogIndex(0), |id| behind(id.index));
    let end = state.last.map_or(next, |id| behind(id.index));
    while next < end {
        let entries = store.read(next, end, READ_BYTES).await?;
        let Some(last) = entries.last() else {
            return Err(storage::Error::Corrupt {
                group: store.id(),
                index: next,
            });
        };
        next = behind(last.id.index);
    }
    Ok(())
}

pub(super) fn applied_state(state: &GroupState) -> Result<AppliedState, encode::Invalid> {
    Ok(state
        .applied
        .as_ref()
        .map(encode::decode_applied)
        .transpose()?
        .unwrap_or_default())
}

fn restore(state: &GroupState, applied: &AppliedState) -> Result<Partition, encode::Invalid> {
    use kelda_proto::internal::v1::{PartitionState, SessionState};
    use prost::Message;

    let invalid = || encode::Invalid::new("partition state");
    if state.applied.is_none() {
        return Ok(Partition::new());
    }
    let partition = PartitionState::decode(applied.machine.clone()).map_err(|_| invalid())?;
    let sessions = state
        .state_rows
        .iter()
        .map(|(id, row)| {
            let id = String::from_utf8(id.to_vec()).map_err(|_| invalid())?;
            Ok((
                id,
                SessionState::decode(row.clone()).map_err(|_| invalid())?,
            ))
        })
        .collect::<Result<Vec<_>, encode::Invalid>>()?;
    Partition::restore(partition, sessions).map_err(|_| invalid())
}

fn retention_point(state: &GroupState) -> Result<RetentionPoint, encode::Invalid> {
    use kelda_proto::internal::v1::PartitionSnapshot;
    use prost::Message;

    let Some(snapshot) = &state.snapshot else {
        return Ok(RetentionPoint::default());
    };
    let invalid = || encode::Invalid::new("partition snapshot");
    let (meta, machine) = encode::decode_snapshot(snapshot)?;
    let machine = PartitionSnapshot::decode(machine).map_err(|_| invalid())?;
    Ok(RetentionPoint {
        at: meta.last_log_id,
        membership: meta.last_membership,
        partition: Partition::from_snapshot(machine).map_err(|_| invalid())?,
    })
}
