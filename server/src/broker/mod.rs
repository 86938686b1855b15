//! The verbs: produce, fetch, topics, status. Knows what a call means; knows nothing of gRPC, openraft or redb.
//!
//! Start reading at `produce.rs`. Every verb fails with an [`Error`] that names one fact.

mod accumulator;
mod calls;
mod directory;
mod disk;
mod error;
mod fetch;
mod follower;
mod gauges;
mod offsets;
mod partition;
mod produce;
mod retention;
mod status;
mod topics;
mod validate;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    consensus::{CatalogGroup, Groups},
    storage::Storage,
    telemetry::Metrics,
};

pub use calls::{
    Acks, Bounds, Content, Fetch, Fetched, PartitionProduced, Produce, Produced, ReadBatch,
    Session, Start, StreamTerms,
};
pub use error::{Error, Violation};
pub use fetch::PartitionReader;
pub use produce::PendingProduce;

/// How the broker behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of produced records that may be in flight in this node; further produces wait.
    pub in_flight_bytes_max: usize,
    /// How often old records are looked for.
    pub retention_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_flight_bytes_max: 256 << 20,
            retention_interval: Duration::from_secs(30),
        }
    }
}

/// What a broker is made of.
pub struct Parts {
    /// Its storage.
    pub storage: Storage,
    /// Opens groups on that storage.
    pub groups: Groups,
    /// The catalog.
    pub catalog: CatalogGroup,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// When the process started, for people.
    pub start_time_ms: i64,
    /// How it behaves.
    pub config: Config,
}

/// The broker of this node. Clones share it.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    groups: Groups,
    catalog: CatalogGroup,
    directory: watch::Receiver<Arc<directory::Directory>>,
    disk: disk::Disk,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
    ready: watch::Sender<bool>,
    start_time_ms: i64,
}

/// The broker's background tasks; they end when this is stopped or dropped.
pub struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Ends the tasks.
    pub async fn stop(mut self) {
        for task in self.0.drain(..) {
            task.abort();
            // Aborted tasks answer with a cancellation, which is what was asked for.
            let _ = task.await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Broker {
    /// Starts a broker on the current runtime, which from then on carries its groups, and waits until every partition
    /// of the catalog is open or known to be broken.
    pub async fn start(parts: Parts) -> (Self, Tasks) {
        let Parts {
            storage,
            groups,
            catalog,
            metrics,
            start_time_ms,
            config,
        } = parts;
        let opener = follower::Opener {
            groups: groups.clone(),
            runtime: Handle::current(),
        };
        let (directory, follower) = follower::follow(opener, catalog.watch(), &storage).await;
        let retention = retention::run(
            directory.clone(),
            catalog.clone(),
            config.retention_interval,
        );
        let broker = Self {
            shared: Arc::new(Shared {
                groups,
                catalog,
                directory,
                disk: disk::Disk::new(storage),
                metrics,
                in_flight: Arc::new(Semaphore::new(config.in_flight_bytes_max)),
                ready: watch::channel(true).0,
                start_time_ms,
            }),
        };
        gauges::register(&broker);
        (broker, Tasks(vec![follower, tokio::spawn(retention)]))
    }

    /// Whether this node can serve: it knows a leader of the catalog and is not stopping.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// From now on the broker is not ready and takes no produce.
    pub fn drain(&self) {
        self.shared.ready.send_replace(false);
    }

    /// Stops all groups.
    pub async fn stop(&self) {
        let directory = self.shared.directory.borrow().clone();
        futures::future::join_all(directory.partitions().map(|partition| partition.stop())).await;
        self.shared.catalog.group().stop().await;
    }

    fn directory(&self) -> Arc<directory::Directory> {
        self.shared.directory.borrow().clone()
    }

    fn check_ready(&self) -> Result<(), Error> {
        if *self.shared.ready.borrow() {
            Ok(())
        } else {
            Err(Error::NotReady)
        }
    }
}
