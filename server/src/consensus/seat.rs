//! A group's seat on this node: whether it is awake, with heartbeats and elections by timeout, or quiesced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::time::Instant;

use super::{Raft, leaving, members::LEASE, stir::Stir};
use crate::types::{GroupId, LogIndex, NodeId};

/// How long a group that was woken may take to hear of a quorum again.
pub(super) const WAKING: Duration = Duration::from_secs(1);

/// A group on this node.
pub(super) struct Seat {
    pub(super) id: GroupId,
    pub(super) raft: Raft,
    /// The entry that once left this node out of the group.
    left: Option<LogIndex>,
    /// Whether it is quiesced. Held while the clock is switched: they go together.
    quiesced: Mutex<bool>,
    /// The leader whose entries or heartbeats were taken last, and when.
    followed: Mutex<Option<(NodeId, Instant)>>,
    /// Counts what was done, so that whoever quiesces notices what came meanwhile.
    activity: AtomicU64,
    /// What `activity` was at the last look, and how many looks ago it changed.
    seen: AtomicU64,
    quiet_looks: AtomicU64,
    opened: Instant,
    /// Milliseconds from `opened` to when it was woken last.
    woken_ms: AtomicU64,
    /// Told when it is not quiesced any more.
    stir: Arc<Stir>,
}

impl Seat {
    pub(super) fn new(id: GroupId, raft: Raft, left: Option<LogIndex>, stir: Arc<Stir>) -> Self {
        Self {
            id,
            raft,
            left,
            quiesced: Mutex::new(false),
            followed: Mutex::new(None),
            activity: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            quiet_looks: AtomicU64::new(0),
            opened: Instant::now(),
            woken_ms: AtomicU64::new(0),
            stir,
        }
    }

    /// The leader, as far as this node knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// This node.
    pub(super) fn node(&self) -> NodeId {
        *self.raft.node_id()
    }

    /// Whether this node may take part in elections: see `leaving.rs`.
    pub(super) fn has_come_back(&self) -> bool {
        leaving::has_come_back(&self.raft, self.left)
    }

    pub(super) fn is_quiesced(&self) -> bool {
        *self.quiesced()
    }

    fn quiesced(&self) -> MutexGuard<'_, bool> {
        // Whoever held it only set it, and switched the clock.
        self.quiesced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, Option<(NodeId, Instant)>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leader's entries or heartbeat are taken: it may count on this node for a lease.
    pub(super) fn follow(&self, leader: NodeId) {
        *self.followed() = Some((leader, Instant::now()));
    }

    /// The leader that may count on this node not to elect another.
    pub(super) fn promised_to(&self) -> Option<NodeId> {
        let (leader, when) = (*self.followed())?;
        (when.elapsed() < LEASE).then_some(leader)
    }

    /// Whether it sleeps, or was woken so lately that it may not have heard of a quorum yet.
    pub(super) fn is_drowsy(&self) -> bool {
        let woken = Duration::from_millis(self.woken_ms.load(Ordering::Relaxed));
        self.is_quiesced() || self.opened.elapsed() < woken + WAKING
    }

    /// Something was asked of the group: it is not to be quiesced soon.
    pub(super) fn touch(&self) {
        self.activity.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn activity(&self) -> u64 {
        self.activity.load(Ordering::SeqCst)
    }

    /// Takes a look; for how many of them nothing was asked.
    pub(super) fn quiet_looks(&self) -> u64 {
        let now = self.activity();
        if self.seen.swap(now, Ordering::Relaxed) != now {
            self.quiet_looks.store(0, Ordering::Relaxed);
            return 0;
        }
        self.quiet_looks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Heartbeats and elections by timeout end, unless something was asked since `activity`. Whether they did.
    pub(super) fn quiesce(&self, activity: u64) -> bool {
        let mut quiesced = self.quiesced();
        // Whoever asks looks at the flag behind it, and so either is seen here or sees what happens here.
        if self.activity() != activity {
            return false;
        }
        *quiesced = true;
        self.raft.runtime_config().tick(false);
        true
    }

    /// Elections by timeout end while another way to a leader is tried.
    pub(super) fn hold(&self) {
        let mut quiesced = self.quiesced();
        *quiesced = false;
        self.raft.runtime_config().tick(false);
        self.stir.stir();
    }

    /// The end of [`Seat::hold`].
    pub(super) fn release(&self) {
        let quiesced = self.quiesced();
        self.raft.runtime_config().tick(!*quiesced);
    }

    /// Heartbeats and elections by timeout go on. A leader hears of its quorum again.
    pub(super) async fn wake(&self) {
        let leads = self.raft.server_metrics().borrow_watched().state == ServerState::Leader;
        if self.rouse() && leads {
            // It fails only with the group, which says so to whoever asks it next.
            let _ = self.raft.trigger().heartbeat().await;
        }
    }

    /// As [`Seat::wake`], for a node that does not lead.
    pub(super) fn rouse(&self) -> bool {
        let mut quiesced = self.quiesced();
        if !std::mem::replace(&mut *quiesced, false) {
            return false;
        }
        let now = self.opened.elapsed().as_millis();
        self.woken_ms
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.quiet_looks.store(0, Ordering::Relaxed);
        self.raft.runtime_config().tick(true);
        self.stir.stir();
        true
    }
}
