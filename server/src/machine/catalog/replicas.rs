//! Where the replicas of partitions are to be.

use std::collections::BTreeSet;
use std::sync::Arc;

use kelda_proto::internal::v1::catalog_command::MoveReplicas;
use kelda_proto::internal::v1::catalog_command::move_replicas::Move;

use super::{Catalog, Change, Partition, Rejection, Topic};
use crate::types::NodeId;

impl Catalog {
    pub(super) fn move_replicas(&mut self, command: &MoveReplicas) -> Result<Change, Rejection> {
        let (name, topic) = self.find(&command.topic, command.topic_id)?;
        if command.moves.is_empty() {
            return Err(Rejection::Malformed("no moves"));
        }
        let mut moved = BTreeSet::new();
        for change in &command.moves {
            if !moved.insert(change.partition) {
                return Err(Rejection::Malformed("two moves of one partition"));
            }
            self.check_move(topic, change)?;
        }
        if command.moves.iter().all(|it| it.before == it.after) {
            return Ok(Change::Unchanged);
        }
        let name = Arc::clone(name);
        let mut topic = topic.as_ref().clone();
        let mut given = Vec::new();
        for change in &command.moves {
            if let Some(partition) = placed(&mut topic.partitions, change.partition) {
                let new = change.after.iter().filter(|id| !change.before.contains(id));
                given.extend(new.copied().map(NodeId));
                partition.replicas = change.after.iter().copied().map(NodeId).collect();
            }
        }
        self.topics.insert(name, Arc::new(topic));
        self.give(&given);
        Ok(Change::ReplicasMoved)
    }

    fn check_move(&self, topic: &Topic, change: &Move) -> Result<(), Rejection> {
        let number = usize::try_from(change.partition).ok();
        let partition = number.and_then(|number| topic.partitions.get(number));
        let partition = partition.ok_or(Rejection::Malformed("no such partition"))?;
        let now = partition.replicas.iter().map(|node| node.0);
        if !now.eq(change.before.iter().copied()) {
            let partition = change.partition;
            return Err(Rejection::ReplicasChanged { partition });
        }
        self.check_replicas(&change.after)
    }

    /// Checks that a partition can be on these nodes.
    pub(super) fn check_replicas(&self, nodes: &[u64]) -> Result<(), Rejection> {
        let distinct: BTreeSet<u64> = nodes.iter().copied().collect();
        if distinct.is_empty() || distinct.len() != nodes.len() {
            return Err(Rejection::Malformed("replicas are none or repeated"));
        }
        let known = |id: &u64| self.nodes.contains_key(&NodeId(*id));
        if !distinct.iter().all(known) {
            return Err(Rejection::UnknownNode);
        }
        Ok(())
    }
}

fn placed(partitions: &mut [Partition], number: u32) -> Option<&mut Partition> {
    partitions.get_mut(usize::try_from(number).ok()?)
}
