//! The configuration of a node: defaults, then a TOML file, then `KELDA_…` of the environment, then flags.

mod check;
mod environment;
mod gossip;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

use environment::Environment;

use crate::{broker, membership, middleware, storage};

/// How far the port of calls between nodes is from the cluster's port.
const RAFT_PORT_OFFSET: u16 = 1000;

/// Configuration of a node. Every field is a flag of `kelda serve`, a key of the TOML file and a variable of the
/// environment, under the same name but for case and dashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the node. It is written into the data directory, which then belongs to that node.
    pub node_id: String,
    /// Address to listen on, and the one that clients are told.
    pub address: IpAddr,
    /// Port of gRPC, gRPC-Web and HTTP. 0: any free one.
    pub port: u16,
    /// Port of the cluster; calls between nodes use the port that is 1000 higher. 0: the node stays alone.
    pub cluster_port: u16,
    /// Nodes of the cluster to join, host:cluster-port.
    pub seeds: Vec<String>,
    /// Found the cluster together: so many nodes that name each other as seeds. 0: the seeds have a cluster, or this
    /// node founds one alone.
    pub bootstrap_expect: usize,
    /// Where the node stands: replicas of a partition go to different racks.
    pub rack: String,
    /// Directory of the data.
    pub data_dir: PathBuf,
    /// Keep everything in memory: nothing survives the process.
    pub ephemeral: bool,
    /// Start only if the data directory belongs to this cluster.
    pub cluster_id: Option<String>,
    /// Serve other addresses than loopback although there is neither TLS nor authentication.
    pub insecure: bool,
    /// What to log: a level, or a list such as `info,storage=debug`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Threads that serve connections. 0: one for each core.
    pub workers: usize,
    /// Free bytes on the disk below which no records are taken.
    pub free_floor_bytes: u64,
    /// Memory for recently appended records, which need not be read from the disk again.
    pub tail_bytes: usize,
    /// Memory for pages of the database.
    pub cache_bytes: usize,
    /// Memory for produced records that are not committed yet; further produces wait.
    pub in_flight_bytes: usize,
    /// Memory for requests on their way in; what is more is refused.
    pub receive_bytes: usize,
    /// Memory for requests on their way in on one connection; what is more is refused.
    pub connection_receive_bytes: usize,
    /// How often old records are looked for, in milliseconds.
    pub retention_interval_ms: u64,
    /// How often the node that leads the catalog looks whether partitions and leaders are evenly spread, in milliseconds.
    pub rebalance_interval_ms: u64,
    /// How often nodes report their load to it, in milliseconds.
    pub load_report_interval_ms: u64,
    /// How often the members of groups are compared with what they are to be although nothing changed, in milliseconds.
    pub membership_interval_ms: u64,
    /// Look at partitions every so often also while all of them sleep.
    pub look_while_asleep: bool,
    /// Connections at most.
    pub connections_max: usize,
    /// Unary calls at a time at most.
    pub calls_max: usize,
    /// Streams at a time at most.
    pub streams_max: usize,
    /// How long calls may take to end when the node stops, in milliseconds.
    pub drain_timeout_ms: u64,
    /// How often news of nodes are passed on, if there are any, in milliseconds.
    pub gossip_interval_ms: u64,
    /// To how many nodes they are passed on each time.
    pub gossip_nodes: usize,
    /// How often all that is known of nodes is compared with some other node, in milliseconds.
    pub gossip_push_pull_interval_ms: u64,
    /// How often some other node is asked for a sign of life, in milliseconds.
    pub gossip_probe_interval_ms: u64,
    /// How long to wait for that sign, in milliseconds.
    pub gossip_probe_timeout_ms: u64,
    /// Largest UDP packet of gossip.
    pub gossip_packet_bytes: usize,
    /// How often at most a node tells something new of itself, in milliseconds.
    pub gossip_metadata_interval_ms: u64,
    /// How often it tells the same again, in milliseconds. 0: never.
    pub gossip_metadata_refresh_ms: u64,
    /// File with the keys of gossip: the first encrypts, all decrypt. None: gossip is not encrypted.
    pub gossip_key_file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

const MIB: usize = 1 << 20;

impl Default for Config {
    fn default() -> Self {
        let shed = middleware::ShedConfig::default();
        let receive = middleware::ReceiveConfig::default();
        let broker = broker::Config::default();
        let gossip = membership::Config::default();
        Self {
            node_id: "node1".to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            cluster_port: 0,
            seeds: Vec::new(),
            bootstrap_expect: 0,
            rack: String::new(),
            data_dir: PathBuf::from("kelda-data"),
            ephemeral: false,
            cluster_id: None,
            insecure: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            workers: 0,
            free_floor_bytes: 1 << 30,
            tail_bytes: 32 * MIB,
            cache_bytes: 32 * MIB,
            in_flight_bytes: broker.in_flight_bytes_max,
            receive_bytes: receive.node_bytes_max,
            connection_receive_bytes: receive.connection_bytes_max,
            retention_interval_ms: 30_000,
            rebalance_interval_ms: 30_000,
            load_report_interval_ms: 60_000,
            membership_interval_ms: 30_000,
            look_while_asleep: false,
            connections_max: 10_000,
            calls_max: shed.calls_max,
            streams_max: shed.streams_max,
            drain_timeout_ms: 10_000,
            gossip_interval_ms: milliseconds(gossip.gossip_interval),
            gossip_nodes: gossip.gossip_nodes,
            gossip_push_pull_interval_ms: milliseconds(gossip.push_pull_interval),
            gossip_probe_interval_ms: milliseconds(gossip.probe_interval),
            gossip_probe_timeout_ms: milliseconds(gossip.probe_timeout),
            gossip_packet_bytes: gossip.packet_bytes,
            gossip_metadata_interval_ms: milliseconds(gossip.metadata_interval),
            gossip_metadata_refresh_ms: gossip.metadata_refresh.map_or(0, milliseconds),
            gossip_key_file: None,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source can not be read, or has a key or value that is not known.
    #[error("configuration: {0}")]
    Source(#[from] Box<figment::Error>),
    /// Values are out of their bounds.
    #[error("configuration: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Config {
    /// What a node of a cluster has where nothing is said.
    pub fn of_cluster() -> Self {
        Self {
            cluster_port: 7946,
            ..Self::default()
        }
    }

    /// Sums up the sources. `flags` has the fields that were given on the command line, and no others; `defaults` hold
    /// where nothing is said.
    pub fn load(
        file: Option<&Path>,
        flags: &impl Serialize,
        defaults: &Self,
    ) -> Result<Self, Error> {
        let mut sources = Figment::from(Serialized::defaults(defaults));
        if let Some(file) = file {
            sources = sources.merge(Toml::file_exact(file));
        }
        let sources = sources
            .merge(Environment::new())
            .merge(Serialized::defaults(flags));
        let config: Self = sources.extract().map_err(Box::new)?;
        config.validate()?;
        Ok(config)
    }

    pub(crate) fn storage(&self) -> storage::Config {
        storage::Config {
            data_dir: (!self.ephemeral).then(|| self.data_dir.clone()),
            free_floor_bytes: self.free_floor_bytes,
            tail_bytes: self.tail_bytes,
            cache_bytes: self.cache_bytes,
        }
    }

    pub(crate) fn broker(&self) -> broker::Config {
        broker::Config {
            in_flight_bytes_max: self.in_flight_bytes,
            retention_interval: Duration::from_millis(self.retention_interval_ms),
            rebalance_interval: Duration::from_millis(self.rebalance_interval_ms),
            load_report_interval: Duration::from_millis(self.load_report_interval_ms),
            membership_interval: Duration::from_millis(self.membership_interval_ms),
        }
    }

    pub(crate) fn shed(&self) -> middleware::ShedConfig {
        middleware::ShedConfig {
            calls_max: self.calls_max,
            streams_max: self.streams_max,
        }
    }

    pub(crate) fn receive(&self) -> middleware::ReceiveConfig {
        middleware::ReceiveConfig {
            node_bytes_max: self.receive_bytes,
            connection_bytes_max: self.connection_receive_bytes,
        }
    }

    /// Port of calls between nodes, if the node is not to stay alone.
    pub fn raft_port(&self) -> Option<u16> {
        (self.cluster_port != 0).then(|| self.cluster_port.saturating_add(RAFT_PORT_OFFSET))
    }

    /// Threads that serve connections.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            asked => asked,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The address for calls between nodes of a node whose cluster address is `seed`, host:port.
pub fn raft_address(seed: &str) -> Option<String> {
    let (host, port) = seed.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(RAFT_PORT_OFFSET)?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// The address for gossip of a node whose address for calls between nodes is `raft_address`, host:port.
pub fn cluster_address(raft_address: &str) -> Option<String> {
    let (host, port) = raft_address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_sub(RAFT_PORT_OFFSET)?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

const FIELDS: [&str; 38] = [
    "node_id",
    "address",
    "port",
    "cluster_port",
    "seeds",
    "bootstrap_expect",
    "rack",
    "data_dir",
    "ephemeral",
    "cluster_id",
    "insecure",
    "log",
    "log_format",
    "workers",
    "free_floor_bytes",
    "tail_bytes",
    "cache_bytes",
    "in_flight_bytes",
    "receive_bytes",
    "connection_receive_bytes",
    "retention_interval_ms",
    "rebalance_interval_ms",
    "load_report_interval_ms",
    "membership_interval_ms",
    "look_while_asleep",
    "connections_max",
    "calls_max",
    "streams_max",
    "drain_timeout_ms",
    "gossip_interval_ms",
    "gossip_nodes",
    "gossip_push_pull_interval_ms",
    "gossip_probe_interval_ms",
    "gossip_probe_timeout_ms",
    "gossip_packet_bytes",
    "gossip_metadata_interval_ms",
    "gossip_metadata_refresh_ms",
    "gossip_key_file",
];

#[cfg(test)]
mod tests;
