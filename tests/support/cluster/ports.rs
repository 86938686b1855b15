//! Ports that no other test takes, in this process or another, whether their node runs or not.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::Arc,
};

/// Below the ports that systems give to outgoing connections, which would otherwise take one while its node is down.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// The Raft port is this far above the cluster port.
const RAFT_ABOVE: u16 = 1000;

/// Ports of a node in a network of its own, where nobody else can take them.
const ALONE: (u16, u16) = (8080, 7966);

/// Ports of one node, its own until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    /// UDP and TCP; the Raft port is 1,000 above.
    pub(crate) cluster: Option<u16>,
    _leases: Arc<Vec<File>>,
}

impl Ports {
    /// Of a node that knows of no cluster.
    pub(crate) fn client() -> Self {
        let (client, leases) = lease(&[0]);
        Self {
            client,
            cluster: None,
            _leases: Arc::new(leases),
        }
    }

    /// Of a node of a cluster.
    pub(crate) fn cluster() -> Self {
        let (client, mut leases) = lease(&[0]);
        let (cluster, others) = lease(&[0, RAFT_ABOVE]);
        leases.extend(others);
        Self {
            client,
            cluster: Some(cluster),
            _leases: Arc::new(leases),
        }
    }

    /// Of a node in a network of its own.
    pub(crate) fn alone() -> Self {
        Self {
            client: ALONE.0,
            cluster: Some(ALONE.1),
            _leases: Arc::default(),
        }
    }

    /// Where other nodes send Raft's messages.
    pub(crate) fn raft(&self) -> Option<u16> {
        self.cluster.map(|port| port + RAFT_ABOVE)
    }
}

/// A port that is free together with those at these distances above it.
fn lease(distances: &[u16]) -> (u16, Vec<File>) {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let start = u16::try_from(random % u64::from(COUNT)).expect("it is below");
    let candidates = (0..COUNT).map(|step| FIRST + (start + step) % COUNT);
    for port in candidates {
        let leases = distances.iter().map(|above| take(port + above));
        if let Some(leases) = leases.collect() {
            return (port, leases);
        }
    }
    panic!("all ports from {FIRST} on are taken");
}

/// Something that only one test may have at a time, whichever process it is in.
pub(super) fn lock(name: &str) -> Option<File> {
    // Locks end with their process, however it ends; the files may stay.
    let directory = std::env::temp_dir().join("kelda-test-locks");
    fs::create_dir_all(&directory).expect("a directory");
    let file = File::create(directory.join(name)).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

fn take(port: u16) -> Option<File> {
    let file = lock(&port.to_string())?;
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).ok()?;
    UdpSocket::bind(at).ok()?;
    Some(file)
}
