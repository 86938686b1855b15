//! The composition root: the one file that knows every room. Starts a node, and stops it in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kelda_proto::internal::v1::{CatalogCommand, catalog_command as command};

use crate::{
    broker::{self, Broker},
    config::{self, Config},
    consensus::{CatalogGroup, Command, Groups, OpenError, Reply},
    middleware::{self, stacks::ClientConfig},
    rpc,
    storage::{self, Hooks, Marker, Storage},
    telemetry::{Metrics, clock},
    types::NodeId,
};

/// Version of this software.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The node that founds a cluster.
const FOUNDER: NodeId = NodeId(1);

/// Why a node did not start. Each is one line that names the flag to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The port.
    #[error(transparent)]
    Bind(#[from] rpc::BindError),
    /// The threads that serve.
    #[error(transparent)]
    Serve(#[from] rpc::StartError),
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
    /// A group.
    #[error("{0}")]
    Group(#[from] OpenError),
    /// The catalog.
    #[error("the catalog did not take this node in: {0}")]
    Catalog(String),
}

/// A running node.
pub struct Node {
    broker: Broker,
    tasks: broker::Tasks,
    server: rpc::Server,
    storage: Storage,
    drain_timeout: Duration,
    cluster_id: String,
}

impl Node {
    /// Starts a node on the current runtime, which from then on carries its groups, and answers once it serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let start_time_ms = clock::now_ms();
        // The port first: a second broker by mistake must not touch any data.
        let listener = rpc::Listener::bind(SocketAddr::new(config.address, config.port))?;
        let marker = claim(&config)?;
        let metrics = Metrics::new(VERSION);
        let storage = open_storage(&config, &metrics).await?;
        let start = Start {
            config,
            listener,
            marker,
            metrics,
            storage: storage.clone(),
            start_time_ms,
        };
        let started = start.run().await;
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
        self.broker.drain();
        if !self.server.shutdown(self.drain_timeout).await {
            tracing::warn!("some calls did not end in time and were cut off");
        }
        self.tasks.stop().await;
        self.broker.stop().await;
        if let Err(error) = self.storage.close().await {
            tracing::error!(%error, "storage did not close cleanly");
        }
    }
}

/// A start that has its port and its storage.
struct Start {
    config: Config,
    listener: rpc::Listener,
    marker: Option<Marker>,
    metrics: Arc<Metrics>,
    storage: Storage,
    start_time_ms: i64,
}

impl Start {
    /// Goes on until the node serves. After a failure nothing runs on the storage any more.
    async fn run(self) -> Result<Node, StartError> {
        let config = self.config;
        let marker = self.marker.as_ref();
        let node = marker.map_or(FOUNDER, |marker| marker.node_id);
        let groups = Groups::new(self.storage.clone(), node);
        let catalog = groups.open_catalog().await?;
        let address = self.listener.address();
        let cluster_id = match join(&config, &groups, &catalog, address, marker).await {
            Ok(cluster_id) => cluster_id,
            Err(error) => {
                catalog.group().stop().await;
                return Err(error);
            }
        };
        let parts = broker::Parts {
            storage: self.storage.clone(),
            groups,
            catalog,
            metrics: Arc::clone(&self.metrics),
            start_time_ms: self.start_time_ms,
            config: config.broker(),
        };
        let (broker, tasks) = Broker::start(parts).await;
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
                server,
                storage: self.storage,
                drain_timeout: Duration::from_millis(config.drain_timeout_ms),
                cluster_id,
            }),
            Err(error) => {
                tasks.stop().await;
                broker.stop().await;
                Err(error.into())
            }
        }
    }
}

/// Checks that the data directory is this node's, as far as it says.
fn claim(config: &Config) -> Result<Option<Marker>, StartError> {
    if config.ephemeral {
        return Ok(None);
    }
    let Some(marker) = storage::read_marker(&config.data_dir)? else {
        return Ok(None);
    };
    let path = || config.data_dir.display().to_string();
    if marker.node_name != config.node_id {
        return Err(StartError::OtherNode {
            path: path(),
            owner: marker.node_name,
        });
    }
    if config
        .cluster_id
        .as_ref()
        .is_some_and(|wanted| *wanted != marker.cluster_id)
    {
        return Err(StartError::OtherCluster {
            path: path(),
            cluster: marker.cluster_id,
        });
    }
    Ok(Some(marker))
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

/// Founds the cluster or comes back to it, and writes down whose the data directory is. Answers the cluster's id.
async fn join(
    config: &Config,
    groups: &Groups,
    catalog: &CatalogGroup,
    address: SocketAddr,
    marker: Option<&Marker>,
) -> Result<String, StartError> {
    if catalog.view().cluster_id().is_empty() {
        let cluster_id = match &config.cluster_id {
            Some(id) => id.clone(),
            None => new_cluster_id()?,
        };
        change(
            catalog,
            command::Command::FoundCluster(command::FoundCluster { cluster_id }),
        )
        .await?;
    }
    let cluster_id = catalog.view().cluster_id().to_owned();
    let wanted = marker
        .map(|marker| &marker.cluster_id)
        .or(config.cluster_id.as_ref());
    if wanted.is_some_and(|wanted| *wanted != cluster_id) {
        let path = config.data_dir.display().to_string();
        return Err(StartError::OtherCluster {
            path,
            cluster: cluster_id,
        });
    }
    let me = groups.node();
    let known = catalog.view().node(me).is_some();
    let register = command::RegisterNode {
        id: if known { me.0 } else { 0 },
        name: config.node_id.clone(),
        address: address.to_string(),
        version: VERSION.to_owned(),
    };
    change(catalog, command::Command::RegisterNode(register)).await?;
    if marker.is_none() && !config.ephemeral {
        let marker = Marker {
            format_version: storage::FORMAT_VERSION,
            cluster_id: cluster_id.clone(),
            node_id: me,
            node_name: config.node_id.clone(),
        };
        storage::write_marker(&config.data_dir, &marker)?;
    }
    Ok(cluster_id)
}

async fn change(catalog: &CatalogGroup, command: command::Command) -> Result<(), StartError> {
    let command = CatalogCommand {
        time_ms: clock::now_ms(),
        command: Some(command),
    };
    let failed = |error: &dyn std::fmt::Display| StartError::Catalog(error.to_string());
    let proposal = catalog
        .group()
        .propose(Command::catalog(&command))
        .await
        .map_err(|error| failed(&error))?;
    match proposal.wait().await.map_err(|error| failed(&error))? {
        Reply::Catalog(Ok(_)) => Ok(()),
        other => Err(failed(&other)),
    }
}

/// A random id, so that two clusters are never taken for one.
fn new_cluster_id() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Catalog(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
