//! What the catalog's leader was told of all partitions, and asking it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kelda_proto::internal::v1::{
    GetOverviewRequest, GetOverviewResponse, PartitionReport, ReportRequest, ReportResponse,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::is_settled;
use crate::{
    broker::{Broker, Error, route::LOOK_AGAIN},
    machine::placement::Load,
    types::{GroupId, LogIndex, NodeId},
};

/// How long a call may wait for what it can do without.
const SOON: Duration = Duration::from_secs(1);
/// How often who is alive is looked at while somebody waits for a change.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the catalog's leader may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a change that a node may ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is known of nodes and partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Overview {
    pub(super) version: u64,
    /// Version of the catalog that its leader had then.
    pub(super) catalog_version: u64,
    pub(super) alive: BTreeSet<NodeId>,
    pub(super) complete: bool,
    /// Those that have a leader.
    pub(super) partitions: BTreeMap<GroupId, Known>,
}

/// A partition, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) leader: NodeId,
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) learners: BTreeSet<NodeId>,
    pub(super) load: Load,
    age: Age,
}

/// Which of two reports of a partition is newer: the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    /// Of the partition's leader.
    term: u64,
    /// That leader: two nodes can have led in the same term, the one of the higher id after the other.
    leader: NodeId,
    /// The entry that made its members.
    membership: LogIndex,
}

impl Known {
    /// All members of the group.
    pub(super) fn members(&self) -> impl Iterator<Item = NodeId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

impl Overview {
    /// What is known while nobody has said anything.
    pub(super) fn of_nodes(alive: impl Iterator<Item = NodeId>) -> Self {
        Self {
            alive: alive.collect(),
            ..Self::default()
        }
    }

    /// The leader of a partition and the bytes that it stores of it, as it has reported lately, if it lives.
    pub(in crate::broker) fn report_of(&self, group: GroupId) -> Option<(NodeId, u64)> {
        let known = self.partitions.get(&group)?;
        let lives = self.alive.contains(&known.leader);
        lives.then_some((known.leader, known.load.disk_bytes))
    }

    /// Whether a partition's group is on its way to these replicas. One that waits for a silent node is not: it may never
    /// get there, and must not hold up others.
    pub(super) fn is_moving(&self, group: GroupId, replicas: &[NodeId]) -> bool {
        let Some(known) = self.partitions.get(&group) else {
            return false;
        };
        let mut missing = replicas.iter().filter(|id| !known.voters.contains(id));
        !is_settled(group, replicas, self) && missing.all(|id| self.alive.contains(id))
    }

    pub(super) fn leaders(&self) -> BTreeMap<NodeId, usize> {
        let mut leaders = BTreeMap::new();
        for known in self.partitions.values() {
            *leaders.entry(known.leader).or_default() += 1;
        }
        leaders
    }
}

impl From<&PartitionReport> for Known {
    fn from(report: &PartitionReport) -> Self {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Self {
            leader: NodeId(report.leader),
            voters: nodes(&report.voters),
            learners: nodes(&report.learners),
            load: Load {
                bytes_per_second: report.bytes_per_second,
                disk_bytes: report.stored_bytes,
            },
            age: Age {
                term: report.term,
                leader: NodeId(report.leader),
                membership: LogIndex(report.membership_index),
            },
        }
    }
}

fn wire(group: GroupId, known: &Known) -> PartitionReport {
    let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|id| id.0).collect();
    PartitionReport {
        group: group.0,
        leader: known.leader.0,
        voters: ids(&known.voters),
        learners: ids(&known.learners),
        bytes_per_second: known.load.bytes_per_second,
        stored_bytes: known.load.disk_bytes,
        term: known.age.term,
        membership_index: known.age.membership.0,
    }
}

impl From<GetOverviewResponse> for Overview {
    fn from(answer: GetOverviewResponse) -> Self {
        let known = |report: &PartitionReport| (GroupId(report.group), Known::from(report));
        Self {
            version: answer.version,
            catalog_version: answer.catalog_version,
            alive: answer.alive.into_iter().map(NodeId).collect(),
            complete: answer.complete,
            partitions: answer.partitions.iter().map(known).collect(),
        }
    }
}

/// The reports that came to this node, for while it leads the catalog.
pub(in crate::broker) struct Reports {
    known: Mutex<Reported>,
    version: watch::Sender<u64>,
    /// Counts the changes of loads.
    loads: watch::Sender<u64>,
}

#[derive(Default)]
struct Reported {
    /// Of this node as the catalog's leader. What was said in another one is too old.
    term: u64,
    partitions: BTreeMap<GroupId, Known>,
    /// The newest report of each partition, also while nobody says any more that it leads it.
    newest: BTreeMap<GroupId, Age>,
    /// Who has reported since this node leads.
    from: BTreeSet<NodeId>,
    alive: BTreeSet<NodeId>,
}

impl Reports {
    /// None yet. Versions of one node differ from those of all others.
    pub(in crate::broker) fn new(node: NodeId) -> Self {
        Self {
            known: Mutex::default(),
            version: watch::channel((node.0 << 40) + 1).0,
            loads: watch::channel(0).0,
        }
    }

    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn loads(&self) -> watch::Receiver<u64> {
        self.loads.subscribe()
    }

    fn lock(&self, term: u64) -> MutexGuard<'_, Reported> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.term != term {
            *known = Reported {
                term,
                ..Reported::default()
            };
        }
        known
    }

    /// Takes note of what a node leads, but for what another one has led since.
    fn note(&self, term: u64, from: NodeId, partitions: &[PartitionReport]) {
        let mut known = self.lock(term);
        let told: BTreeSet<GroupId> = partitions.iter().map(|it| GroupId(it.group)).collect();
        let mut changed = known.from.insert(from);
        let mut loads_changed = false;
        let before = known.partitions.len();
        let keeps = |group: &GroupId, it: &Known| it.leader != from || told.contains(group);
        known.partitions.retain(|group, it| keeps(group, it));
        changed |= known.partitions.len() != before;
        for report in partitions {
            let group = GroupId(report.group);
            let mut partition = Known::from(report);
            partition.leader = from;
            partition.age.leader = from;
            let newest = known.newest.entry(group).or_default();
            if partition.age < *newest {
                continue;
            }
            *newest = partition.age;
            let before = known.partitions.insert(group, partition.clone());
            let load_before = before.as_ref().map(|before| before.load);
            loads_changed |= load_before != Some(partition.load);
            changed |= before.is_none_or(|before| {
                (before.leader, before.voters, before.learners)
                    != (partition.leader, partition.voters, partition.learners)
            });
        }
        drop(known);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
        if loads_changed {
            self.loads.send_modify(|loads| *loads += 1);
        }
    }

    /// Takes note of who is alive, and forgets what is not in the catalog any more.
    fn note_cluster(&self, term: u64, alive: BTreeSet<NodeId>, exists: impl Fn(GroupId) -> bool) {
        let changed = {
            let mut known = self.lock(term);
            let Reported {
                newest, partitions, ..
            } = &mut *known;
            newest.retain(|group, _| partitions.contains_key(group) || exists(*group));
            let changed = known.alive != alive;
            known.alive = alive;
            changed
        };
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    fn overview(&self, term: u64) -> Overview {
        let known = self.lock(term);
        Overview {
            version: *self.version.borrow(),
            alive: known.alive.clone(),
            complete: known.alive.is_subset(&known.from),
            partitions: known.partitions.clone(),
            catalog_version: 0,
        }
    }
}

impl Broker {
    /// What this node knows as the catalog's leader; nothing if it does not lead, which takes a quorum to say: others may
    /// have elected a leader while it slept, and moved everything.
    pub(super) async fn overview_here(&self) -> Option<Overview> {
        let leads = self.shared.catalog.group().confirm_lead().await;
        leads.then(|| self.noted()).flatten()
    }

    /// What was reported to this node, while it has not noticed that another one leads the catalog.
    pub(super) fn noted(&self) -> Option<Overview> {
        let group = self.shared.catalog.group();
        if !group.may_lead() {
            return None;
        }
        let catalog = self.shared.catalog.view();
        let mut alive = group.present();
        alive.retain(|node| catalog.node(*node).is_some());
        let term = group.term();
        let exists = |group| catalog.partition_of_group(group).is_some();
        self.shared.reports.note_cluster(term, alive, exists);
        Some(Overview {
            catalog_version: catalog.version(),
            ..self.shared.reports.overview(term)
        })
    }

    /// Waits for a version of the catalog that has all that was acknowledged before this was called: its leader says
    /// which. What is stored here does not tell: a node that comes back still knows the leader that it had, and not what
    /// that one did meanwhile.
    pub(in crate::broker) async fn newest_catalog(&self) -> u64 {
        loop {
            if let Some(overview) = self.ask_overview(0, Duration::ZERO).await {
                return overview.catalog_version;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What the catalog's leader knows, once all nodes that answer have reported to it.
    pub(super) async fn overview(&self) -> Result<Overview, Error> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let asked = self.ask_overview(0, Duration::ZERO);
            let overview = timeout_at(deadline, asked).await.ok().flatten();
            let has_leader = overview.is_some();
            if let Some(overview) = overview.filter(|it| it.complete) {
                return Ok(overview);
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(if has_leader {
                    Error::NotReady
                } else {
                    Error::NoCatalogLeader
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The same for who can do without.
    pub(in crate::broker) async fn overview_soon(&self) -> Option<Overview> {
        timeout(SOON, self.ask_overview(0, Duration::ZERO))
            .await
            .ok()?
    }

    /// Asks the catalog's leader for a version other than `known`, for a while.
    pub(super) async fn ask_overview(&self, known: u64, wait: Duration) -> Option<Overview> {
        let leader = self.shared.catalog.group().leader()?;
        if leader == self.node() {
            return self.overview_other_than(known, wait).await;
        }
        let mut client = self.peer(leader).ok()?;
        let request = GetOverviewRequest {
            known_version: known,
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        };
        let answer = timeout(wait + ANSWER_TIMEOUT, client.get_overview(request)).await;
        let answer = answer.ok()?.ok()?.into_inner();
        (!answer.not_leader).then(|| answer.into())
    }

    /// For another node: a version other than the one that it has, once there is one or its wait is over.
    pub async fn overview_for(&self, request: &GetOverviewRequest) -> GetOverviewResponse {
        let wait = Duration::from_millis(u64::from(request.max_wait_ms.unsigned_abs()));
        match self
            .overview_other_than(request.known_version, wait.min(WAIT_MAX))
            .await
        {
            None => GetOverviewResponse {
                not_leader: true,
                ..GetOverviewResponse::default()
            },
            Some(overview) => GetOverviewResponse {
                not_leader: false,
                version: overview.version,
                catalog_version: overview.catalog_version,
                alive: overview.alive.iter().map(|id| id.0).collect(),
                complete: overview.complete,
                partitions: overview
                    .partitions
                    .iter()
                    .map(|(group, known)| wire(*group, known))
                    .collect(),
            },
        }
    }

    async fn overview_other_than(&self, known: u64, wait: Duration) -> Option<Overview> {
        let deadline = Instant::now() + wait;
        let mut versions = self.shared.reports.versions();
        loop {
            versions.mark_unchanged();
            // Only to see whether there is something to tell: asking the others each time would keep the catalog awake.
            let overview = self.noted()?;
            if overview.version != known || Instant::now() >= deadline {
                return self.overview_here().await;
            }
            let pause = deadline.min(Instant::now() + ALIVE_INTERVAL);
            // Whatever ends the pause, all is looked at again.
            let _ = timeout_at(pause, versions.changed()).await;
        }
    }

    /// Takes note of what another node leads, if this one leads the catalog.
    pub fn take_report(&self, from: NodeId, report: &ReportRequest) -> ReportResponse {
        let group = self.shared.catalog.group();
        let leads = group.leader() == Some(self.node());
        if leads {
            self.shared
                .reports
                .note(group.term(), from, &report.partitions);
        }
        ReportResponse { not_leader: !leads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(group: u64, voters: &[u64]) -> PartitionReport {
        PartitionReport {
            group,
            voters: voters.to_vec(),
            ..PartitionReport::default()
        }
    }

    #[test]
    fn a_partition_is_led_by_who_said_so_last_and_only_changes_count() {
        let reports = Reports::new(NodeId(1));
        let version = || *reports.version.borrow();
        reports.note(1, NodeId(1), &[report(7, &[1, 2]), report(8, &[1])]);
        let first = version();
        reports.note(1, NodeId(1), &[report(7, &[1, 2]), report(8, &[1])]);
        assert_eq!(version(), first);
        reports.note(1, NodeId(2), &[report(7, &[1, 2])]);
        assert!(version() > first);
        let leader = |group| {
            let overview = reports.overview(1);
            let known = overview.partitions.get(&GroupId(group));
            known.map(|it| it.leader.0)
        };
        assert_eq!((leader(7), leader(8)), (Some(2), Some(1)));
        reports.note(1, NodeId(1), &[]);
        assert_eq!((leader(7), leader(8)), (Some(2), None));
        assert_eq!(reports.overview(2).partitions.len(), 0, "too old");
    }

    #[test]
    fn who_was_deposed_is_not_believed_however_late_it_says_that_it_leads() {
        let at = |term, membership_index, voters: &[u64]| PartitionReport {
            term,
            membership_index,
            ..report(7, voters)
        };
        let reports = Reports::new(NodeId(1));
        let known = || reports.overview(1).partitions.get(&GroupId(7)).cloned();
        let leader = || known().map(|it| it.leader.0);
        reports.note(1, NodeId(2), &[at(5, 9, &[2, 3])]);
        reports.note(1, NodeId(1), &[at(4, 10, &[1, 2])]);
        assert_eq!(leader(), Some(2));
        reports.note(1, NodeId(2), &[at(5, 8, &[2])]);
        let voters = known().map(|it| it.voters.len());
        assert_eq!((leader(), voters), (Some(2), Some(2)), "older members");
        // Nor once the real one has stepped down.
        reports.note(1, NodeId(2), &[]);
        reports.note_cluster(1, BTreeSet::new(), |group| group == GroupId(7));
        reports.note(1, NodeId(1), &[at(4, 10, &[1, 2])]);
        assert_eq!(leader(), None);
        reports.note(1, NodeId(1), &[at(6, 9, &[1, 2])]);
        assert_eq!(leader(), Some(1));
        // What is not in the catalog any more is not kept for ever.
        reports.note(1, NodeId(1), &[]);
        reports.note_cluster(1, BTreeSet::new(), |_| false);
        assert!(reports.lock(1).newest.is_empty());
    }

    #[test]
    fn what_waits_for_a_silent_node_is_not_moving() {
        let reports = Reports::new(NodeId(1));
        reports.note(1, NodeId(1), &[report(7, &[1, 2])]);
        reports.note_cluster(1, [1, 2, 3].map(NodeId).into(), |_| true);
        let overview = reports.overview(1);
        assert!(!overview.complete, "2 and 3 have not reported");
        let replicas = |ids: [u64; 2]| ids.map(NodeId);
        assert!(!overview.is_moving(GroupId(7), &replicas([2, 1])));
        assert!(overview.is_moving(GroupId(7), &replicas([1, 3])));
        assert!(!overview.is_moving(GroupId(7), &replicas([1, 4])));
    }
}
