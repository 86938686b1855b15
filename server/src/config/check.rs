//! What is wrong with a configuration: all mistakes at once, each with the flag to change.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{Config, Error, MIB, RAFT_PORT_OFFSET, raft_address};
use crate::telemetry::logging;

/// The largest request, and what its last frame may bring of the next one.
const RECEIVE_BYTES_MIN: usize = 17 * MIB;
/// Nodes that found a cluster together, at most: all of them must be there at once.
const BOOTSTRAP_EXPECT_MAX: usize = 9;
/// Shorter intervals only burn a core; longer ones make gossip blind.
const GOSSIP_INTERVALS_MS: RangeInclusive<u64> = 10..=3_600_000;
const GOSSIP_NODES_MAX: usize = 100;
/// What a node tells of itself must fit, encrypted, and UDP carries no more.
const GOSSIP_PACKET_BYTES: RangeInclusive<usize> = 1024..=65_000;

impl Config {
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
        self.check_bootstrap(require);
        self.check_gossip(require);
    }

    fn check_bootstrap(&self, require: &mut impl FnMut(bool, &str)) {
        let (expect, seeds) = (self.bootstrap_expect, self.seeds.len());
        if expect == 0 {
            return;
        }
        require(
            self.cluster_port != 0,
            "--bootstrap-expect needs --cluster-port, which is 0",
        );
        require(
            expect <= BOOTSTRAP_EXPECT_MAX,
            "--bootstrap-expect must be at most 9: further nodes join with --seeds alone",
        );
        // Exactly the same nodes for all: were there more to choose from, two parts of them could found a cluster each.
        require(
            expect == seeds || expect == seeds + 1,
            &format!(
                "--bootstrap-expect is {expect} and --seeds has {seeds}: name the other nodes, or all of them, and no more"
            ),
        );
        let distinct: BTreeSet<&String> = self.seeds.iter().collect();
        require(distinct.len() == seeds, "--seeds names a node twice");
    }

    fn check_gossip(&self, require: &mut impl FnMut(bool, &str)) {
        for (flag, interval) in [
            ("--gossip-interval", self.gossip_interval_ms),
            (
                "--gossip-push-pull-interval",
                self.gossip_push_pull_interval_ms,
            ),
            ("--gossip-probe-interval", self.gossip_probe_interval_ms),
            ("--gossip-probe-timeout", self.gossip_probe_timeout_ms),
            (
                "--gossip-metadata-interval",
                self.gossip_metadata_interval_ms,
            ),
        ] {
            require(
                GOSSIP_INTERVALS_MS.contains(&interval),
                &format!("{flag} must be 10ms to 1h"),
            );
        }
        require(
            self.gossip_probe_timeout_ms < self.gossip_probe_interval_ms,
            "--gossip-probe-timeout must be below --gossip-probe-interval",
        );
        require(
            (1..=GOSSIP_NODES_MAX).contains(&self.gossip_nodes),
            "--gossip-nodes must be 1 to 100",
        );
        require(
            GOSSIP_PACKET_BYTES.contains(&self.gossip_packet_bytes),
            "--gossip-packet-bytes must be 1024 to 65000",
        );
        require(
            self.gossip_key_file.is_none() || self.cluster_port != 0,
            "--gossip-key-file needs --cluster-port, which is 0",
        );
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
            "--retention-interval must not be 0",
        );
        require(
            self.rebalance_interval_ms > 0,
            "--rebalance-interval must not be 0",
        );
        require(
            self.load_report_interval_ms > 0,
            "--load-report-interval must not be 0",
        );
        require(
            self.membership_interval_ms > 0,
            "--membership-interval must not be 0",
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
}
