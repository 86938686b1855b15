//! The verbs: produce, fetch, topics, status. Knows what a call means; knows nothing of gRPC, openraft or redb.
//!
//! Start reading at `produce.rs`. Every verb fails with an [`Error`] that names one fact.

mod accumulator;
mod calls;
mod describe;
mod directory;
mod disk;
mod error;
mod fetch;
mod follower;
mod forward;
mod gauges;
mod leaving;
mod liveness;
mod members;
mod nodes;
mod offsets;
mod partition;
mod placement;
mod produce;
mod reader;
mod remote;
mod retention;
mod route;
mod status;
mod topics;
mod validate;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
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
pub use liveness::Liveness;
pub use placement::ClusterChanges;
pub use produce::PendingProduce;
pub use reader::PartitionReader;

/// Groups whose leadership is handed over at a time, how long each may take, and how long all of them.
const HAND_OVER_AT_ONCE: usize = 64;
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// How the broker behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of produced records that may be in flight in this node; further produces wait.
    pub in_flight_bytes_max: usize,
    /// How often old records are looked for.
    pub retention_interval: Duration,
    /// How often the node that leads the catalog looks whether partitions and leaders are evenly spread.
    pub rebalance_interval: Duration,
    /// How often nodes report their load to it.
    pub load_report_interval: Duration,
    /// How often the members of groups are compared with what they are to be although nothing changed.
    pub membership_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_flight_bytes_max: 256 << 20,
            retention_interval: Duration::from_secs(30),
            rebalance_interval: Duration::from_secs(30),
            load_report_interval: Duration::from_secs(60),
            membership_interval: Duration::from_secs(30),
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
    /// Who lives.
    pub liveness: Liveness,
    /// When the process started, for people.
    pub start_time_ms: i64,
    /// Where its background tasks run.
    pub threads: Threads,
    /// How it behaves.
    pub config: Config,
}

/// Runtimes for what goes on in the background, by what it is for: so that a look at the threads tells what it costs.
#[derive(Clone, Debug)]
pub struct Threads {
    /// Carries news of topics, nodes and leaders.
    pub metadata: Handle,
    /// Looks after retention, balance, members of groups and groups that fall idle.
    pub background: Handle,
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
    liveness: Liveness,
    in_flight: Arc<Semaphore>,
    handed_in_flight: Arc<Semaphore>,
    leaders: Arc<route::Leaders>,
    forwarding: forward::Forwarding,
    reports: placement::Reports,
    /// Carries what outlives the call that began it.
    runtime: Handle,
    ready: watch::Sender<bool>,
    /// Whether the catalog here is one that a leader of now has vouched for; before, it may lack the newest topics.
    has_catalog: AtomicBool,
    draining: AtomicBool,
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

/// What keeps the groups of this node as they are to be.
fn keep_groups(
    groups: &Groups,
    catalog: &CatalogGroup,
    directory: &watch::Receiver<Arc<directory::Directory>>,
    threads: &Threads,
    look_again: Duration,
) -> [JoinHandle<()>; 5] {
    let Threads {
        metadata,
        background,
    } = threads;
    [
        background.spawn(members::keep_catalog(
            catalog.clone(),
            groups.clone(),
            look_again,
        )),
        background.spawn(members::keep_partitions(
            directory.clone(),
            groups.clone(),
            look_again,
        )),
        metadata.spawn(members::notice_removal(catalog.clone(), groups.node())),
        // Among the groups: nothing else may make it late.
        tokio::spawn(groups.clone().keep_pulse(catalog.clone())),
        background.spawn(groups.clone().quiesce_idle()),
    ]
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
            liveness,
            start_time_ms,
            threads,
            config,
        } = parts;
        let opener = follower::Opener {
            groups: groups.clone(),
            runtime: Handle::current(),
            stored: Arc::default(),
        };
        let (directory, follower) =
            follower::follow(opener, catalog.watch(), &storage, &threads.metadata).await;
        let interval = config.membership_interval;
        let keepers = keep_groups(&groups, &catalog, &directory, &threads, interval);
        let leaders = Arc::new(route::Leaders::default());
        let retention = retention::run(
            directory.clone(),
            (groups.clone(), catalog.clone()),
            Arc::clone(&leaders),
            config.retention_interval,
        );
        let leads = catalog.group().leads();
        let reports = placement::Reports::new(groups.node());
        let broker = Self {
            shared: Arc::new(Shared {
                groups,
                catalog,
                directory,
                disk: disk::Disk::new(storage),
                metrics,
                liveness,
                in_flight: Arc::new(Semaphore::new(config.in_flight_bytes_max)),
                handed_in_flight: Arc::new(Semaphore::new(config.in_flight_bytes_max)),
                leaders,
                forwarding: forward::Forwarding::default(),
                reports,
                runtime: Handle::current(),
                ready: watch::channel(leads).0,
                has_catalog: AtomicBool::new(leads),
                draining: AtomicBool::new(false),
                start_time_ms,
            }),
        };
        gauges::register(&broker);
        let mut tasks = vec![
            follower,
            threads.background.spawn(retention),
            threads.metadata.spawn(broker.clone().keep_ready()),
            threads.metadata.spawn(placement::report(
                broker.clone(),
                config.load_report_interval,
            )),
            threads.background.spawn(placement::balance(
                broker.clone(),
                config.rebalance_interval,
            )),
        ];
        tasks.extend(keepers);
        (broker, Tasks(tasks))
    }

    /// Whether this node can serve: it has the catalog, knows a leader of it, and is not stopping.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// Hands the groups that this node leads to others, so that nobody has to wait for an election.
    pub async fn hand_over(&self) {
        let directory = self.shared.directory.borrow().clone();
        let groups = directory
            .partitions()
            .map(|partition| partition.group.group());
        let groups = groups.chain([self.shared.catalog.group()]);
        let handing_over = stream::iter(groups).for_each_concurrent(HAND_OVER_AT_ONCE, |group| {
            group.hand_over(HAND_OVER_PATIENCE)
        });
        // What is not handed over in time is taken over by election.
        let _ = tokio::time::timeout(HAND_OVER_TIMEOUT, handing_over).await;
    }

    /// From now on the broker is not ready and takes no calls.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.ready.send_replace(false);
    }

    /// Keeps readiness true while there is a leader of the catalog and most of those who vote on it are heard of, until the
    /// broker drains.
    async fn keep_ready(self) {
        let group = self.shared.catalog.group();
        let version = self.newest_catalog().await;
        let mut directory = self.shared.directory.clone();
        // It ends with an error only when the follower has, as the broker then does.
        let _ = directory.wait_for(|it| it.version >= version).await;
        self.shared.has_catalog.store(true, Ordering::Relaxed);
        let mut silent = self.shared.groups.silent();
        let mut changes = pin!(group.changes());
        loop {
            let has_quorum = group.has_quorum_without(&silent.borrow_and_update());
            let serves = has_quorum && group.leader().is_some();
            self.shared.ready.send_if_modified(|ready| {
                let now = serves && !self.shared.draining.load(Ordering::Relaxed);
                std::mem::replace(ready, now) != now
            });
            tokio::select! {
                change = changes.next() => if change.is_none() { return },
                Ok(()) = silent.changed() => {}
            }
        }
    }

    /// Stops all groups.
    pub async fn stop(&self) {
        let directory = self.shared.directory.borrow().clone();
        futures::future::join_all(directory.partitions().map(|partition| partition.stop())).await;
        self.shared.catalog.group().stop().await;
    }

    fn directory(&self) -> directory::Known {
        directory::Known {
            is_whole: self.shared.has_catalog.load(Ordering::Relaxed),
            directory: self.shared.directory.borrow().clone(),
        }
    }

    fn check_ready(&self) -> Result<(), Error> {
        if self.shared.draining.load(Ordering::Relaxed) {
            Err(Error::NotReady)
        } else {
            Ok(())
        }
    }
}
