//! Where partitions are, and moving them: what `machine::placement` decides, with what nodes report, carried out.
//!
//! Every node tells the catalog's leader what it leads (`reports.rs`), which keeps it (`overview.rs`) and looks after the
//! balance (`balancer.rs`). Any node can ask it for what it knows, and so takes any of the calls.

mod balancer;
mod carry_out;
mod nodes;
mod overview;
mod reports;
mod transfer;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use kelda_proto::v1;

use super::{Broker, Error, status::count};
use crate::{
    consensus::CatalogView,
    machine::{
        catalog::TopicRange,
        placement::{self, Change, Move, Reason, Wanted},
    },
    types::{GroupId, NodeId},
};

pub use watch::ClusterChanges;

pub(super) use balancer::run as balance;
pub(super) use overview::Overview;
pub(super) use overview::Reports;
pub(super) use reports::run as report;

/// Most moves of a plan that is shown.
const PLAN_MOVES_MAX: usize = 1000;

/// The cluster as placement sees it, from the catalog and what is known of leaders and load.
fn cluster(catalog: &CatalogView, overview: &Overview) -> placement::Cluster {
    let nodes = catalog.nodes().map(|node| placement::Node {
        id: node.id,
        rack: node.rack.clone(),
        draining: node.draining,
        alive: overview.alive.contains(&node.id),
    });
    let mut partitions = Vec::with_capacity(catalog.partition_count());
    for topic in catalog.topics_from(TopicRange::default()) {
        for (number, placed) in (0..).zip(&topic.partitions) {
            let known = overview.partitions.get(&placed.group);
            partitions.push(placement::Partition {
                topic: topic.id,
                number,
                replicas: placed.replicas.clone(),
                leader: known.map(|it| it.leader),
                replication_factor: topic.replication_factor as usize,
                load: known.map(|it| it.load).unwrap_or_default(),
                // Without a leader nothing of it can be changed.
                moving: known.is_none() || overview.is_moving(placed.group, &placed.replicas),
            });
        }
    }
    placement::Cluster {
        nodes: nodes.collect(),
        partitions,
    }
}

/// Partitions whose groups are on their way to other members.
fn moving(catalog: &CatalogView, overview: &Overview) -> usize {
    let topics = catalog.topics_from(TopicRange::default());
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions
        .filter(|placed| overview.is_moving(placed.group, &placed.replicas))
        .count()
}

impl Broker {
    /// Chooses the replicas of new partitions; those of a topic that is there, or 0.
    pub(super) async fn place(&self, wanted: Wanted) -> Option<Vec<Vec<NodeId>>> {
        // A topic can be created while nobody knows who is alive: then all nodes are taken to be.
        let overview = self.overview_soon().await.unwrap_or_else(|| {
            let nodes = self.shared.catalog.view();
            Overview::of_nodes(nodes.nodes().map(|node| node.id))
        });
        let catalog = self.shared.catalog.view();
        placement::place(&cluster(&catalog, &overview), wanted)
    }

    /// What would be moved, and how many partitions are moving.
    pub async fn assignment_plan(
        &self,
        moves_max: usize,
    ) -> Result<v1::GetAssignmentPlanResponse, Error> {
        self.check_ready()?;
        let overview = self.overview().await?;
        let catalog = self.shared.catalog.view();
        let limit = match moves_max {
            0 => PLAN_MOVES_MAX,
            asked => asked.min(PLAN_MOVES_MAX),
        };
        let mut moves = placement::plan(&cluster(&catalog, &overview), limit);
        moves.truncate(limit);
        Ok(v1::GetAssignmentPlanResponse {
            moves: described(&catalog, &overview, &moves),
            moving_partition_count: count(moving(&catalog, &overview)),
        })
    }
}

/// Moves in the words of the contract. Each supposes that those before it were made.
fn described(
    catalog: &CatalogView,
    overview: &Overview,
    moves: &[Move],
) -> Vec<v1::AssignmentMove> {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|id| id.0).collect::<Vec<_>>();
    let topics: BTreeMap<u64, _> = catalog
        .topics_from(TopicRange::default())
        .map(|topic| (topic.id, topic))
        .collect();
    // Replicas and leader behind the moves so far.
    let mut now: BTreeMap<(u64, u32), (Vec<NodeId>, u64)> = BTreeMap::new();
    let describe = |made: &Move| {
        let topic = topics.get(&made.topic)?;
        let placed = topic.partitions.get(made.partition as usize)?;
        let (replicas, leader) = now.entry((made.topic, made.partition)).or_insert_with(|| {
            let known = overview.partitions.get(&placed.group);
            let leader = known.map_or(0, |it| it.leader.0);
            (placed.replicas.clone(), leader)
        });
        let (before, leader_before) = (replicas.clone(), *leader);
        match &made.change {
            Change::Replicas {
                after,
                leader: next,
                ..
            } => {
                replicas.clone_from(after);
                if !after.iter().any(|id| id.0 == leader_before) {
                    *leader = next.map_or(0, |id| id.0);
                }
            }
            Change::Leader { to, .. } => *leader = to.0,
        }
        Some(v1::AssignmentMove {
            topic: topic.name.clone(),
            partition: made.partition.cast_signed(),
            replicas_before: ids(&before),
            replicas_after: ids(replicas),
            leader_before,
            leader_after: *leader,
            reason: reason(made.reason).into(),
        })
    };
    moves.iter().filter_map(describe).collect()
}

fn reason(reason: Reason) -> v1::AssignmentReason {
    match reason {
        Reason::NodeRemoved => v1::AssignmentReason::NodeRemoved,
        Reason::NodeDraining => v1::AssignmentReason::NodeDraining,
        Reason::ReplicationFactor => v1::AssignmentReason::ReplicationFactor,
        Reason::RackRepeated => v1::AssignmentReason::RackRepeated,
        Reason::ReplicasUnbalanced => v1::AssignmentReason::ReplicasUnbalanced,
        Reason::LoadUnbalanced => v1::AssignmentReason::LoadUnbalanced,
        Reason::LeadersUnbalanced => v1::AssignmentReason::LeadersUnbalanced,
    }
}

/// Whether a group has exactly these members.
fn is_settled(group: GroupId, replicas: &[NodeId], overview: &Overview) -> bool {
    overview.partitions.get(&group).is_some_and(|known| {
        let wanted: BTreeSet<NodeId> = replicas.iter().copied().collect();
        known.learners.is_empty() && known.voters == wanted
    })
}
