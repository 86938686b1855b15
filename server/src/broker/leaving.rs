//! Deletes replicas that this node is to have no more, once their groups can do without them.
//!
//! That the catalog names other nodes is not enough: until the group has left this node out, its vote counts, and what
//! it acknowledged may be nowhere else. Only the group's leader knows, so it is asked, and asked again when the replica
//! here has stopped: what it acknowledged until then, the leader has counted or never will.

use std::{sync::Arc, time::Duration};

use kelda_proto::internal::v1::LeftOutRequest;
use tokio::time::timeout;

use super::{
    Broker,
    directory::{NotOpen, Slot},
    follower::{Closed, Opener},
    partition::Partition,
};
use crate::{
    peers,
    types::{GroupId, LogIndex, NodeId},
};

/// How long a node may take to say whether it leads a group, and who is in it.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

impl Opener {
    /// Deletes the data of a replica whose group has left this node out, and returns what is then in its slot. Otherwise
    /// it stays.
    pub(super) async fn leave(self, closed: Closed, partition: Arc<Partition>) -> (Closed, Slot) {
        let leader = partition.group.group().leader();
        if self.ask_left_out(&closed, leader).await.is_none() {
            return (closed, Ok(partition));
        }
        partition.move_away().await;
        let Some(left) = self.ask_left_out(&closed, leader).await else {
            // It is wanted again, or its leader was lost at this moment.
            return self.open(closed).await;
        };
        let (topic, number, group) = (&closed.topic.name, closed.number, closed.group);
        match self.groups.leave(group, left).await {
            Ok(()) => {
                tracing::info!(topic, partition = number, %group, "replica was moved away and is deleted");
                (closed, Err(NotOpen::Elsewhere))
            }
            Err(error) => {
                tracing::error!(topic, partition = number, %group, %error, "data of a replica that was moved away is still there");
                (closed, Err(NotOpen::Failed))
            }
        }
    }

    /// Asks the nodes that may lead a group, until one of them says that it has left this one out.
    async fn ask_left_out(&self, closed: &Closed, leader: Option<NodeId>) -> Option<LogIndex> {
        let me = self.groups.node();
        let leader = leader.filter(|leader| *leader != me);
        let replicas = closed.topic.partitions.get(closed.number);
        let replicas = replicas.map_or(&[][..], |placed| &placed.replicas);
        let others = replicas.iter().copied();
        let others = others.filter(|node| *node != me && Some(*node) != leader);
        for node in leader.into_iter().chain(others) {
            let Ok(channel) = self.groups.peers().channel(node) else {
                continue;
            };
            let mut client = peers::client(channel);
            let request = LeftOutRequest {
                group: closed.group.0,
            };
            match timeout(ASK_TIMEOUT, client.left_out(request)).await {
                Ok(Ok(answer)) => {
                    if let Some(left) = answer.into_inner().left_index {
                        return Some(LogIndex(left));
                    }
                }
                Ok(Err(status)) => {
                    tracing::debug!(%node, group = %closed.group, %status, "node does not say who is in a group");
                }
                Err(_) => {}
            }
        }
        None
    }
}

impl Broker {
    /// The entry that left `node` out of a group, if this node leads it and `node` is not to be in it.
    pub async fn left_out_here(&self, group: GroupId, node: NodeId) -> Option<LogIndex> {
        let catalog = self.shared.catalog.view();
        let (topic, number) = catalog.partition_of_group(group)?;
        let number = i32::try_from(number).ok()?;
        let directory = self.directory();
        let topic = directory.topic(topic).ok()?;
        if topic.is_replica(number, node) {
            return None;
        }
        let partition = topic.slot(number).ok()?.as_ref().ok()?;
        partition.group.group().left_out(node).await
    }
}
