//! Gossip on a thread of its own, so that what it costs can be read from the thread, and that nothing else makes it
//! late.

use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{oneshot, watch},
};

use super::{Announcement, Config, Error, Gossip, Membership, StartError, View};
use crate::telemetry::Metrics;

/// Name of the thread, by which its CPU time is found.
const NAME: &str = "gossip";
/// Names are looked up on threads of their own, which stay for so long without work.
const LOOKUPS_MAX: usize = 1;
const LOOKUP_KEEP: Duration = Duration::from_secs(2);

/// Gossip with its thread. Dropped, both end at once, and the node falls silent.
pub struct Thread {
    gossip: Gossip,
    /// The thread runs until this is dropped, behind the gossip.
    _running: oneshot::Sender<()>,
}

impl Thread {
    /// As [`Gossip::start`], on a new thread.
    ///
    /// # Errors
    /// If there is no thread, or as [`Gossip::start`].
    pub async fn start(
        config: Config,
        announcement: Announcement,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(NAME)
            .max_blocking_threads(LOOKUPS_MAX)
            .thread_keep_alive(LOOKUP_KEEP)
            .build()
            .map_err(StartError::Thread)?;
        let address = config.bind;
        let (handle, running) = run(runtime)?;
        let started = handle.spawn(Gossip::start(config, announcement, metrics));
        let gossip = started.await.map_err(|error| StartError::Other {
            address,
            reason: error.to_string(),
        })??;
        Ok(Self {
            gossip,
            _running: running,
        })
    }
}

fn run(runtime: Runtime) -> Result<(Handle, oneshot::Sender<()>), StartError> {
    let handle = runtime.handle().clone();
    let (running, ended) = oneshot::channel();
    let thread = thread::Builder::new().name(NAME.to_owned());
    let spawned = thread.spawn(move || {
        // It ends with an error, when its sender is dropped.
        let _ = runtime.block_on(ended);
        runtime.shutdown_background();
    });
    spawned.map_err(StartError::Thread)?;
    Ok((handle, running))
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
