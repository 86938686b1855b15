//! Makes another replica the leader of a partition, wherever it is led.

use std::{sync::Arc, time::Duration};

use kelda_proto::{
    internal::v1::{HandOverRequest, HandOverResponse},
    v1,
};

use crate::{
    broker::{Broker, Error, partition::Partition, route::Ask},
    peers::{CallError, PeerClient},
    types::NodeId,
};

/// How long the leader may take, for a client that asks.
const PATIENCE: Duration = Duration::from_secs(5);

/// The question to the leader.
struct HandOver<'a> {
    topic: &'a str,
    partition: i32,
    to: NodeId,
    patience: Duration,
}

impl Ask for HandOver<'_> {
    type Answer = ();

    fn partition(&self) -> (&str, i32) {
        (self.topic, self.partition)
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    async fn here(&self, _: &Broker, partition: &Arc<Partition>) -> Result<(), Error> {
        partition.hand_over_to(self.to, self.patience).await
    }

    async fn there(&self, mut client: PeerClient) -> Result<Result<(), v1::Error>, CallError> {
        let request = HandOverRequest {
            topic: self.topic.to_owned(),
            partition: self.partition,
            to: self.to.0,
        };
        match client.hand_over(request).await {
            Ok(answer) => Ok(answer.into_inner().error.map_or(Ok(()), Err)),
            Err(status) => Err(CallError::from(&status)),
        }
    }
}

impl Partition {
    async fn hand_over_to(&self, to: NodeId, patience: Duration) -> Result<(), Error> {
        let group = self.group.group();
        if !group.confirm_lead().await {
            return Err(Error::NotLeader {
                leader: group.leader(),
                address: None,
            });
        }
        if group.transfer_to(to, patience).await {
            return Ok(());
        }
        Err(Error::ReplicaBehind {
            topic: self.topic.clone(),
            partition: self.number,
            node: to,
        })
    }
}

impl Broker {
    /// Makes a replica the leader, for a client.
    pub async fn transfer(&self, topic: &str, partition: i32, to: NodeId) -> Result<(), Error> {
        self.check_ready()?;
        self.transfer_leadership(topic, partition, to, PATIENCE)
            .await
    }

    /// Makes a replica the leader, at most for `patience`.
    pub(super) async fn transfer_leadership(
        &self,
        topic: &str,
        partition: i32,
        to: NodeId,
        patience: Duration,
    ) -> Result<(), Error> {
        let directory = self.directory();
        let handle = directory.topic(topic)?;
        handle.slot(partition)?;
        self.known_node(to)?;
        let number = usize::try_from(partition).unwrap_or_default();
        let placed = handle.topic.partitions.get(number);
        if placed.is_none_or(|placed| !placed.replicas.contains(&to)) {
            return Err(Error::NotAReplica {
                topic: topic.to_owned(),
                partition: partition.unsigned_abs(),
                node: to,
            });
        }
        self.ask_leader(&HandOver {
            topic,
            partition,
            to,
            patience,
        })
        .await
    }

    /// Hands a partition that this node leads over, for another node.
    pub async fn hand_over_here(
        &self,
        request: &HandOverRequest,
    ) -> Result<HandOverResponse, Error> {
        let directory = self.directory();
        let partition = directory
            .topic(&request.topic)?
            .partition(request.partition)?;
        partition.hand_over_to(NodeId(request.to), PATIENCE).await?;
        Ok(HandOverResponse { error: None })
    }
}
