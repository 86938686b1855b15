//! Nodes as clients see them, emptying them and taking them out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kelda_proto::{
    internal::v1::{
        CatalogCommand,
        catalog_command::{self as command, DrainNode, RemoveNode},
    },
    v1,
};
use tokio::time::{Instant, sleep};

use super::{Overview, carry_out::Pace, cluster, overview::Known};
use crate::{
    broker::{Broker, Error, status::count},
    consensus::{CatalogView, ChangeError, Changed},
    machine::{
        catalog::{Node, Rejection, TopicRange},
        placement,
    },
    telemetry::clock,
    types::NodeId,
};

/// How long a node that is to go may take to give its vote on the catalog up.
const VOTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked at what a node holds, while it is given partitions meanwhile.
const CHECKS_MAX: usize = 3;
/// Pause before another look.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Broker {
    /// The nodes of the cluster in ascending order of id.
    pub async fn nodes(&self) -> Vec<v1::Node> {
        let overview = self.overview_soon().await;
        let overview = overview.unwrap_or_else(|| self.heard_overview());
        let mut nodes = described_nodes(&self.shared.catalog.view(), &overview);
        for node in &mut nodes {
            // Sooner than the catalog's leader tells.
            node.alive = self.seems_alive(NodeId(node.id));
        }
        nodes
    }

    /// What this node knows of the others while nobody leads the catalog.
    pub(super) fn heard_overview(&self) -> Overview {
        let catalog = self.shared.catalog.view();
        let nodes = catalog.nodes().map(|node| node.id);
        Overview::of_nodes(nodes.filter(|node| self.seems_alive(*node)))
    }

    /// This node, as far as it knows itself.
    pub(in crate::broker) fn this_node(&self, catalog: &CatalogView) -> Option<v1::Node> {
        let me = self.node();
        let overview = Overview::of_nodes([me].into_iter());
        let nodes = described_nodes(catalog, &overview);
        let mut node = nodes.into_iter().find(|it| it.id == me.0)?;
        let directory = self.directory();
        let led = directory
            .partitions()
            .filter(|partition| partition.may_lead());
        node.leader_count = count(led.count());
        Some(node)
    }

    /// Empties a node, or takes that back.
    pub async fn drain_node(&self, node: NodeId, undo: bool) -> Result<v1::Node, Error> {
        self.check_ready()?;
        self.known_node(node)?;
        if !undo {
            self.check_leave(node)?;
        }
        self.set_draining(node, !undo).await?;
        let nodes = self.nodes().await;
        let found = nodes.into_iter().find(|it| it.id == node.0);
        found.ok_or(Error::UnknownNode { node })
    }

    /// Takes a node out. By force it is emptied first; then what is left on it is said, and it is out once that is 0.
    pub async fn remove_node(
        &self,
        node: NodeId,
        force: bool,
    ) -> Result<v1::RemoveNodeResponse, Error> {
        self.check_ready()?;
        self.known_node(node)?;
        let catalog = self.shared.catalog.view();
        if catalog.nodes().count() == 1 {
            return Err(Error::LastNode { node });
        }
        if force && catalog.replicas_on(node) > 0 {
            self.replace_dead(node).await?;
        }
        for _ in 0..CHECKS_MAX {
            // Before the overview: what the node is given behind this version makes the catalog refuse.
            let catalog = self.shared.catalog.view();
            // The catalog says where replicas go. What is still on its way from the node is seen by the leaders.
            let overview = self.overview().await?;
            let partitions = in_use(&catalog, &overview, node);
            if force && partitions > 0 {
                return Ok(v1::RemoveNodeResponse {
                    removed: false,
                    replica_count: count(partitions),
                });
            }
            if partitions > 0 {
                return Err(Error::NodeInUse { node, partitions });
            }
            self.take_vote(node).await?;
            if self.take_out(node, catalog.version()).await? {
                return Ok(v1::RemoveNodeResponse {
                    removed: true,
                    replica_count: 0,
                });
            }
        }
        // It is given partitions all the time.
        let partitions = self.shared.catalog.view().replicas_on(node).max(1);
        Err(Error::NodeInUse { node, partitions })
    }

    /// Takes a node out that held nothing in a version of the catalog. Whether it is out; else it was given something
    /// since, and that is known here.
    async fn take_out(&self, node: NodeId, checked_version: u64) -> Result<bool, Error> {
        let remove = command::Command::RemoveNode(RemoveNode {
            id: node.0,
            checked_version,
        });
        match self.commit(remove).await {
            Ok(changed) => self.see(changed.version).await.map(|()| true),
            Err(ChangeError::Rejected(Rejection::NodeGivenPartitions { version })) => {
                self.see(version).await.map(|()| false)
            }
            Err(error) => Err(failed(node, error)),
        }
    }

    /// Waits until a node that is to go votes on the catalog no more, see `members.rs`.
    async fn take_vote(&self, node: NodeId) -> Result<(), Error> {
        let group = self.shared.catalog.group();
        let deadline = Instant::now() + VOTE_TIMEOUT;
        while group.members().voters.contains(&node) {
            if Instant::now() >= deadline {
                return Err(Error::NotReady);
            }
            self.set_draining(node, true).await?;
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn replace_dead(&self, node: NodeId) -> Result<(), Error> {
        let overview = self.overview().await?;
        if overview.alive.contains(&node) {
            return Err(Error::NodeAlive { node });
        }
        self.check_leave(node)?;
        let catalog = self.shared.catalog.view();
        for topic in catalog.topics_from(TopicRange::default()) {
            for (number, placed) in (0..).zip(&topic.partitions) {
                let alive = placed
                    .replicas
                    .iter()
                    .filter(|id| overview.alive.contains(id));
                let has_quorum = alive.count() * 2 > placed.replicas.len();
                if placed.replicas.contains(&node) && !has_quorum {
                    return Err(Error::QuorumLost {
                        topic: topic.name.clone(),
                        partition: number,
                    });
                }
            }
        }
        self.set_draining(node, true).await?;
        // The catalog's leader goes on with it.
        self.begin_moves(&overview, Pace::Urgent).await;
        Ok(())
    }

    /// Checks that the other nodes are enough.
    fn check_leave(&self, node: NodeId) -> Result<(), Error> {
        let catalog = self.shared.catalog.view();
        let others = catalog.nodes().filter(|it| it.id != node && !it.draining);
        let nodes = others.count();
        let overview = Overview::of_nodes(catalog.nodes().map(|node| node.id));
        match placement::cannot_leave(&cluster(&catalog, &overview), node) {
            None => Ok(()),
            Some(replication_factor) => Err(Error::TooFewNodesLeft {
                node,
                replication_factor,
                nodes,
            }),
        }
    }

    async fn set_draining(&self, node: NodeId, draining: bool) -> Result<(), Error> {
        let drain = DrainNode {
            id: node.0,
            draining,
        };
        self.change_nodes(node, command::Command::DrainNode(drain))
            .await
    }

    async fn change_nodes(&self, node: NodeId, command: command::Command) -> Result<(), Error> {
        let changed = self.commit(command).await;
        let changed = changed.map_err(|error| failed(node, error))?;
        // Whoever asks this node next is to see it.
        self.see(changed.version).await
    }

    async fn commit(&self, command: command::Command) -> Result<Changed, ChangeError> {
        let command = CatalogCommand {
            time_ms: clock::now_ms(),
            command: Some(command),
        };
        self.shared.catalog.change(&command).await
    }

    /// Waits until this node has a version of the catalog.
    async fn see(&self, version: u64) -> Result<(), Error> {
        let mut catalog = self.shared.catalog.watch();
        let seen = catalog.wait_for(|catalog| catalog.version() >= version);
        seen.await.map(|_| ()).map_err(|_| Error::NotReady)
    }

    pub(super) fn known_node(&self, node: NodeId) -> Result<(), Error> {
        let known = self.shared.catalog.view().node(node).is_some();
        known.then_some(()).ok_or(Error::UnknownNode { node })
    }
}

fn failed(node: NodeId, error: ChangeError) -> Error {
    match error {
        ChangeError::Rejected(Rejection::UnknownNode) => Error::UnknownNode { node },
        ChangeError::Rejected(Rejection::NodeInUse { partitions }) => {
            Error::NodeInUse { node, partitions }
        }
        ChangeError::Rejected(Rejection::LastNode) => Error::LastNode { node },
        other => other.into(),
    }
}

/// Partitions that a node may have the records of.
fn in_use(catalog: &CatalogView, overview: &Overview, node: NodeId) -> usize {
    let topics = catalog.topics_from(TopicRange::default());
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions
        .filter(|placed| match overview.partitions.get(&placed.group) {
            Some(known) => placed.replicas.contains(&node) || known.has(node),
            // It may be the only one that has them, so a node that lives is kept until somebody can say.
            None => placed.replicas.contains(&node) || overview.alive.contains(&node),
        })
        .count()
}

/// All nodes with what they hold.
pub(super) fn described_nodes(catalog: &CatalogView, overview: &Overview) -> Vec<v1::Node> {
    let mut replicas = BTreeMap::<NodeId, usize>::new();
    for topic in catalog.topics_from(TopicRange::default()) {
        for placed in &topic.partitions {
            let known = overview.partitions.get(&placed.group);
            let members = known.into_iter().flat_map(Known::members);
            let all: BTreeSet<NodeId> = placed.replicas.iter().copied().chain(members).collect();
            for id in all {
                *replicas.entry(id).or_default() += 1;
            }
        }
    }
    let leaders = overview.leaders();
    let of = |counts: &BTreeMap<NodeId, usize>, node: &Node| {
        count(counts.get(&node.id).copied().unwrap_or_default())
    };
    let describe = |node: &Node| v1::Node {
        id: node.id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        version: node.version.clone(),
        rack: node.rack.clone(),
        raft_address: node.raft_address.clone(),
        draining: node.draining,
        alive: overview.alive.contains(&node.id),
        replica_count: of(&replicas, node),
        leader_count: of(&leaders, node),
    };
    catalog.nodes().map(describe).collect()
}
