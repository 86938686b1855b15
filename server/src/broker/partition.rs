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
    stopped: watch::Sender<bool>,
}

impl Partition {
    pub(super) fn new(
        topic: String,
        number: u32,
        group: PartitionGroup,
        runtime: Handle,
    ) -> Arc<Self> {
        let accumulator = Accumulator::new(group.clone(), runtime.clone());
        Arc::new(Self {
            topic,
            number,
            group,
            accumulator,
            runtime,
            stopped: watch::channel(false).0,
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

    /// Turns true when the partition is deleted or the node stops.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// Stops the group; readers and producers that wait are told.
    pub(super) async fn stop(&self) {
        self.stopped.send_replace(true);
        self.group.group().stop().await;
    }

    pub(super) fn storage_error(&self, error: &storage::Error) -> Error {
        match error {
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
    pub(super) async fn compact(&self) {
        if let Err(error) = self.group.compact().await
            && !*self.stopped.borrow()
        {
            tracing::warn!(topic = self.topic, partition = self.number, %error, "old records are not deleted yet");
        }
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
