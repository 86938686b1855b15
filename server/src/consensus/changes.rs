//! Changes of the catalog from any node: proposed here, or by the node that leads it.

use std::time::Duration;

use kelda_proto::internal::v1::{
    CatalogCommand, CatalogRejection, ChangeCatalogRequest, ChangeCatalogResponse,
    catalog_rejection::Reason,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{CatalogGroup, Command, ProposeError, Reply};
use crate::{
    machine::catalog::{Change, Rejection},
    peers::{self, CallError},
    types::NodeId,
};

/// How long to look for a leader, and for its answer: longer than an election takes, and short enough that a client which
/// waits for as long as it does by default hears why there is none.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before another look: part of the time that an election takes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A change that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Version of the catalog that holds it.
    pub version: u64,
    /// Node that was registered.
    pub node: Option<NodeId>,
}

/// Why the catalog was not, or may not have been, changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The catalog does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing was changed: nobody leads the catalog.
    #[error("the catalog has no leader: start more of the nodes that hold it")]
    NoLeader,
    /// It may have been changed.
    #[error("leadership of the catalog changed while the change was under way")]
    Indefinite,
    /// This node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

impl CatalogGroup {
    /// Commits a change, here or by way of the node that leads the catalog.
    ///
    /// # Errors
    /// Says whether anything may have been changed.
    pub async fn change(&self, command: &CatalogCommand) -> Result<Changed, ChangeError> {
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let me = self.peers.node();
        loop {
            let answer = match self.group.leader() {
                Some(leader) => {
                    let answer = async {
                        if leader == me {
                            self.change_here(command).await
                        } else {
                            self.change_there(leader, command).await
                        }
                    };
                    let answer = timeout_at(deadline, answer).await;
                    answer.unwrap_or(Err(ChangeError::Indefinite))
                }
                None => Err(ChangeError::NoLeader),
            };
            let again = Instant::now() + LOOK_AGAIN;
            if answer != Err(ChangeError::NoLeader) || again >= deadline {
                return answer;
            }
            sleep_until(again).await;
        }
    }

    /// As [`CatalogGroup::change`], only if this node leads the catalog.
    ///
    /// # Errors
    /// [`ChangeError::NoLeader`] if another node leads it.
    pub async fn change_here(&self, command: &CatalogCommand) -> Result<Changed, ChangeError> {
        let failed = |error| match error {
            ProposeError::NotLeader { .. } => ChangeError::NoLeader,
            ProposeError::Indefinite => ChangeError::Indefinite,
            ProposeError::Stopped => ChangeError::Stopped,
        };
        // One that is cut off would take it, and never hear that it is committed.
        if !self.group.confirm_lead().await {
            return Err(ChangeError::NoLeader);
        }
        let proposal = self.group.propose(Command::catalog(command)).await;
        // Either may be dropped: the command is under way, and nobody needs to hear of it.
        let reply = tokio::select! {
            reply = proposal.map_err(failed)?.wait() => reply,
            () = self.group.left_alone() => return Err(ChangeError::Indefinite),
        };
        let reply = reply.map_err(|error| match error {
            // It was taken, and others may carry it out.
            ProposeError::Stopped => ChangeError::Indefinite,
            error => failed(error),
        })?;
        match reply {
            Reply::Catalog(Ok(change)) => Ok(Changed {
                version: self.view().version(),
                node: match change {
                    Change::NodeRegistered { id } => Some(id),
                    _ => None,
                },
            }),
            Reply::Catalog(Err(rejection)) => Err(rejection.into()),
            _ => Err(Rejection::Malformed("not a command of the catalog").into()),
        }
    }

    async fn change_there(
        &self,
        leader: NodeId,
        command: &CatalogCommand,
    ) -> Result<Changed, ChangeError> {
        let channel = self.peers.channel(leader);
        let mut client = peers::client(channel.map_err(|_| ChangeError::NoLeader)?);
        let request = ChangeCatalogRequest {
            command: Some(command.clone()),
        };
        match client.change_catalog(request).await {
            Ok(answer) => from_answer(answer.into_inner()),
            Err(status) => {
                tracing::debug!(node = %leader, %status, "the catalog's leader did not answer");
                Err(match CallError::from(&status) {
                    CallError::NotSent => ChangeError::NoLeader,
                    CallError::Lost(_) => ChangeError::Indefinite,
                })
            }
        }
    }
}

/// What [`CatalogGroup::change_here`] answered, for another node.
pub fn answer(changed: Result<Changed, ChangeError>) -> ChangeCatalogResponse {
    let mut answer = ChangeCatalogResponse::default();
    match changed {
        Ok(changed) => {
            answer.version = changed.version;
            answer.node_id = changed.node.map_or(0, |node| node.0);
        }
        Err(ChangeError::Rejected(rejection)) => answer.rejection = Some(rejected(rejection)),
        Err(ChangeError::NoLeader | ChangeError::Stopped) => answer.not_leader = true,
        Err(ChangeError::Indefinite) => answer.indefinite = true,
    }
    answer
}

fn from_answer(answer: ChangeCatalogResponse) -> Result<Changed, ChangeError> {
    if answer.not_leader {
        return Err(ChangeError::NoLeader);
    }
    if answer.indefinite {
        return Err(ChangeError::Indefinite);
    }
    if let Some(rejection) = answer.rejection {
        return Err(from_rejected(rejection).into());
    }
    Ok(Changed {
        version: answer.version,
        node: (answer.node_id != 0).then_some(NodeId(answer.node_id)),
    })
}

fn rejected(rejection: Rejection) -> CatalogRejection {
    let (reason, number) = match rejection {
        Rejection::TopicExists => (Reason::TopicExists, 0),
        Rejection::UnknownTopic => (Reason::UnknownTopic, 0),
        Rejection::UnknownNode => (Reason::UnknownNode, 0),
        Rejection::PartitionCountChanged { partition_count } => {
            (Reason::PartitionCountChanged, partition_count.into())
        }
        Rejection::LimitReached { limit } => (Reason::LimitReached, limit as u64),
        Rejection::Malformed(_) => (Reason::Malformed, 0),
        Rejection::ReplicasChanged { partition } => (Reason::ReplicasChanged, partition.into()),
        Rejection::NodeInUse { partitions } => (Reason::NodeInUse, partitions as u64),
        Rejection::NodeGivenPartitions { version } => (Reason::NodeGivenPartitions, version),
        Rejection::LastNode => (Reason::LastNode, 0),
    };
    CatalogRejection {
        reason: reason.into(),
        number,
    }
}

fn from_rejected(rejection: CatalogRejection) -> Rejection {
    match rejection.reason() {
        Reason::TopicExists => Rejection::TopicExists,
        Reason::UnknownTopic => Rejection::UnknownTopic,
        Reason::UnknownNode => Rejection::UnknownNode,
        Reason::PartitionCountChanged => Rejection::PartitionCountChanged {
            partition_count: u32::try_from(rejection.number).unwrap_or(u32::MAX),
        },
        Reason::LimitReached => Rejection::LimitReached {
            limit: usize::try_from(rejection.number).unwrap_or(usize::MAX),
        },
        Reason::ReplicasChanged => Rejection::ReplicasChanged {
            partition: u32::try_from(rejection.number).unwrap_or(u32::MAX),
        },
        Reason::NodeInUse => Rejection::NodeInUse {
            partitions: usize::try_from(rejection.number).unwrap_or(usize::MAX),
        },
        Reason::NodeGivenPartitions => Rejection::NodeGivenPartitions {
            version: rejection.number,
        },
        Reason::LastNode => Rejection::LastNode,
        Reason::Malformed | Reason::Unspecified => {
            Rejection::Malformed("the catalog's leader did not understand it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_survives_its_way() {
        for outcome in [
            Ok(Changed {
                version: 7,
                node: Some(NodeId(3)),
            }),
            Err(Rejection::TopicExists.into()),
            Err(Rejection::UnknownTopic.into()),
            Err(Rejection::UnknownNode.into()),
            Err(Rejection::PartitionCountChanged { partition_count: 9 }.into()),
            Err(Rejection::LimitReached { limit: 5 }.into()),
            Err(Rejection::ReplicasChanged { partition: 2 }.into()),
            Err(Rejection::NodeInUse { partitions: 8 }.into()),
            Err(Rejection::NodeGivenPartitions { version: 6 }.into()),
            Err(Rejection::LastNode.into()),
            Err(ChangeError::NoLeader),
            Err(ChangeError::Indefinite),
        ] {
            assert_eq!(from_answer(answer(outcome)), outcome);
        }
    }
}
