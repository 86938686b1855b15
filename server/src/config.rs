//! The configuration of a node: defaults, then a TOML file, then `KELDA_…` of the environment, then flags.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

use crate::{broker, middleware, storage, telemetry::logging};

/// How far the port of calls between nodes is from the cluster's port.
const RAFT_PORT_OFFSET: u16 = 1000;
/// Prefix of the variables of the environment.
const ENVIRONMENT_PREFIX: &str = "KELDA_";

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
    /// Connections at most.
    pub connections_max: usize,
    /// Unary calls at a time at most.
    pub calls_max: usize,
    /// Streams at a time at most.
    pub streams_max: usize,
    /// How long calls may take to end when the node stops, in milliseconds.
    pub drain_timeout_ms: u64,
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
/// The largest request, and what its last frame may bring of the next one.
const RECEIVE_BYTES_MIN: usize = 17 * MIB;

impl Default for Config {
    fn default() -> Self {
        let shed = middleware::ShedConfig::default();
        let receive = middleware::ReceiveConfig::default();
        let broker = broker::Config::default();
        Self {
            node_id: "node1".to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            cluster_port: 0,
            seeds: Vec::new(),
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
            connections_max: 10_000,
            calls_max: shed.calls_max,
            streams_max: shed.streams_max,
            drain_timeout_ms: 10_000,
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
        // Other programs of the project share the prefix; only the names of fields count.
        let mine = |key: &figment::value::UncasedStr| FIELDS.iter().any(|field| *field == key);
        let sources = sources
            .merge(Env::prefixed(ENVIRONMENT_PREFIX).filter(mine))
            .merge(Serialized::defaults(flags));
        let config: Self = sources.extract().map_err(Box::new)?;
        config.validate()?;
        Ok(config)
    }

    fn check_cluster(&self, require: &mut impl FnMut(bool, &str)) {
        require(
            self.cluster_port <= u16::MAX - RAFT_PORT_OFFSET,
            "--cluster-port must be at most 64535: the port that is 1000 higher is used too",
        );
        require(
            self.cluster_port != 0 || self.seeds.is_empty(),
            "--seeds needs --cluster-port, which is 0",
        );
        for seed in &self.seeds {
            require(
                raft_address(seed).is_some(),
                &format!(
                    "--seeds has {seed:?}, which is not host:port with a port of at most 64535"
                ),
            );
        }
        require(self.rack.len() <= 64, "--rack must have at most 64 bytes");
    }

    /// Lists all mistakes at once.
    pub fn validate(&self) -> Result<(), Error> {
        let mut mistakes = Vec::new();
        let mut require = |holds: bool, mistake: &str| {
            if !holds {
                mistakes.push(mistake.to_owned());
            }
        };
        let name_fits = (1..=64).contains(&self.node_id.len())
            && self
                .node_id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        require(
            name_fits,
            "--node-id must have 1 to 64 of the characters a-z A-Z 0-9 . _ -",
        );
        self.check_cluster(&mut require);
        require(
            self.address.is_loopback() || self.insecure,
            "--address is not loopback: there is no TLS and no authentication yet, so say --insecure if the network is trusted",
        );
        require(
            self.in_flight_bytes >= 32 * MIB,
            "--in-flight-bytes must be at least 32 MiB, two requests",
        );
        require(
            self.in_flight_bytes <= u32::MAX as usize,
            "--in-flight-bytes must be below 4 GiB",
        );
        require(
            self.receive_bytes >= RECEIVE_BYTES_MIN,
            "--receive-bytes must be at least 17 MiB, one request and the frame that ends it",
        );
        require(
            self.connection_receive_bytes >= RECEIVE_BYTES_MIN,
            "--connection-receive-bytes must be at least 17 MiB, one request and the frame that ends it",
        );
        require(
            self.cache_bytes >= MIB,
            "--cache-bytes must be at least 1 MiB",
        );
        require(
            self.retention_interval_ms > 0,
            "--retention-interval-ms must not be 0",
        );
        require(
            self.rebalance_interval_ms > 0,
            "--rebalance-interval must not be 0",
        );
        require(
            self.load_report_interval_ms > 0,
            "--load-report-interval must not be 0",
        );
        require(self.connections_max > 0, "--connections-max must not be 0");
        require(self.calls_max > 0, "--calls-max must not be 0");
        require(self.streams_max > 0, "--streams-max must not be 0");
        if let Err(error) = logging::check(&self.log) {
            mistakes.push(format!("--log: {error}"));
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(mistakes))
        }
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

/// The address for calls between nodes of a node whose cluster address is `seed`, host:port.
pub fn raft_address(seed: &str) -> Option<String> {
    let (host, port) = seed.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(RAFT_PORT_OFFSET)?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

const FIELDS: [&str; 26] = [
    "node_id",
    "address",
    "port",
    "cluster_port",
    "seeds",
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
    "connections_max",
    "calls_max",
    "streams_max",
    "drain_timeout_ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    }

    #[test]
    fn every_field_can_be_set_from_the_environment() {
        let value = serde_json::to_value(Config {
            cluster_id: Some(String::new()),
            ..Config::default()
        });
        let value = value.expect("the configuration is plain data");
        let mut names: Vec<_> = value
            .as_object()
            .expect("a struct")
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        let mut fields = FIELDS;
        fields.sort_unstable();
        assert_eq!(names, fields);
    }

    fn load(file: &Path, port: Option<u16>) -> Result<Config, Error> {
        Config::load(Some(file), &Flags { port }, &Config::default())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_defaults() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("kelda.toml");
        std::fs::write(&file, "port = 1\nnode_id = \"n2\"\n").expect("written");
        let config = load(&file, Some(2)).expect("valid");
        assert_eq!((config.port, config.node_id.as_str()), (2, "n2"));
        let config = load(&file, None).expect("valid");
        assert_eq!(config.port, 1);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("kelda.toml");
        std::fs::write(&file, "prot = 1\n").expect("written");
        let error = load(&file, None).expect_err("a mistake");
        assert!(error.to_string().contains("prot"), "{error}");
    }

    #[test]
    fn all_mistakes_are_listed_at_once() {
        let config = Config {
            node_id: String::new(),
            address: IpAddr::from([0, 0, 0, 0]),
            log: "loud".to_owned(),
            ..Config::default()
        };
        let error = config.validate().expect_err("mistakes").to_string();
        for flag in ["--node-id", "--insecure", "--log"] {
            assert!(error.contains(flag), "{flag} in {error}");
        }
    }
}
