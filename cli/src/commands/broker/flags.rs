//! The flags of a broker: the fields of its configuration, under the same names.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use kelda_server::config::{self, Config};
use serde::Serialize;

use crate::{
    failure::{Exit, Failure},
    parse::{duration::duration, size::size},
};

/// Flags of a broker. Those that are not given are left to the file, the environment and the defaults.
#[derive(Debug, Default, Args, Serialize)]
pub(super) struct Flags {
    /// Configuration as TOML
    ///
    /// Keys are the names of the flags with _ for -, sizes are bytes, and durations are milliseconds, with _ms behind the
    /// name, such as retention_interval_ms. The same keys can be set in the environment, as KELDA_NODE_ID and so on, lists
    /// separated by commas. Flags win over the environment, which wins over the file.
    #[arg(long, env = "KELDA_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Name of the node, written into the data directory [default: node1]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    /// Port of gRPC, gRPC-Web and HTTP; 0: any free one [default: 8080]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Port of the cluster; calls between nodes use the port that is 1000 higher [default: 7946, dev: none]
    ///
    /// 0: the node stays alone and opens neither.
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_port: Option<u16>,
    /// Nodes of a cluster to join, as host:cluster-port, separated by commas
    ///
    /// Needed only until the node has joined: after that its data directory knows the others.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seeds: Vec<String>,
    /// Found the cluster together with the seeds, N nodes in all, once all of them are there [default: the seeds have one]
    ///
    /// All of them are given the same N, and either the other nodes or all nodes as --seeds. Means nothing to a node that
    /// has a cluster. Without it, seeds must have one.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap_expect: Option<usize>,
    /// Where the node stands: replicas of a partition go to different racks
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    /// Directory of the data [default: kelda-data]
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Keep everything in memory: nothing survives the process
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
    /// Start only if the data directory belongs to this cluster
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Serve other addresses than loopback although there is neither TLS nor authentication
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    /// What to log: off, error, warn, info or debug, or a list such as info,storage=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: Limits,
    #[command(flatten)]
    #[serde(flatten)]
    gossip: Gossip,
}

/// Flags of what nodes tell each other of themselves.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Gossip")]
struct Gossip {
    /// How often news of nodes are passed on, if there are any [default: 2s]
    #[arg(long = "gossip-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_interval_ms: Option<u64>,
    /// To how many nodes they are passed on each time [default: 3]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_nodes: Option<usize>,
    /// How often all is compared with some other node [default: 30s]
    #[arg(long = "gossip-push-pull-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_push_pull_interval_ms: Option<u64>,
    /// How often some other node is asked for a sign of life [default: 5s]
    #[arg(long = "gossip-probe-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_probe_interval_ms: Option<u64>,
    /// How long to wait for that sign before others are asked to look too [default: 1s]
    #[arg(long = "gossip-probe-timeout", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_probe_timeout_ms: Option<u64>,
    /// Largest UDP packet [default: 1400]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_packet_bytes: Option<u64>,
    /// How often at most a node tells something new of itself [default: 5s]
    #[arg(long = "gossip-metadata-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_metadata_interval_ms: Option<u64>,
    /// How often a node tells the same again; 0: never [default: 0]
    #[arg(long = "gossip-metadata-refresh", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_metadata_refresh_ms: Option<u64>,
    /// File with the keys of gossip, one a line, 32 bytes as base64 or hex; the first encrypts, all decrypt
    ///
    /// To change the key of a running cluster, restart its nodes in turn three times: with the new one last, with the
    /// new one first, without the old one.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_key_file: Option<PathBuf>,
}

/// Flags that few need.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Threads that serve connections [default: one for each core]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<usize>,
    /// Free disk space below which no records are taken [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    free_floor_bytes: Option<u64>,
    /// Memory for recently appended records [default: 32MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_bytes: Option<u64>,
    /// Memory for pages of the database [default: 32MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_bytes: Option<u64>,
    /// Memory for produced records that are not committed yet [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_bytes: Option<u64>,
    /// Memory for requests on their way in; what is more is refused [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_bytes: Option<u64>,
    /// Memory for requests on their way in on one connection; what is more is refused [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_receive_bytes: Option<u64>,
    /// How often old records are looked for [default: 30s]
    #[arg(long = "retention-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_interval_ms: Option<u64>,
    /// How often to look whether partitions and leaders are evenly spread [default: 30s]
    #[arg(long = "rebalance-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rebalance_interval_ms: Option<u64>,
    /// How often to report this node's load to the one that looks [default: 60s]
    #[arg(long = "load-report-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    load_report_interval_ms: Option<u64>,
    /// How often to look whether groups have the members they are to have, beside each change [default: 30s]
    #[arg(long = "membership-interval", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    membership_interval_ms: Option<u64>,
    /// Look for old records, uneven spread and missing members also while all partitions sleep, although
    /// changes are noticed without it: to compare what that costs
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    look_while_asleep: bool,
    /// Connections at most [default: 10000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_max: Option<usize>,
    /// Unary calls at a time at most [default: 4096]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_max: Option<usize>,
    /// Streams at a time at most [default: 1024]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    streams_max: Option<usize>,
    /// How long calls may take to end when the node stops [default: 10s]
    #[arg(long = "drain-timeout", value_name = "DURATION", value_parser = milliseconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Flags {
    /// The configuration that these flags, the environment and the file make.
    pub(super) fn load(&self, defaults: &Config) -> Result<Config, Failure> {
        let file: Option<&Path> = self.config.as_deref();
        Ok(Config::load(file, self, defaults)?)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    duration(text).map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn names(value: &impl Serialize) -> BTreeSet<String> {
        let value = serde_json::to_value(value).expect("plain data");
        value
            .as_object()
            .expect("a struct")
            .keys()
            .cloned()
            .collect()
    }

    const ALL: [&str; 73] = [
        "kelda",
        "--node-id",
        "n2",
        "--address",
        "127.0.0.2",
        "--port",
        "1",
        "--cluster-port",
        "7947",
        "--seeds",
        "a:1,b:2",
        "--bootstrap-expect",
        "3",
        "--rack",
        "r",
        "--data-dir",
        "d",
        "--ephemeral",
        "--cluster-id",
        "c",
        "--insecure",
        "--log",
        "warn",
        "--log-format",
        "json",
        "--workers",
        "1",
        "--free-floor-bytes",
        "2GiB",
        "--tail-bytes",
        "1MiB",
        "--cache-bytes",
        "3MiB",
        "--in-flight-bytes",
        "64MiB",
        "--receive-bytes",
        "128MiB",
        "--connection-receive-bytes",
        "32MiB",
        "--retention-interval",
        "5s",
        "--rebalance-interval",
        "10s",
        "--load-report-interval",
        "20s",
        "--membership-interval",
        "5s",
        "--look-while-asleep",
        "--connections-max",
        "7",
        "--calls-max",
        "8",
        "--streams-max",
        "9",
        "--drain-timeout=1m",
        "--gossip-interval",
        "200ms",
        "--gossip-nodes",
        "4",
        "--gossip-push-pull-interval",
        "10s",
        "--gossip-probe-interval",
        "2s",
        "--gossip-probe-timeout",
        "1500ms",
        "--gossip-packet-bytes",
        "1200",
        "--gossip-metadata-interval",
        "1s",
        "--gossip-metadata-refresh",
        "2s",
        "--gossip-key-file",
        "keys",
    ];

    #[test]
    fn every_field_of_the_configuration_is_a_flag_and_reaches_it() {
        let flags = Line::parse_from(ALL).flags;
        let config = flags.load(&Config::default()).expect("valid");
        assert_eq!(names(&flags), names(&config));
        let (given, loaded) = (serde_json::to_value(&flags), serde_json::to_value(&config));
        assert_eq!(given.expect("plain data"), loaded.expect("plain data"));
    }

    #[test]
    fn flags_that_are_not_given_say_nothing() {
        let flags = Line::parse_from(["kelda"]).flags;
        assert_eq!(
            serde_json::to_value(&flags).expect("plain data"),
            Value::Object(Default::default())
        );
    }
}
