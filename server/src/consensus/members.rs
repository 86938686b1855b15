//! Who is in a group, and changing it: a new member first learns the log, and votes once it has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::atomic::Ordering,
    time::Duration,
};

use futures::{Stream, future::pending, stream};
use openraft::{ChangeMembers, Instant as _, ServerState, async_runtime::WatchReceiver};
use tokio::time::{Instant, sleep};

use super::{Group, Member, Membership, seat::WAKING};
use crate::types::{LogIndex, NodeId};

/// How long after a quorum was heard of nobody else can lead: the least time before followers elect another.
pub(super) const LEASE: Duration = Duration::from_millis(600);
/// How long followers that hear nothing of a leader wait at most before they elect another.
const ELECTION_MAX: Duration = Duration::from_millis(1200);
/// Pause between two looks at whether this node still leads.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Entries that a learner may lack when it becomes a voter.
const CAUGHT_UP: u64 = 1000;
/// How long a change of members may take to be committed.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leader that leaves waits for the next one, and how lately that one must have been heard of: meanwhile nobody
/// leads.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(1);
/// How long a member may be silent and still count as there.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those who vote.
    pub voters: BTreeSet<NodeId>,
    /// Those who only get the log.
    pub learners: BTreeSet<NodeId>,
    /// Where they are, in the catalog's group: its log is what a node finds the others by when it comes back.
    pub addresses: BTreeMap<NodeId, String>,
}

/// A group as the node sees it that leads it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// Term in which it leads.
    pub term: u64,
    /// The members.
    pub members: Members,
    /// The entry that made them so.
    pub membership_index: LogIndex,
}

impl Group {
    /// The members, as this node knows them.
    pub fn members(&self) -> Members {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        members(metrics.membership_config.membership())
    }

    /// The group, if this node leads it as far as it knows. Another may have been elected: its term is later.
    pub fn led(&self) -> Option<Led> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let index = membership.log_id().as_ref().map_or(0, |id| id.index);
        (metrics.current_leader == Some(metrics.id)).then(|| Led {
            term: metrics.vote.leader_id().term,
            members: members(membership.membership()),
            membership_index: LogIndex(index),
        })
    }

    /// Where the members are, as the log has it.
    ///
    /// # Errors
    /// If the group has failed.
    pub async fn addresses(&self) -> io::Result<BTreeMap<NodeId, String>> {
        let found = self
            .raft
            .with_raft_state(|state| addresses(state.membership_state.effective().membership()));
        found.await.map_err(io::Error::other)
    }

    /// The leader, unless it or most of those who vote have fallen silent: then what this node remembers of it says
    /// nothing, and the group can do nothing.
    pub fn leader_in_touch(&self) -> Option<NodeId> {
        let leader = self.leader()?;
        (self.is_heard(leader) && self.has_quorum()).then_some(leader)
    }

    /// Whether most of those who vote give signs of life.
    pub fn has_quorum(&self) -> bool {
        self.most_vote(|node| self.is_heard(node))
    }

    /// Whether most of those who vote are not among these.
    pub fn has_quorum_without(&self, silent: &BTreeSet<NodeId>) -> bool {
        self.most_vote(|node| !silent.contains(&node))
    }

    fn most_vote(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        configs.iter().all(|voters| {
            let counted = voters.iter().filter(|node| counts(**node)).count();
            counted * 2 > voters.len()
        })
    }

    fn is_heard(&self, node: NodeId) -> bool {
        node == self.seat.node() || self.inbox.signs().lives(node)
    }

    /// Whether this node leads the group and may speak for it: it has applied all that was committed before it led, and
    /// has heard of a quorum so lately that nobody else can lead.
    pub fn leads(&self) -> bool {
        self.holds_office() && self.is_undisputed()
    }

    /// Whether this node leads the group, or led it when it was quiesced: [`Group::confirm_lead`] tells whether it still
    /// does.
    pub fn may_lead(&self) -> bool {
        self.holds_office() && (self.seat.is_drowsy() || self.is_undisputed())
    }

    /// As [`Group::leads`]; a group that was quiesced is woken for it, and so it takes a round trip.
    pub async fn confirm_lead(&self) -> bool {
        self.seat.touch();
        if !self.may_lead() {
            return false;
        }
        // Also while it is still undisputed: nothing would tell its members soon that it goes on.
        self.seat.wake().await;
        if self.leads() {
            return true;
        }
        let mut data = self.raft.data_metrics();
        let confirmed = async { while !self.leads() && data.changed().await.is_ok() {} };
        // Safe to cancel: it only watches.
        let _ = tokio::time::timeout(WAKING, confirmed).await;
        self.leads()
    }

    fn holds_office(&self) -> bool {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        if server.state != ServerState::Leader || self.handing_over.load(Ordering::Acquire) {
            return false;
        }
        // openraft hands leadership on by itself once a leader is left out.
        let committed = server.committed_membership_config.membership();
        if committed.get_node(&server.id).is_none() {
            return false;
        }
        let term = server.vote.leader_id().term;
        let data = self.raft.data_metrics();
        let applied = data.borrow_watched().last_applied;
        applied.is_some_and(|id| id.leader_id.term == term)
    }

    fn is_undisputed(&self) -> bool {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        // A leader that is being left out is not the one voter that remains.
        let voters = server.membership_config.membership().voter_ids();
        if voters.eq([server.id]) {
            return true;
        }
        let data = self.raft.data_metrics();
        let heard = data.borrow_watched().last_quorum_acked;
        heard.is_some_and(|heard| heard.elapsed() < LEASE)
    }

    /// Term, as this node knows it: every election begins a new one.
    pub fn term(&self) -> u64 {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.vote.leader_id().term
    }

    /// Waits until this node has not led the group for so long that another has been elected, or that there is no
    /// quorum: who waits for a command then had better ask elsewhere.
    pub async fn left_alone(&self) {
        let mut led = Instant::now();
        while led.elapsed() < ELECTION_MAX {
            sleep(LOOK_AGAIN).await;
            if self.leads() {
                led = Instant::now();
            }
        }
    }

    /// Waits until the leader is not, or may not be, the one `before`. A group that has stopped hears of no other.
    pub async fn leader_changed(&self, before: Option<NodeId>) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader == before {
            if metrics.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Whether exactly these nodes are members, all of them voters, and nothing of a change is left.
    pub fn is_of(&self, voters: &[NodeId]) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let [only] = membership.get_joint_config().as_slice() else {
            return false;
        };
        let all_vote = only.len() == membership.nodes().count();
        all_vote && only.len() == voters.len() && voters.iter().all(|node| only.contains(node))
    }

    /// Hands leadership to the voter that has most of the log, if this node leads and there is one, and waits until it
    /// leads, at most for `patience`.
    pub async fn hand_over(&self, patience: Duration) {
        if !self.confirm_lead().await {
            return;
        }
        let voters = self.members().voters;
        if let Some(next) = self.successor(&voters) {
            self.hand_over_to(next, patience).await;
        }
    }

    async fn hand_over_to(&self, next: NodeId, patience: Duration) {
        self.handing_over.store(true, Ordering::Release);
        self.transfer(next, patience).await;
        self.handing_over.store(false, Ordering::Release);
    }

    /// Hands leadership to a voter that has the log and answers, if this node leads. Returns whether that one leads now.
    pub async fn transfer_to(&self, next: NodeId, patience: Duration) -> bool {
        if !self.leads() || !self.members().voters.contains(&next) {
            return false;
        }
        if next == *self.raft.node_id() {
            return true;
        }
        if !self.caught_up().contains(&next) || !self.is_heard(next) {
            return false;
        }
        self.handing_over.store(true, Ordering::Release);
        self.transfer(next, patience).await;
        self.handing_over.store(false, Ordering::Release);
        self.leader() == Some(next)
    }

    /// Tells whenever the leader or the members may have changed. The first time may be for nothing.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        let metrics = self.raft.server_metrics();
        stream::unfold(metrics, |mut metrics| async move {
            metrics.changed().await.ok()?;
            Some(((), metrics))
        })
    }

    async fn transfer(&self, next: NodeId, patience: Duration) {
        let me = self.raft.node_id();
        if let Err(error) = self.raft.trigger().transfer_leader(next).await {
            tracing::debug!(group = %self.id(), %error, "leadership is not handed over");
            return;
        }
        let wait = self.raft.wait(Some(patience));
        let led = wait.metrics(
            |metrics| metrics.current_leader.is_some_and(|leader| leader != *me),
            "another node leads",
        );
        if let Err(error) = led.await {
            tracing::debug!(group = %self.id(), %error, "leadership is not handed over in time");
        }
    }

    /// The living one of `voters` that has most of the log, but for this node.
    fn successor(&self, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
        if !self.leads() {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.iter().flatten();
        let others = replication.filter(|(node, _)| {
            **node != metrics.id && voters.contains(node) && self.is_heard(**node)
        });
        let best = others.max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index))?;
        best.1.as_ref().map(|_| *best.0)
    }

    /// The members that were heard of lately: this node too.
    pub fn present(&self) -> BTreeSet<NodeId> {
        self.heard_within(SILENCE_MAX)
    }

    fn heard_within(&self, time: Duration) -> BTreeSet<NodeId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let is_present = |node: &NodeId| {
            *node == metrics.id || self.inbox.signs().silent_since(*node).elapsed() < time
        };
        let nodes = members.nodes().map(|(node, _)| *node);
        nodes.filter(is_present).collect()
    }

    /// Makes one step towards these members, if this node leads: adds what is missing as learners, makes those voters
    /// who have the log, and then leaves out who is too many. A leader that is itself too many hands leadership over
    /// before. Returns whether the group has them; else it is to be called again, once the learners have caught up, by
    /// whoever leads then.
    ///
    /// # Errors
    /// Says why the step failed, such as for lack of a quorum; another one may follow.
    pub async fn approach(&self, wanted: &Members) -> io::Result<bool> {
        let now = self.members();
        let all: BTreeSet<NodeId> = now.voters.union(&now.learners).copied().collect();
        let member = |node: &NodeId| {
            let address = wanted.addresses.get(node).cloned().unwrap_or_default();
            (*node, Member { address })
        };
        let moved = wanted.addresses.iter().filter(|(node, address)| {
            all.contains(node) && now.addresses.get(node) != Some(address)
        });
        let moved: BTreeMap<NodeId, Member> = moved.map(|(node, _)| member(node)).collect();
        if !moved.is_empty() {
            self.change_members(ChangeMembers::SetNodes(moved)).await?;
            return Ok(false);
        }
        let missing = wanted.voters.union(&wanted.learners);
        let missing = missing.filter(|node| !all.contains(node));
        let missing: BTreeMap<NodeId, Member> = missing.map(member).collect();
        if !missing.is_empty() {
            self.change_members(ChangeMembers::AddNodes(missing))
                .await?;
            return Ok(false);
        }
        // A change whose leader was lost half-way is brought to its end too.
        if now.voters != wanted.voters || self.is_joint() {
            let (ready, present) = (self.caught_up(), self.present());
            let can_vote = |node: &NodeId| {
                now.voters.contains(node) || (ready.contains(node) && present.contains(node))
            };
            if wanted.voters.iter().all(can_vote) {
                self.replace_voters(&now, wanted).await?;
            }
            return Ok(false);
        }
        let surplus: BTreeSet<NodeId> =
            now.learners.difference(&wanted.learners).copied().collect();
        if !surplus.is_empty() {
            self.change_members(ChangeMembers::RemoveNodes(surplus))
                .await?;
            return Ok(false);
        }
        Ok(true)
    }

    fn is_joint(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .membership()
            .get_joint_config()
            .len()
            > 1
    }

    /// Makes those voters who are wanted, all of whom have the log. If this node is not among them, one that stays leads
    /// first: who leaves can not say what is committed of its own leaving. If nobody stays, the wanted ones vote beside
    /// this node until one of them leads.
    async fn replace_voters(&self, now: &Members, wanted: &Members) -> io::Result<()> {
        let me = *self.raft.node_id();
        let mut voters = wanted.voters.clone();
        if !voters.contains(&me) {
            let fresh = self.heard_within(FRESH);
            let stay = now.voters.intersection(&voters);
            let stay: BTreeSet<NodeId> =
                stay.filter(|node| fresh.contains(node)).copied().collect();
            if let Some(next) = self.successor(&stay) {
                self.hand_over_to(next, HAND_OVER_PATIENCE).await;
                return Ok(());
            }
            voters.insert(me);
            if now.voters == voters && !self.is_joint() {
                return Ok(());
            }
        }
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.change_members(change).await
    }

    async fn change_members(&self, change: ChangeMembers<NodeId, Member>) -> io::Result<()> {
        if !self.confirm_lead().await {
            return Err(io::Error::other("leadership is lost"));
        }
        if !matches!(change, ChangeMembers::SetNodes(_)) {
            // More than one member: heartbeats and elections are needed from now on, see `founding.rs`.
            self.raft.runtime_config().tick(true);
        }
        // Voters that are left out stay as learners until the next step removes them: they hear that they vote no more.
        let changed = self.raft.change_membership(change, true);
        let changed = tokio::time::timeout(CHANGE_TIMEOUT, changed).await?;
        changed.map(|_| ()).map_err(io::Error::other)
    }

    /// Members who lack little of the log.
    fn caught_up(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or_default();
        let replication = metrics.replication.iter().flatten();
        replication
            // One that has never answered has nothing, however short the log is.
            .filter(|(_, matched)| {
                matched
                    .as_ref()
                    .is_some_and(|id| id.index + CAUGHT_UP > last)
            })
            .map(|(node, _)| *node)
            .collect()
    }
}

fn members(membership: &Membership) -> Members {
    Members {
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        addresses: addresses(membership),
    }
}

fn addresses(membership: &Membership) -> BTreeMap<NodeId, String> {
    let known = membership
        .nodes()
        .filter(|(_, member)| !member.address.is_empty());
    known
        .map(|(node, member)| (*node, member.address.clone()))
        .collect()
}
