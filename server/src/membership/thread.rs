//! Gossip on a thread of its own, so that what it costs can be read from the thread, and that nothing else makes it
//! late.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::BoxFuture;
use tokio::{runtime::Handle, sync::watch};

use super::{Announcement, Config, Error, Gossip, Membership, StartError, View};
use crate::telemetry::{self, Metrics};

/// Name of the thread.
const NAME: &str = "gossip";

/// Gossip with its thread. Dropped, both end at once, and the node falls silent.
pub struct Thread {
    gossip: Gossip,
    /// Behind the gossip, which is dropped on it.
    _thread: telemetry::Thread,
}

impl Thread {
    /// As [`Gossip::start`], on a new thread; `publisher` tells the others what is new of this node.
    ///
    /// # Errors
    /// If there is no thread, or as [`Gossip::start`].
    pub async fn start(
        config: Config,
        announcement: Announcement,
        metrics: Arc<Metrics>,
        publisher: Handle,
    ) -> Result<Self, StartError> {
        let thread = telemetry::Thread::start(NAME).map_err(StartError::Thread)?;
        let address = config.bind;
        let gossip = async move { Gossip::start(config, announcement, metrics, &publisher).await };
        let started = thread.handle().spawn(gossip);
        let gossip = started.await.map_err(|error| StartError::Other {
            address,
            reason: error.to_string(),
        })??;
        Ok(Self {
            gossip,
            _thread: thread,
        })
    }
}

impl Membership for Thread {
    fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.gossip.watch()
    }

    fn announce(&self, announcement: Announcement) -> Result<(), Error> {
        self.gossip.announce(announcement)
    }

    fn seek(&self, nodes: BTreeSet<String>) {
        self.gossip.seek(nodes);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.gossip.leave()
    }
}
