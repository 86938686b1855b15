//! Finds the node that leads a partition, and asks it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kelda_proto::v1::{self, ErrorReason};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Broker, Error,
    directory::{NotOpen, TopicHandle},
    partition::Partition,
};
use crate::{
    peers::{self, CallError, PeerClient},
    types::{GroupId, NodeId},
};

/// How long a leader may take to answer, and a batch to be on its way to one.
pub(super) const ROUTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to look for a leader: longer than most elections take, and short enough that a client which waits for as long
/// as it does by default hears that there is none.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before another look.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the answers of a leader may still be on their way when another leads.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Where a partition is led.
pub(super) enum Place {
    /// Here.
    Here(Arc<Partition>),
    /// On another node, as far as this one knows.
    There(NodeId),
    /// Nobody knows.
    Nowhere,
}

/// What other nodes said of the leaders of partitions that have no replica here.
#[derive(Default)]
pub(super) struct Leaders(Mutex<HashMap<GroupId, NodeId>>);

impl Leaders {
    fn get(&self, group: GroupId) -> Option<NodeId> {
        let leaders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.get(&group).copied()
    }

    fn set(&self, group: GroupId, leader: NodeId) {
        let mut leaders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.insert(group, leader);
    }

    /// Drops what is known of groups that are gone.
    pub(super) fn retain(&self, keep: impl Fn(GroupId) -> bool) {
        let mut leaders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.retain(|group, _| keep(*group));
    }
}

/// What a partition's leader is asked, here or on another node. It may be asked twice.
pub(super) trait Ask: Sync {
    /// The answer.
    type Answer: Send;

    /// Topic and number of the partition.
    fn partition(&self) -> (&str, i32);

    /// How long the leader may take to answer, beyond what every call may.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Asks this node.
    fn here(
        &self,
        broker: &Broker,
        partition: &Arc<Partition>,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;

    /// Asks another node.
    fn there(
        &self,
        client: PeerClient,
    ) -> impl Future<Output = Result<Result<Self::Answer, v1::Error>, CallError>> + Send;
}

impl Broker {
    /// Where a partition is led.
    pub(super) async fn place_of(&self, topic: &str, number: i32) -> Result<Place, Error> {
        let directory = self.directory();
        let handle = directory.topic(topic)?;
        match handle.slot(number)? {
            Ok(partition) if partition.confirm_lead().await => {
                Ok(Place::Here(Arc::clone(partition)))
            }
            // A replica that is moved away hears of later leaders only by chance.
            Ok(_) if !handle.is_replica(number, self.node()) => {
                Ok(self.place_elsewhere(handle, number))
            }
            Ok(partition) => {
                let group = partition.group.group();
                let leader = group.leader().filter(|leader| *leader != self.node());
                Ok(leader.map_or(Place::Nowhere, Place::There))
            }
            Err(NotOpen::Elsewhere) => Ok(self.place_elsewhere(handle, number)),
            // With other replicas the partition may be led by one of them.
            Err(_) if handle.replica_count(number.unsigned_abs()) > 1 => {
                Ok(self.place_elsewhere(handle, number))
            }
            Err(_) => handle
                .partition(number)
                .map(|it| Place::Here(Arc::clone(it))),
        }
    }

    /// The leader that was named last, or else any replica: it names the leader.
    fn place_elsewhere(&self, handle: &TopicHandle, number: i32) -> Place {
        let number = usize::try_from(number).unwrap_or_default();
        let Some(placed) = handle.topic.partitions.get(number) else {
            return Place::Nowhere;
        };
        // It need not be among the replicas: while they are moved, one that leaves may still lead.
        let known = self.shared.leaders.get(placed.group);
        let me = self.node();
        let first = placed.replicas.iter().copied().find(|node| *node != me);
        known
            .filter(|leader| *leader != me)
            .or(first)
            .map_or(Place::Nowhere, Place::There)
    }

    /// Takes note that `asked` does not lead a partition, but `leader`, or that it did not answer: then another of its
    /// replicas is asked next.
    pub(super) fn not_led_by(
        &self,
        topic: &str,
        number: i32,
        asked: NodeId,
        leader: Option<NodeId>,
    ) {
        let directory = self.directory();
        let placed = directory.topic(topic).ok().and_then(|handle| {
            let number = usize::try_from(number).ok()?;
            handle.topic.partitions.get(number)
        });
        let Some(placed) = placed else { return };
        if let Ok(Ok(partition)) = directory.topic(topic).and_then(|it| it.slot(number)) {
            partition.group.group().rouse();
        }
        let next = leader.filter(|leader| *leader != asked).or_else(|| {
            let at = placed.replicas.iter().position(|node| *node == asked);
            let next = at.map_or(0, |at| (at + 1) % placed.replicas.len().max(1));
            placed.replicas.get(next).copied()
        });
        if let Some(next) = next {
            self.shared.leaders.set(placed.group, next);
        }
    }

    /// Asks a partition's leader, wherever it is, until it answers or the time is up.
    pub(super) async fn ask_leader<A: Ask>(&self, ask: &A) -> Result<A::Answer, Error> {
        let (topic, number) = ask.partition();
        let deadline = Instant::now() + LOOK_TIMEOUT;
        loop {
            match self.place_of(topic, number).await? {
                Place::Here(partition) => match ask.here(self, &partition).await {
                    Err(Error::NotLeader { .. }) => {}
                    answer => return answer,
                },
                Place::There(node) => {
                    let answer = match self.peer(node) {
                        // Either may be dropped: the leader may be asked twice.
                        Ok(client) => tokio::select! {
                            answer = timeout(ask.patience() + ROUTE_TIMEOUT, ask.there(client)) => answer,
                            () = self.succeeded(topic, number, node) => {
                                Ok(Err(CallError::Lost("another node leads by now".to_owned())))
                            }
                        },
                        Err(error) => Ok(Err(error)),
                    };
                    match answer {
                        Ok(Ok(Ok(answer))) => return Ok(answer),
                        Ok(Ok(Err(error))) => match not_leader(&error) {
                            Some(leader) => self.not_led_by(topic, number, node, leader),
                            None if is_passing(&error) => {}
                            None => return Err(Error::Remote(Box::new(error))),
                        },
                        Ok(Err(error)) => {
                            tracing::debug!(%node, topic, partition = number, %error, "leader does not answer");
                            self.not_led_by(topic, number, node, None);
                        }
                        Err(_) => {}
                    }
                }
                Place::Nowhere => {}
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(Error::NoLeader {
                    topic: topic.to_owned(),
                    partition: number.unsigned_abs(),
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until another node than `node` has led a partition for a while, as its replica here knows: what `node` has
    /// not answered by then it will not.
    pub(super) async fn succeeded(&self, topic: &str, number: i32, node: NodeId) {
        let directory = self.directory();
        let slot = directory
            .topic(topic)
            .and_then(|it| it.slot(number).cloned());
        // Without a replica here nobody tells; then the call has its own limit.
        let Ok(Ok(partition)) = slot else {
            return std::future::pending().await;
        };
        let group = partition.group.group();
        loop {
            let leader = group.leader();
            if leader.is_some_and(|leader| leader != node) {
                return sleep(LAST_WORDS).await;
            }
            group.leader_changed(leader).await;
        }
    }

    pub(super) fn peer(&self, node: NodeId) -> Result<PeerClient, CallError> {
        let channel = self.shared.groups.peers().channel(node);
        channel.map(peers::client).map_err(|_| CallError::NotSent)
    }

    pub(super) fn node(&self) -> NodeId {
        self.shared.groups.node()
    }

    /// What a node says that was asked for a partition and does not lead it.
    pub(super) fn not_led(&self, topic: &TopicHandle, number: u32) -> Error {
        let slot = topic.slot(i32::try_from(number).unwrap_or(i32::MAX));
        let partition = slot.ok().and_then(|slot| slot.as_ref().ok());
        let leader = partition.and_then(|partition| partition.group.group().leader());
        let book = self.shared.groups.peers().book();
        let address = leader.and_then(|node| book.borrow().client_address(node).map(str::to_owned));
        Error::NotLeader { leader, address }
    }
}

/// The leader that a node names which does not lead; `None` if it says something else.
pub(super) fn not_leader(error: &v1::Error) -> Option<Option<NodeId>> {
    (error.reason() == ErrorReason::NotLeader).then(|| {
        let leader = error.metadata.get("leader_id")?;
        leader.parse().ok().map(NodeId)
    })
}

/// Whether a node says that it, or the partition, is not ready yet.
pub(super) fn is_passing(error: &v1::Error) -> bool {
    matches!(
        error.reason(),
        ErrorReason::NoLeader
            | ErrorReason::NotReady
            | ErrorReason::UnknownTopic
            | ErrorReason::UnknownPartition
    )
}
