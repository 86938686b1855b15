//! Placement: where replicas and leaders belong. From what is known of nodes and partitions it answers where new
//! partitions go, and which moves would make the cluster even again, each with its reason.
//!
//! It proposes as little as it can: nothing where the cluster is even, one replica of a partition at a time, and once its
//! moves are made it proposes no more. Silence of a node never moves what it holds: nobody here can tell a node that
//! restarts from one that is gone. An operator can, and drains or removes it. Start reading at [`plan`].

mod balance;
mod leaders;
mod load;
mod replicas;
mod state;

use crate::types::NodeId;
use state::State;

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Where it stands: nodes of one rack fail together. Empty: not said, so it stands by itself.
    pub rack: String,
    /// Whether everything is to leave it.
    pub draining: bool,
    /// Whether it answers.
    pub alive: bool,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Id of the topic.
    pub topic: u64,
    /// Number.
    pub number: u32,
    /// Where it is, or is to be.
    pub replicas: Vec<NodeId>,
    /// Who leads it, if anybody does.
    pub leader: Option<NodeId>,
    /// Replicas that it is to have.
    pub replication_factor: usize,
    /// What it costs each of its replicas.
    pub load: Load,
    /// Whether its group is on its way to `replicas`: then nothing else of it is changed.
    pub moving: bool,
}

/// What a partition costs a node that has a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Payload that comes in.
    pub bytes_per_second: u64,
    /// Payload that is stored.
    pub disk_bytes: u64,
}

/// A change of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Id of the topic.
    pub topic: u64,
    /// Number of the partition.
    pub partition: u32,
    /// What changes.
    pub change: Change,
    /// Why.
    pub reason: Reason,
}

/// What changes of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One replica is added, left out, or replaced by another.
    Replicas {
        /// Replicas before.
        before: Vec<NodeId>,
        /// Replicas after.
        after: Vec<NodeId>,
        /// Who is to lead then, if the replica that leads is the one that leaves.
        leader: Option<NodeId>,
    },
    /// Another replica leads.
    Leader {
        /// Who leads before.
        from: NodeId,
        /// Who leads after.
        to: NodeId,
    },
}

/// Why something is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is not of the cluster any more.
    NodeRemoved,
    /// The node is being emptied.
    NodeDraining,
    /// The partition has another number of replicas than it is to have.
    ReplicationFactor,
    /// Replicas share a rack while another rack has fewer of them.
    RackRepeated,
    /// A node has more replicas than another.
    ReplicasUnbalanced,
    /// A node carries more load than the others.
    LoadUnbalanced,
    /// A node leads more partitions than another.
    LeadersUnbalanced,
}

/// What new partitions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Id of their topic; 0 for a topic that is new itself.
    pub topic: u64,
    /// How many partitions.
    pub partitions: usize,
    /// How many replicas each.
    pub replication_factor: usize,
}

/// Chooses the replicas of new partitions, the one that is to lead first. Nodes that are silent or drained get something
/// only where the others are too few. `None` if all nodes together are too few.
pub fn place(cluster: &Cluster, wanted: Wanted) -> Option<Vec<Vec<NodeId>>> {
    if wanted.replication_factor > cluster.nodes.len() {
        return None;
    }
    let mut state = State::new(cluster);
    let place = (0..wanted.partitions).map(|_| state.place(wanted));
    Some(place.collect())
}

/// Says what to move, in order: `limit` moves and perhaps one more, since an exchange is not cut in two. Each move
/// supposes that those in front of it were made.
pub fn plan(cluster: &Cluster, limit: usize) -> Vec<Move> {
    let mut state = State::new(cluster);
    let mut moves = Moves {
        list: Vec::new(),
        limit,
    };
    loop {
        let before = moves.list.len();
        replicas::correct(&mut state, &mut moves);
        balance::even_out(&mut state, &mut moves);
        load::even_out(&mut state, &mut moves);
        leaders::even_out(&mut state, &mut moves);
        // Where racks stand in the way of one pass, another may have opened it.
        if moves.list.len() == before || moves.is_full() {
            return moves.list;
        }
    }
}

/// The nodes that could not be emptied: some partition needs all that would be left. With the replicas that it needs.
pub fn cannot_leave(cluster: &Cluster, node: NodeId) -> Option<usize> {
    let others = |other: &&Node| other.id != node && !other.draining;
    let left = cluster.nodes.iter().filter(others).count();
    let held = |partition: &&Partition| partition.replicas.contains(&node);
    let needed = cluster
        .partitions
        .iter()
        .filter(held)
        .map(|partition| partition.replication_factor)
        .max();
    needed.filter(|needed| *needed > left)
}

/// A plan in the making.
struct Moves {
    list: Vec<Move>,
    limit: usize,
}

impl Moves {
    fn is_full(&self) -> bool {
        self.list.len() >= self.limit
    }
}

#[cfg(test)]
mod tests;
