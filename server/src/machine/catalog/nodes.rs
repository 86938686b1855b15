//! Nodes that come, are emptied and go.

use kelda_proto::internal::v1::catalog_command::{DrainNode, RegisterNode, RemoveNode};

use super::{Catalog, Change, NODES_MAX, Node, Rejection, limited};
use crate::types::NodeId;

impl Catalog {
    pub(super) fn register(&mut self, register: &RegisterNode) -> Result<Change, Rejection> {
        let known = match register.id {
            0 => self.joined_with(&register.token),
            id => Some(self.nodes.get(&NodeId(id)).ok_or(Rejection::UnknownNode)?),
        };
        let id = known.map_or(NodeId(self.next_node_id), |known| known.id);
        let node = Node {
            id,
            name: register.name.clone(),
            address: register.address.clone(),
            version: register.version.clone(),
            raft_address: register.raft_address.clone(),
            rack: register.rack.clone(),
            // A node that restarts in the middle of it is still to be emptied.
            draining: known.is_some_and(|known| known.draining),
            token: known.map_or_else(|| register.token.clone(), |known| known.token.clone()),
            given_version: known.map_or(0, |known| known.given_version),
        };
        match known {
            // Who joins is told its id, also if it asks once more.
            Some(known) if *known == node && register.id != 0 => return Ok(Change::Unchanged),
            Some(_) => {}
            None => {
                limited(self.nodes.len() + 1, NODES_MAX)?;
                self.next_node_id += 1;
            }
        }
        self.nodes.insert(id, node);
        Ok(Change::NodeRegistered { id })
    }

    /// The node that joined with this token: it asks again if it died before it had written its id down.
    fn joined_with(&self, token: &str) -> Option<&Node> {
        let mut nodes = self.nodes.values().filter(|_| !token.is_empty());
        nodes.find(|node| node.token == token)
    }

    pub(super) fn drain(&mut self, drain: &DrainNode) -> Result<Change, Rejection> {
        let node = self.nodes.get_mut(&NodeId(drain.id));
        let node = node.ok_or(Rejection::UnknownNode)?;
        if node.draining == drain.draining {
            return Ok(Change::Unchanged);
        }
        node.draining = drain.draining;
        Ok(Change::NodeDrained)
    }

    pub(super) fn remove(&mut self, remove: &RemoveNode) -> Result<Change, Rejection> {
        let id = NodeId(remove.id);
        let version = self
            .nodes
            .get(&id)
            .ok_or(Rejection::UnknownNode)?
            .given_version;
        match self.replicas_on(id) {
            // What it was given since may be gone from here and still be on its way there.
            0 if version > remove.checked_version => {
                Err(Rejection::NodeGivenPartitions { version })
            }
            0 if self.nodes.len() == 1 => Err(Rejection::LastNode),
            0 => {
                self.nodes.remove(&id);
                Ok(Change::NodeRemoved)
            }
            partitions => Err(Rejection::NodeInUse { partitions }),
        }
    }

    /// Takes note that the version which is made now gives these nodes a partition.
    pub(super) fn give(&mut self, nodes: &[NodeId]) {
        let version = self.version + 1;
        for node in nodes {
            if let Some(node) = self.nodes.get_mut(node) {
                node.given_version = version;
            }
        }
    }

    /// Number of partitions with a replica on a node.
    pub fn replicas_on(&self, node: NodeId) -> usize {
        let topics = self.topics.values();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions
            .filter(|partition| partition.replicas.contains(&node))
            .count()
    }
}
