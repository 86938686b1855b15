//! How a node takes part in gossip.

use std::{fmt, net::SocketAddr, time::Duration};

/// Configuration of the gossip of a node. The intervals are tuned for a quiet idle cluster: Raft does not wait for
/// gossip, which only finds nodes and tells what became of them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node, unique in the cluster: 1 to 64 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Where to listen, UDP and TCP. Port 0 takes a free one. Default `127.0.0.1:7946`.
    pub bind: SocketAddr,
    /// Where other nodes reach this one, if that is not `bind`; needed if `bind` stands for all addresses. Port 0
    /// stands for the port of `bind`.
    pub advertise: Option<SocketAddr>,
    /// The only cluster to talk to. Default: the one that the node is a member of, or the first that it finds.
    pub cluster_id: Option<String>,
    /// Nodes to join, each `host:port`. Names are resolved again at each try. Default none.
    pub seeds: Vec<String>,
    /// How often news are passed on, if there are any. Default 2 s.
    pub gossip_interval: Duration,
    /// To how many nodes they are passed on each time. Default 3.
    pub gossip_nodes: usize,
    /// How often everything is compared with some other node. Default 30 s.
    pub push_pull_interval: Duration,
    /// How often some other node is asked for a sign of life. Default 5 s.
    pub probe_interval: Duration,
    /// How long to wait for that sign before others are asked to look too; below `probe_interval`. Default 1 s.
    pub probe_timeout: Duration,
    /// How many probe intervals a silent node has to deny its death. Default 1: silence over UDP, over TCP and
    /// towards others for a whole interval is proof enough. More where networks lose much.
    pub suspicion_mult: usize,
    /// How long connecting, reading or writing over TCP may take. Default 3 s.
    pub stream_timeout: Duration,
    /// Largest UDP packet sent. Default 1400 bytes, which fits any path.
    pub packet_bytes: usize,
    /// Keys: the first encrypts, all decrypt. To change the key of a running cluster, restart its nodes in turn three
    /// times: with the new one last, with the new one first, without the old one. Default none: no encryption.
    pub keys: Vec<Key>,
    /// How often the announcement may change in the eyes of others. Default 5 s.
    pub metadata_interval: Duration,
    /// How often the announcement is made again although it is what it was. Default none: never.
    pub metadata_refresh: Option<Duration>,
}

/// A key for AES-256-GCM. It is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "node1".to_owned(),
            bind: SocketAddr::from(([127, 0, 0, 1], 7946)),
            advertise: None,
            cluster_id: None,
            seeds: Vec::new(),
            gossip_interval: Duration::from_secs(2),
            gossip_nodes: 3,
            push_pull_interval: Duration::from_secs(30),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(1),
            suspicion_mult: 1,
            stream_timeout: Duration::from_secs(3),
            packet_bytes: 1400,
            keys: Vec::new(),
            metadata_interval: Duration::from_secs(5),
            metadata_refresh: None,
        }
    }
}

/// Whether nodes may have this name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let config = Config {
            keys: vec![Key([171; 32])],
            ..Config::default()
        };
        let printed = format!("{config:?}");
        assert!(printed.contains("[Key(..)]"), "{printed}");
        assert!(!printed.contains("171"), "{printed}");
    }
}
