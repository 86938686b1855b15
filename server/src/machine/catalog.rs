//! The catalog machine: which nodes, topics and partitions there are. Ids are counted up and never given twice.

mod nodes;
mod replicas;
mod stored;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use kelda_proto::internal::v1::catalog_command::{
    AddPartitions, Command, CreateTopic, DeleteTopic, UpdateTopic,
};
use kelda_proto::internal::v1::{CatalogCommand, ReplicaSet};
use kelda_proto::limits::PARTITIONS_MAX;
use kelda_proto::v1::TopicConfig;

use super::topic_config::{self, validate_name};
use crate::types::{GroupId, NodeId};

/// Most topics of a cluster.
pub const TOPICS_MAX: usize = 100_000;
/// Most partitions of all topics together.
pub const CLUSTER_PARTITIONS_MAX: usize = 100_000;
/// Most nodes that a cluster ever knew.
pub const NODES_MAX: usize = 10_000;

/// Everything that the whole cluster knows. A clone shares its topics with the original.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    cluster_id: String,
    nodes: BTreeMap<NodeId, Node>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Topic and number of each partition.
    groups: BTreeMap<GroupId, (Arc<str>, u32)>,
    next_node_id: u64,
    next_topic_id: u64,
    next_group_id: u64,
    version: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Address for clients, host:port.
    pub address: String,
    /// Software version.
    pub version: String,
    /// Address for other nodes, host:port.
    pub raft_address: String,
    /// Where it stands; empty: not said.
    pub rack: String,
    /// Whether it is to be emptied.
    pub draining: bool,
    /// What it was known by when it joined; empty: it had none.
    pub token: String,
    /// Version of the catalog that gave it a partition last; 0: none did.
    pub given_version: u64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Id: a topic that was deleted and created again has another one.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Configuration: only what was set.
    pub config: TopicConfig,
    /// When it was created, by the proposer's clock.
    pub create_time_ms: i64,
    /// Partitions; the position is the number.
    pub partitions: Vec<Partition>,
    /// Replicas that each of them is to have.
    pub replication_factor: u32,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its Raft group.
    pub group: GroupId,
    /// Where it is, or is to be. Its Raft group knows who its members are now.
    pub replicas: Vec<NodeId>,
    /// Where it was created: these nodes found its group, with these members.
    pub founders: Vec<NodeId>,
}

/// Which topics to go through, in ascending order of name.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicRange<'a> {
    /// Only names that start with this.
    pub prefix: &'a str,
    /// Only names behind this one; empty: all.
    pub after: &'a str,
}

/// What a command changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster has an id.
    ClusterFounded,
    /// A node is known, or known anew.
    NodeRegistered {
        /// Its id.
        id: NodeId,
    },
    /// There is a new topic.
    TopicCreated {
        /// Its id.
        topic: u64,
    },
    /// A topic has another configuration.
    TopicUpdated,
    /// A topic is gone.
    TopicDeleted {
        /// Groups of its partitions: nothing refers to them any more.
        groups: Vec<GroupId>,
    },
    /// A topic has more partitions.
    PartitionsAdded,
    /// Partitions are to be on other nodes.
    ReplicasMoved,
    /// A node is to be emptied, or no more.
    NodeDrained,
    /// A node is gone.
    NodeRemoved,
    /// Nothing: the catalog was already as the command wants it.
    Unchanged,
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is taken.
    #[error("a topic of this name exists")]
    TopicExists,
    /// There is no such topic.
    #[error("no such topic: create it first")]
    UnknownTopic,
    /// A node id that was never given, or of a node that was removed.
    #[error("no such node")]
    UnknownNode,
    /// Somebody else added partitions.
    #[error("the topic has {partition_count} partitions now")]
    PartitionCountChanged {
        /// Partitions that it has.
        partition_count: u32,
    },
    /// Somebody else moved a partition.
    #[error(
        "partition {partition} has other replicas now: look again, and repeat what is still wanted"
    )]
    ReplicasChanged {
        /// The partition.
        partition: u32,
    },
    /// The node holds data.
    #[error("{partitions} partitions have replicas on the node: drain it first")]
    NodeInUse {
        /// How many.
        partitions: usize,
    },
    /// Somebody gave the node a partition since it was looked at.
    #[error("the node was given partitions with version {version}: look again")]
    NodeGivenPartitions {
        /// The version of the catalog that did so last.
        version: u64,
    },
    /// Without it there is no cluster.
    #[error("it is the last node of the cluster")]
    LastNode,
    /// The cluster is full.
    #[error("the cluster's limit of {limit} is reached")]
    LimitReached {
        /// The limit.
        limit: usize,
    },
    /// The command is not one that a broker proposes.
    #[error("malformed command: {0}")]
    Malformed(&'static str),
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            cluster_id: String::new(),
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_node_id: 1,
            next_topic_id: 1,
            // 0 is the catalog's own group.
            next_group_id: 1,
            version: 0,
        }
    }
}

impl Catalog {
    /// Makes an empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the changes so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Id of the cluster; empty before it is founded.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Returns a topic.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name).map(Arc::as_ref)
    }

    /// Goes through topics in ascending order of name.
    pub fn topics_from<'a>(
        &'a self,
        range: TopicRange<'a>,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + use<'a> {
        let start = if range.after >= range.prefix && !range.after.is_empty() {
            Bound::Excluded(range.after)
        } else {
            Bound::Included(range.prefix)
        };
        self.topics
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, topic)| topic)
            .take_while(move |topic| topic.name.starts_with(range.prefix))
    }

    /// Goes through the nodes in ascending order of id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns a node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.groups.len()
    }

    /// Topic and number of the partition that a group belongs to.
    pub fn partition_of_group(&self, group: GroupId) -> Option<(&str, u32)> {
        self.groups
            .get(&group)
            .map(|(topic, partition)| (topic.as_ref(), *partition))
    }

    /// Replicas of the partition that a group belongs to.
    pub fn replicas_of_group(&self, group: GroupId) -> Option<&[NodeId]> {
        let (topic, partition) = self.groups.get(&group)?;
        let topic = self.topics.get(topic)?;
        let partition = topic.partitions.get(*partition as usize)?;
        Some(&partition.replicas)
    }

    /// The id that the next node gets; all below it were given out.
    pub fn next_node(&self) -> NodeId {
        NodeId(self.next_node_id)
    }

    /// The group that the next partition gets; all below it were given out.
    pub fn next_group(&self) -> GroupId {
        GroupId(self.next_group_id)
    }

    /// Applies a command.
    ///
    /// # Errors
    /// Says why the command changed nothing.
    pub fn apply(&mut self, command: &CatalogCommand) -> Result<Change, Rejection> {
        let change = match &command.command {
            None => Err(Rejection::Malformed("no command")),
            Some(Command::FoundCluster(found)) => self.found(&found.cluster_id),
            Some(Command::RegisterNode(register)) => self.register(register),
            Some(Command::CreateTopic(create)) => self.create(create, command.time_ms),
            Some(Command::UpdateTopic(update)) => self.update(update),
            Some(Command::DeleteTopic(delete)) => self.delete(delete),
            Some(Command::AddPartitions(add)) => self.add_partitions(add),
            Some(Command::MoveReplicas(moves)) => self.move_replicas(moves),
            Some(Command::DrainNode(drain)) => self.drain(drain),
            Some(Command::RemoveNode(remove)) => self.remove(remove),
        }?;
        if change != Change::Unchanged {
            self.version += 1;
        }
        Ok(change)
    }

    fn found(&mut self, cluster_id: &str) -> Result<Change, Rejection> {
        if cluster_id.is_empty() {
            return Err(Rejection::Malformed("empty cluster id"));
        }
        if !self.cluster_id.is_empty() {
            return Ok(Change::Unchanged);
        }
        cluster_id.clone_into(&mut self.cluster_id);
        Ok(Change::ClusterFounded)
    }

    fn create(&mut self, create: &CreateTopic, time_ms: i64) -> Result<Change, Rejection> {
        validate_name(&create.name).map_err(Rejection::Malformed)?;
        if self.topics.contains_key(create.name.as_str()) {
            return Err(Rejection::TopicExists);
        }
        limited(self.topics.len() + 1, TOPICS_MAX)?;
        self.check_partitions(0, &create.partitions)?;
        let id = self.next_topic_id;
        self.next_topic_id += 1;
        let mut topic = Topic {
            id,
            name: create.name.clone(),
            config: create.config.unwrap_or_default(),
            create_time_ms: time_ms,
            partitions: Vec::new(),
            replication_factor: replication_factor(create.partitions.first()),
        };
        let name: Arc<str> = create.name.as_str().into();
        self.place(&name, &mut topic, &create.partitions);
        self.topics.insert(name, Arc::new(topic));
        Ok(Change::TopicCreated { topic: id })
    }

    fn update(&mut self, update: &UpdateTopic) -> Result<Change, Rejection> {
        let (_, topic) = self.find(&update.name, update.topic_id)?;
        let new = update.config.unwrap_or_default();
        let config = topic_config::merge(&topic.config, &new, &update.update_mask)
            .map_err(|_| Rejection::Malformed("invalid configuration or mask"))?;
        let replication_factor = match update.replication_factor {
            0 => topic.replication_factor,
            asked => asked,
        };
        if topic.config == config && topic.replication_factor == replication_factor {
            return Ok(Change::Unchanged);
        }
        let topic = self.topics.get_mut(update.name.as_str());
        let topic = Arc::make_mut(topic.ok_or(Rejection::UnknownTopic)?);
        topic.config = config;
        topic.replication_factor = replication_factor;
        Ok(Change::TopicUpdated)
    }

    fn delete(&mut self, delete: &DeleteTopic) -> Result<Change, Rejection> {
        let (_, topic) = self.find(&delete.name, delete.topic_id)?;
        let groups: Vec<GroupId> = topic.partitions.iter().map(|place| place.group).collect();
        self.topics.remove(delete.name.as_str());
        for group in &groups {
            self.groups.remove(group);
        }
        Ok(Change::TopicDeleted { groups })
    }

    fn add_partitions(&mut self, add: &AddPartitions) -> Result<Change, Rejection> {
        let (name, topic) = self.find(&add.name, add.topic_id)?;
        let count = topic.partitions.len();
        if usize::try_from(add.partition_count_before) != Ok(count) {
            let partition_count = u32::try_from(count).unwrap_or(u32::MAX);
            return Err(Rejection::PartitionCountChanged { partition_count });
        }
        self.check_partitions(count, &add.partitions)?;
        let name = Arc::clone(name);
        let mut topic = topic.as_ref().clone();
        self.place(&name, &mut topic, &add.partitions);
        self.topics.insert(name, Arc::new(topic));
        Ok(Change::PartitionsAdded)
    }

    /// The topic that a command means, and not another one that was given its name since.
    fn find(&self, name: &str, id: u64) -> Result<(&Arc<str>, &Arc<Topic>), Rejection> {
        let found = self.topics.get_key_value(name);
        found
            .filter(|(_, topic)| topic.id == id)
            .ok_or(Rejection::UnknownTopic)
    }

    /// Checks partitions that a topic with `before` partitions shall get.
    fn check_partitions(&self, before: usize, added: &[ReplicaSet]) -> Result<(), Rejection> {
        if added.is_empty() {
            return Err(Rejection::Malformed("no partitions"));
        }
        limited(before + added.len(), PARTITIONS_MAX)?;
        limited(self.groups.len() + added.len(), CLUSTER_PARTITIONS_MAX)?;
        for set in added {
            self.check_replicas(&set.nodes)?;
        }
        Ok(())
    }

    /// Gives groups to checked partitions and adds them to the topic.
    fn place(&mut self, name: &Arc<str>, topic: &mut Topic, added: &[ReplicaSet]) {
        for (number, set) in (0..).skip(topic.partitions.len()).zip(added) {
            let group = GroupId(self.next_group_id);
            self.next_group_id += 1;
            self.groups.insert(group, (Arc::clone(name), number));
            let replicas: Vec<NodeId> = set.nodes.iter().copied().map(NodeId).collect();
            self.give(&replicas);
            topic.partitions.push(Partition {
                group,
                founders: replicas.clone(),
                replicas,
            });
        }
    }
}

/// As many replicas as the first partition has.
fn replication_factor(first: Option<&ReplicaSet>) -> u32 {
    let count = first.map_or(0, |set| set.nodes.len());
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn limited(count: usize, limit: usize) -> Result<(), Rejection> {
    if count > limit {
        Err(Rejection::LimitReached { limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
