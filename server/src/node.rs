//! The composition root: the one file that knows every room. Starts a node, and stops it in order.

mod addresses;
mod bootstrap;
mod gossip;
mod identity;
mod reach;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use kelda_proto::internal::v1::catalog_command::RegisterNode;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    broker::{self, Broker},
    config::{self, Config},
    consensus::{CatalogGroup, Groups, OpenError},
    membership,
    middleware::{self, PeerIdentity, stacks::ClientConfig},
    peers::{AddressBook, Peers},
    rpc,
    storage::{self, Hooks, Marker, Storage},
    telemetry::{Metrics, Thread, clock},
};
use gossip::Gossip;
use identity::Identity;

/// Version of this software.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a node did not start. Each is one line that names the flag to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The port.
    #[error(transparent)]
    Bind(#[from] rpc::BindError),
    /// Gossip.
    #[error(transparent)]
    Gossip(#[from] membership::StartError),
    /// The threads that serve.
    #[error(transparent)]
    Serve(#[from] rpc::StartError),
    /// Threads for the background.
    #[error("can not start a thread: {0}: raise the limits of this process")]
    Thread(io::Error),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// The data directory is another node's.
    #[error(
        "data directory {path} belongs to node {owner}: use --node-id {owner} or another --data-dir"
    )]
    OtherNode {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: String,
    },
    /// The data directory is another cluster's.
    #[error(
        "data directory {path} belongs to cluster {cluster}: use another --data-dir or leave out --cluster-id"
    )]
    OtherCluster {
        /// The directory.
        path: String,
        /// Which cluster's.
        cluster: String,
    },
    /// The data directory does not say whose its data are.
    #[error(
        "data directory {path} has data but no kelda.marker: put its marker back, or use another --data-dir"
    )]
    NoMarker {
        /// The directory.
        path: String,
    },
    /// A group.
    #[error("{0}")]
    Group(#[from] OpenError),
    /// The catalog.
    #[error("the catalog did not take this node in: {0}")]
    Catalog(String),
    /// The cluster does not want the node.
    #[error("the cluster did not take this node in: {0}")]
    Refused(String),
}

/// A running node.
pub struct Node {
    broker: Broker,
    tasks: broker::Tasks,
    following: Following,
    gossip: Gossip,
    server: rpc::Server,
    peer_server: Option<rpc::Server>,
    storage: Storage,
    drain_timeout: Duration,
    cluster_id: String,
    /// Last, for the tasks on them.
    _threads: Threads,
}

impl Node {
    /// Starts a node on the current runtime, which from then on carries its groups, and answers once it serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let start_time_ms = clock::now_ms();
        // The port first: a second broker by mistake must not touch any data.
        let address = |port| SocketAddr::new(config.address, port);
        let listener = rpc::Listener::bind(address(config.port), "--port")?;
        let peer_listener = match config.raft_port() {
            Some(port) => Some(rpc::Listener::bind(address(port), "--cluster-port")?),
            None => None,
        };
        let marker = identity::claim(&config)?;
        let metrics = Metrics::new(VERSION);
        let threads = Threads::start()?;
        let storage = open_storage(&config, &metrics).await?;
        let ip = reach::address(&config).await;
        let this = describe(&config, ip, &listener, peer_listener.as_ref());
        let gossip = Gossip::start(
            &config,
            ip,
            &this,
            marker.as_ref(),
            &metrics,
            threads.metadata.handle(),
        )
        .await;
        let started = match gossip {
            Ok(gossip) => {
                let start = Start {
                    config,
                    listener,
                    peer_listener,
                    marker,
                    this,
                    gossip: gossip.clone(),
                    metrics,
                    storage: storage.clone(),
                    start_time_ms,
                    threads,
                };
                let started = start.run().await;
                if started.is_err() {
                    gossip.leave().await;
                }
                started
            }
            Err(error) => Err(error),
        };
        if started.is_err() {
            // A program that embeds the node may try again, so the directory must not stay locked.
            if let Err(error) = storage.close().await {
                tracing::warn!(%error, "storage did not close cleanly");
            }
        }
        started
    }

    /// Where clients reach the node.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Id of its cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The broker, for a program that embeds the node.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Stops taking calls, lets those under way end for a while, and closes the storage. What was acknowledged is
    /// durable before this is called; nothing depends on its being called.
    pub async fn shutdown(self) {
        self.broker.hand_over().await;
        self.broker.drain();
        // Once it leads nothing more, so that nobody looks for leaders that it is about to hand over.
        let (drained, ()) = tokio::join!(
            self.server.shutdown(self.drain_timeout),
            self.gossip.leave()
        );
        if !drained {
            tracing::warn!("some calls did not end in time and were cut off");
        }
        // It may have been given a lead meanwhile.
        self.broker.hand_over().await;
        self.tasks.stop().await;
        self.following.stop();
        self.broker.stop().await;
        if let Some(server) = self.peer_server {
            server.shutdown(Duration::ZERO).await;
        }
        if let Err(error) = self.storage.close().await {
            tracing::error!(%error, "storage did not close cleanly");
        }
    }
}

/// A start that has its ports and its storage.
struct Start {
    config: Config,
    listener: rpc::Listener,
    peer_listener: Option<rpc::Listener>,
    marker: Option<Marker>,
    this: RegisterNode,
    gossip: Gossip,
    metrics: Arc<Metrics>,
    storage: Storage,
    start_time_ms: i64,
    threads: Threads,
}

/// Threads of a node beside those of its groups, its connections, its storage and gossip.
struct Threads {
    metadata: Thread,
    background: Thread,
}

impl Threads {
    fn start() -> Result<Self, StartError> {
        let start = |name| Thread::start(name).map_err(StartError::Thread);
        Ok(Self {
            metadata: start("metadata")?,
            background: start("background")?,
        })
    }
}

/// What follows the catalog's word about where the nodes are.
struct Following {
    addresses: JoinHandle<()>,
    gossip: JoinHandle<()>,
}

impl Following {
    fn stop(&self) {
        self.addresses.abort();
        self.gossip.abort();
    }
}

/// What was started and must be stopped in this order if a later step fails.
struct Running {
    peer_server: Option<rpc::Server>,
    catalog: CatalogGroup,
}

impl Running {
    async fn stop(self) {
        if let Some(server) = self.peer_server {
            server.shutdown(Duration::ZERO).await;
        }
        self.catalog.group().stop().await;
    }
}

impl Start {
    /// Goes on until the node serves. After a failure nothing runs on the storage any more.
    async fn run(mut self) -> Result<Node, StartError> {
        if self.marker.is_none() {
            identity::check_unclaimed(&self.config, &self.storage).await?;
        }
        let marker = self.marker.take();
        let identity = identity::find(&self.config, marker, &self.this, &self.gossip).await?;
        self.gossip.joined(&identity)?;
        let (book, addresses) = watch::channel(AddressBook::default());
        let peers = Peers::new(
            identity.cluster_id.clone(),
            identity.node,
            addresses.clone(),
            Arc::clone(&self.metrics),
        );
        let groups = Groups::new(self.storage.clone(), peers)
            .look_while_asleep(self.config.look_while_asleep);
        let api = rpc::PeerApi::new(groups.clone());
        // Before the catalog: a node that has joined gets it from the others.
        let peer_server = match self.peer_listener.take() {
            Some(listener) => Some(self.serve_peers(listener, &identity, &groups, api.clone())?),
            None => None,
        };
        let catalog = groups.open_catalog(identity.has_joined()).await?;
        let running = Running {
            peer_server,
            catalog: catalog.clone(),
        };
        let path = self.config.data_dir.display().to_string();
        // A group that has failed says so to whoever asks it next.
        let members = catalog.group().addresses().await.unwrap_or_default();
        let sources = addresses::Sources {
            cluster_id: identity.cluster_id.clone(),
            members,
            catalog: catalog.watch(),
            gossip: self.gossip.liveness(),
        };
        let thread = self.threads.metadata.handle();
        let following = Following {
            gossip: thread.spawn(self.gossip.clone().follow(identity.node, addresses)),
            addresses: thread.spawn(addresses::follow(sources, book)),
        };
        if let Err(error) = identity::enter(&identity, &catalog, self.this.clone(), &path).await {
            following.stop();
            running.stop().await;
            return Err(error);
        }
        self.serve_clients(identity.cluster_id, groups, api, running, following)
            .await
    }

    fn serve_peers(
        &self,
        listener: rpc::Listener,
        identity: &Identity,
        groups: &Groups,
        api: rpc::PeerApi,
    ) -> Result<rpc::Server, StartError> {
        let groups = groups.clone();
        let identity = PeerIdentity {
            cluster_id: identity.cluster_id.clone(),
            node: identity.node,
            known: Arc::new(move |node| groups.knows(node)),
        };
        let metrics = Arc::clone(&self.metrics);
        Ok(rpc::Server::start_peers(listener, api, identity, metrics)?)
    }

    async fn serve_clients(
        self,
        cluster_id: String,
        groups: Groups,
        api: rpc::PeerApi,
        running: Running,
        following: Following,
    ) -> Result<Node, StartError> {
        let config = self.config;
        let parts = broker::Parts {
            storage: self.storage.clone(),
            groups,
            catalog: running.catalog.clone(),
            metrics: Arc::clone(&self.metrics),
            liveness: self.gossip.liveness(),
            start_time_ms: self.start_time_ms,
            threads: broker::Threads {
                metadata: self.threads.metadata.handle().clone(),
                background: self.threads.background.handle().clone(),
            },
            config: config.broker(),
        };
        let (broker, tasks) = Broker::start(parts).await;
        api.set_broker(broker.clone());
        let options = rpc::Options {
            workers: config.worker_count(),
            connections_max: config.connections_max,
            stack: ClientConfig {
                shed: config.shed(),
                receive: config.receive(),
                deadline: middleware::DeadlineConfig::default(),
            },
        };
        match rpc::Server::start(self.listener, broker.clone(), self.metrics, options) {
            Ok(server) => Ok(Node {
                broker,
                tasks,
                following,
                gossip: self.gossip,
                server,
                peer_server: running.peer_server,
                storage: self.storage,
                drain_timeout: Duration::from_millis(config.drain_timeout_ms),
                cluster_id,
                _threads: self.threads,
            }),
            Err(error) => {
                following.stop();
                tasks.stop().await;
                broker.stop().await;
                running.stop().await;
                Err(error.into())
            }
        }
    }
}

/// What the catalog is to know of this node, which others reach at `ip`.
fn describe(
    config: &Config,
    ip: IpAddr,
    listener: &rpc::Listener,
    peer_listener: Option<&rpc::Listener>,
) -> RegisterNode {
    let at = |it: &rpc::Listener| SocketAddr::new(ip, it.address().port()).to_string();
    RegisterNode {
        id: 0,
        name: config.node_id.clone(),
        address: at(listener),
        version: VERSION.to_owned(),
        raft_address: peer_listener.map_or_else(String::new, at),
        rack: config.rack.clone(),
        token: String::new(),
    }
}

async fn open_storage(config: &Config, metrics: &Arc<Metrics>) -> Result<Storage, StartError> {
    let metrics = Arc::clone(metrics);
    let hooks = Hooks {
        on_commit: Arc::new(move |commit| {
            metrics.storage_committed(commit.entries, commit.bytes, commit.duration);
        }),
        ..Hooks::default()
    };
    let config = config.storage();
    let opened = tokio::task::spawn_blocking(move || Storage::open(config, hooks)).await;
    opened
        .map_err(|error| StartError::Catalog(format!("opening the storage failed: {error}")))?
        .map_err(Into::into)
}
