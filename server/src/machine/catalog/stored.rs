//! The catalog as it is stored and sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use kelda_proto::internal::v1::{CatalogNode, CatalogPartition, CatalogState, CatalogTopic};

use super::{Catalog, Node, Partition, Topic};
use crate::machine::topic_config::validate_name;
use crate::machine::{Invalid, ensure};
use crate::types::{GroupId, NodeId};

/// No counter gets near this by counting, so that none can overflow behind it.
const COUNTER_MAX: u64 = 1 << 62;

impl Catalog {
    /// Takes over a stored state.
    ///
    /// # Errors
    /// If the state contradicts itself.
    pub fn restore(state: CatalogState) -> Result<Self, Invalid> {
        let counters = [
            state.next_node_id,
            state.next_topic_id,
            state.next_group_id,
            state.version.saturating_add(1),
        ];
        ensure(
            counters
                .iter()
                .all(|counter| (1..=COUNTER_MAX).contains(counter)),
            "counter of the catalog out of range",
        )?;
        let mut catalog = Self {
            cluster_id: state.cluster_id,
            next_node_id: state.next_node_id,
            next_topic_id: state.next_topic_id,
            next_group_id: state.next_group_id,
            version: state.version,
            ..Self::default()
        };
        for node in state.nodes {
            catalog.restore_node(node)?;
        }
        let mut topic_ids = BTreeSet::new();
        for topic in state.topics {
            ensure(topic_ids.insert(topic.id), "two topics with the same id")?;
            catalog.restore_topic(topic)?;
        }
        Ok(catalog)
    }

    /// Returns the whole state.
    pub fn state(&self) -> CatalogState {
        CatalogState {
            cluster_id: self.cluster_id.clone(),
            nodes: self.nodes.values().map(stored_node).collect(),
            topics: self.topics.values().map(|it| stored_topic(it)).collect(),
            next_node_id: self.next_node_id,
            next_topic_id: self.next_topic_id,
            next_group_id: self.next_group_id,
            version: self.version,
        }
    }

    fn restore_node(&mut self, stored: CatalogNode) -> Result<(), Invalid> {
        ensure(
            (1..self.next_node_id).contains(&stored.id),
            "node id that was never given",
        )?;
        let id = NodeId(stored.id);
        let node = Node {
            id,
            name: stored.name,
            address: stored.address,
            version: stored.version,
            raft_address: stored.raft_address,
            rack: stored.rack,
            draining: stored.draining,
            token: stored.token,
            given_version: stored.given_version,
        };
        ensure(
            node.given_version <= self.version,
            "node that is given a partition later",
        )?;
        let before = self.nodes.insert(id, node);
        ensure(before.is_none(), "two nodes with the same id")
    }

    fn restore_topic(&mut self, stored: CatalogTopic) -> Result<(), Invalid> {
        ensure(
            (1..self.next_topic_id).contains(&stored.id),
            "topic id that was never given",
        )?;
        ensure(validate_name(&stored.name).is_ok(), "topic name not valid")?;
        ensure(!stored.partitions.is_empty(), "topic without partitions")?;
        let name: Arc<str> = stored.name.as_str().into();
        let mut partitions = Vec::with_capacity(stored.partitions.len());
        for (number, partition) in (0..).zip(stored.partitions) {
            partitions.push(self.restore_partition(&name, number, &partition)?);
        }
        let topic = Topic {
            id: stored.id,
            name: stored.name,
            config: stored.config.unwrap_or_default(),
            create_time_ms: stored.create_time_ms,
            replication_factor: match stored.replication_factor {
                0 => partitions.first().map_or(0, replica_count),
                stored => stored,
            },
            partitions,
        };
        let before = self.topics.insert(name, Arc::new(topic));
        ensure(before.is_none(), "two topics with the same name")
    }

    fn restore_partition(
        &mut self,
        topic: &Arc<str>,
        number: u32,
        stored: &CatalogPartition,
    ) -> Result<Partition, Invalid> {
        ensure(
            (1..self.next_group_id).contains(&stored.group),
            "group that was never given",
        )?;
        let group = GroupId(stored.group);
        let before = self.groups.insert(group, (Arc::clone(topic), number));
        ensure(before.is_none(), "two partitions with the same group")?;
        let replicas: Vec<NodeId> = stored.replicas.iter().copied().map(NodeId).collect();
        let founders = match stored.founders.as_slice() {
            [] => replicas.clone(),
            founders => founders.iter().copied().map(NodeId).collect(),
        };
        let distinct: BTreeSet<&NodeId> = replicas.iter().collect();
        ensure(
            !replicas.is_empty() && distinct.len() == replicas.len(),
            "replicas are none or repeated",
        )?;
        ensure(
            replicas.iter().all(|id| self.nodes.contains_key(id)),
            "replica on a node that is not known",
        )?;
        Ok(Partition {
            group,
            replicas,
            founders,
        })
    }
}

fn stored_node(node: &Node) -> CatalogNode {
    CatalogNode {
        id: node.id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        version: node.version.clone(),
        raft_address: node.raft_address.clone(),
        rack: node.rack.clone(),
        draining: node.draining,
        token: node.token.clone(),
        given_version: node.given_version,
    }
}

fn replica_count(partition: &Partition) -> u32 {
    u32::try_from(partition.replicas.len()).unwrap_or(u32::MAX)
}

fn stored_topic(topic: &Topic) -> CatalogTopic {
    let partition = |partition: &Partition| CatalogPartition {
        group: partition.group.0,
        replicas: partition.replicas.iter().map(|node| node.0).collect(),
        founders: if partition.founders == partition.replicas {
            Vec::new()
        } else {
            partition.founders.iter().map(|node| node.0).collect()
        },
    };
    CatalogTopic {
        id: topic.id,
        name: topic.name.clone(),
        config: Some(topic.config),
        create_time_ms: topic.create_time_ms,
        partitions: topic.partitions.iter().map(partition).collect(),
        replication_factor: topic.replication_factor,
    }
}
