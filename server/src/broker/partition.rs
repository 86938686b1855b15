//! A partition that runs on this node.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::watch};

use super::{Bounds, Error, accumulator::Accumulator};
use crate::{
    consensus::{PartitionGroup, PartitionView, ProposeError},
    storage,
};

pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: u32,
    pub(super) group: PartitionGroup,
    pub(super) accumulator: Accumulator,
    runtime: Handle,
    stopped: watch::Sender<Stopped>,
}

/// Why a partition does not run here any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It runs.
    #[default]
    No,
    /// It is deleted, or the node stops.
    Gone,
    /// Its replicas are on other nodes.
    Elsewhere,
}

impl Partition {
    pub(super) fn new(
        topic: String,
        number: u32,
        group: PartitionGroup,
        runtime: Handle,
    ) -> Arc<Self> {
        let key = (topic.clone(), number);
        let accumulator = Accumulator::new(group.clone(), key, runtime.clone());
        Arc::new(Self {
            topic,
            number,
            group,
            accumulator,
            runtime,
            stopped: watch::channel(Stopped::No).0,
        })
    }

    pub(super) fn bounds(&self) -> Bounds {
        bounds(&self.group.view())
    }

    /// Whether this node leads it, or did when it fell quiet.
    pub(super) fn may_lead(&self) -> bool {
        self.group.group().may_lead()
    }

    /// Whether this node leads it.
    pub(super) async fn confirm_lead(&self) -> bool {
        self.group.group().confirm_lead().await
    }

    /// Changes once, when the partition stops.
    pub(super) fn stopped(&self) -> watch::Receiver<Stopped> {
        self.stopped.subscribe()
    }

    /// Stops the group; readers and producers that wait are told.
    pub(super) async fn stop(&self) {
        self.stopped.send_replace(Stopped::Gone);
        self.group.group().stop().await;
    }

    /// As [`Partition::stop`], where other nodes have the partition: whoever waits goes on there.
    pub(super) async fn move_away(&self) {
        self.stopped.send_replace(Stopped::Elsewhere);
        self.group.group().stop().await;
    }

    /// What readers are told that find the partition stopped.
    pub(super) fn gone(&self) -> Option<Error> {
        match *self.stopped.borrow() {
            Stopped::No => None,
            Stopped::Gone => Some(Error::UnknownTopic {
                topic: self.topic.clone(),
            }),
            Stopped::Elsewhere => Some(Error::NotLeader {
                leader: None,
                address: None,
            }),
        }
    }

    pub(super) fn storage_error(&self, error: &storage::Error) -> Error {
        match error {
            // Its data is being deleted.
            _ if *self.stopped.borrow() == Stopped::Elsewhere => Error::NotLeader {
                leader: None,
                address: None,
            },
            corrupt if corrupt.is_corrupt() => {
                tracing::error!(topic = self.topic, partition = self.number, %error, "stored data is corrupt");
                Error::CorruptData {
                    topic: self.topic.clone(),
                    partition: self.number,
                }
            }
            _ => Error::NotReady,
        }
    }

    /// Frees the space of records that are out of sight. What fails here is tried again by retention.
    /// Whether that went well.
    pub(super) async fn compact(&self) -> bool {
        let compacted = self.group.compact().await;
        if let Err(error) = &compacted
            && *self.stopped.borrow() == Stopped::No
        {
            tracing::warn!(topic = self.topic, partition = self.number, %error, "old records are not deleted yet");
        }
        compacted.is_ok()
    }

    /// As [`Partition::compact`], in the background: away from the threads that serve connections. It ends with the
    /// group.
    pub(super) fn compact_soon(self: &Arc<Self>) {
        let partition = Arc::clone(self);
        self.runtime.spawn(async move { partition.compact().await });
    }
}

pub(super) fn bounds(view: &PartitionView) -> Bounds {
    Bounds {
        log_start: view.log_start,
        end: view.end,
    }
}

/// What a proposal's failure means for a partition of a topic.
pub(super) fn unavailable((topic, number): (&str, u32), error: &ProposeError) -> Error {
    match error {
        ProposeError::NotLeader { leader } => Error::NotLeader {
            leader: *leader,
            address: None,
        },
        ProposeError::Indefinite => Error::NoLeader {
            topic: topic.to_owned(),
            partition: number,
        },
        ProposeError::Stopped => Error::NotReady,
    }
}
