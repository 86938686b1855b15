//! Gossip over the network.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use memberlist::{
    Options,
    error::Error as MemberlistError,
    net::{NetTransportOptions, error::NetTransportError},
    proto::{ChecksumAlgorithm, EncryptionAlgorithm, Label, SecretKey},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{AbortHandle, JoinError},
};

use super::{
    Announcement, Config, Error, Membership, View,
    config::is_name,
    conflicts,
    delegate::Delegate,
    gate::Gate,
    intake::{Intake, Queue},
    peers::{Id, Members, Peers as _, Transport},
    publish,
    seeds::Seeds,
    view::Board,
};
use crate::telemetry::Metrics;

/// Set before everything that is sent, so that nothing else that speaks memberlist's protocol is taken for a node.
const LABEL: &str = "kelda";

/// Times that each piece of news is passed on, times the logarithm of the number of nodes.
const RETRANSMIT_MULT: usize = 4;

/// How much longer than it takes at best a silent node may be suspected. memberlist waits for the longest time if its
/// multiplier is 1, by a number that wraps, and if nodes that should confirm are dead too: so both are the same.
const SUSPICION_MAX_MULT: usize = 1;

/// How long each of the two steps of leaving may take.
const LEAVE_STEP: Duration = Duration::from_secs(1);

/// Nodes that are told at a time that this one leaves.
const FAREWELLS: usize = 32;

/// UDP packets that may wait to be read.
const PACKETS_MAX: usize = 256;

/// Tries to find a port that is free for UDP and TCP.
const FREE_PORT_TRIES: usize = 16;

/// How long a node that fell silent keeps its address from another of its name.
const RECLAIM_AFTER: Duration = Duration::from_millis(1);

/// memberlist forgets the dead after this time, and must not: it then moves the others in its list without noting
/// where they went, and panics when it looks for one of them. The gate limits how many names there are instead.
const FORGET_AFTER: Duration = Duration::from_secs(u32::MAX as u64);

/// Why a node can not gossip. Each is one line that names the flag to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else has the port.
    #[error("port {} is in use: choose another with --cluster-port, or stop what uses it", .0.port())]
    InUse(SocketAddr),
    /// The address is not this machine's.
    #[error("{} is not an address of this machine: choose another with --address", .0.ip())]
    NotHere(SocketAddr),
    /// The port is reserved.
    #[error("port {} needs privileges: choose one above 1023 with --cluster-port", .0.port())]
    NotAllowed(SocketAddr),
    /// The address stands for all of this machine's, and other nodes need one.
    #[error("{0} is no address that other nodes reach: say with --address which one is")]
    NoAddress(std::net::IpAddr),
    /// The name is none.
    #[error("--node-id must have 1 to 64 of the characters a-z A-Z 0-9 . _ -")]
    Name,
    /// There is too much to tell.
    #[error(transparent)]
    Announcement(#[from] Error),
    /// There is no thread for it.
    #[error("can not start to gossip: {0}: raise the limits of this process")]
    Thread(io::Error),
    /// Something else.
    #[error("can not gossip on {address}, as --address and --cluster-port say: {reason}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// Gossip over the network. Dropped without [`Membership::leave`], the node falls silent, as if it had died.
///
/// It runs on the runtime that it is started on: a thread of its own is a runtime of one thread, and shows what gossip
/// costs.
pub struct Gossip {
    members: Members,
    gate: Arc<Gate>,
    board: Board,
    wanted: watch::Sender<Bytes>,
    known: watch::Sender<BTreeSet<String>>,
    announcement: Mutex<Announcement>,
    address: SocketAddr,
    tasks: Vec<AbortHandle>,
    runtime: Handle,
}

impl Gossip {
    /// Starts to gossip on the current runtime, and tells the others this of this node. Answers once it listens;
    /// seeds are joined from then on. What changes of the announcement is published on the runtime `publisher`.
    pub async fn start(
        mut config: Config,
        announcement: Announcement,
        metrics: Arc<Metrics>,
        publisher: &Handle,
    ) -> Result<Self, StartError> {
        let metadata = announcement.encode(false)?;
        if !is_name(&config.name) {
            return Err(StartError::Name);
        }
        let gate = Gate::new(
            config.name.clone(),
            config.cluster_id.clone(),
            Arc::clone(&metrics),
        );
        gate.belong(&announcement.cluster_id);
        gate.publish(metadata.clone());
        let gate = Arc::new(gate);
        let (queue, outlet) = Queue::new(Arc::clone(&metrics));
        let members = listen(&mut config, &gate, &queue).await?;
        let address = *members.advertise_address();
        let board = Board::new();
        let (claims, claim_outlet) = conflicts::Queue::new();
        let wanted = watch::Sender::new(metadata);
        let intake = Intake {
            gate: Arc::clone(&gate),
            board: board.clone(),
            peers: members.clone(),
            conflicts: claims,
            metrics: Arc::clone(&metrics),
        };
        let known = watch::Sender::new(BTreeSet::new());
        let seeds = Seeds::new(
            config.seeds.clone(),
            known.subscribe(),
            vec![address, config.bind],
            members.clone(),
            board.clone(),
        );
        let conflicts = conflicts::run(
            config.name.clone(),
            members.clone(),
            board.clone(),
            claim_outlet,
        );
        let publish = publish::run(
            members.clone(),
            Arc::clone(&gate),
            metrics,
            publish::Pace {
                least: config.metadata_interval,
                refresh: config.metadata_refresh,
            },
            wanted.subscribe(),
        );
        let tasks = vec![
            tokio::spawn(intake.run(outlet)).abort_handle(),
            tokio::spawn(seeds.run()).abort_handle(),
            tokio::spawn(conflicts).abort_handle(),
            publisher.spawn(publish).abort_handle(),
        ];
        Ok(Self {
            members,
            gate,
            board,
            wanted,
            known,
            announcement: Mutex::new(announcement),
            address,
            tasks,
            runtime: Handle::current(),
        })
    }

    /// Where other nodes reach this one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn farewell(&self) -> impl Future<Output = ()> + Send + 'static {
        let members = self.members.clone();
        let gate = Arc::clone(&self.gate);
        let last = self
            .announcement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .encode(true);
        async move {
            // Gossip alone would take two rounds of its interval each. A ping carries what is to be passed on, and
            // so the others know at once.
            if let Ok(last) = last {
                gate.publish(last);
                let told = members.announce(LEAVE_STEP);
                tokio::join!(told, spread(&members));
            }
            let left = async {
                if let Err(error) = members.leave(LEAVE_STEP).await {
                    tracing::debug!(%error, "not every node was told that this one leaves");
                }
            };
            tokio::join!(left, spread(&members));
            stop(&members).await;
        }
    }
}

/// Pings every other node, often enough for what is to be passed on.
async fn spread(members: &Members) {
    for _ in 0..RETRANSMIT_MULT {
        let others = members
            .list()
            .await
            .into_iter()
            .filter(|member| member.online && member.name != members.local_id().as_str());
        let pings = stream::iter(others).map(async |other| {
            members.answers(&other.name, other.address).await;
        });
        let _ = tokio::time::timeout(
            LEAVE_STEP / 2,
            pings.buffer_unordered(FAREWELLS).collect::<()>(),
        )
        .await;
    }
}

async fn stop(members: &Members) {
    if let Err(error) = members.shutdown().await {
        tracing::warn!(%error, "gossip did not stop cleanly");
    }
}

impl Membership for Gossip {
    fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.board.watch()
    }

    fn announce(&self, announcement: Announcement) -> Result<(), Error> {
        let metadata = announcement.encode(false)?;
        self.gate.belong(&announcement.cluster_id);
        let mut current = self
            .announcement
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != metadata;
            *wanted = metadata;
            changed
        });
        *current = announcement;
        Ok(())
    }

    fn seek(&self, nodes: BTreeSet<String>) {
        self.known.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        for task in self.tasks.iter().skip(1) {
            // All but the intake, which may still see how the others take it.
            task.abort();
        }
        let farewell = self.runtime.spawn(self.farewell());
        Box::pin(async move {
            let left: Result<(), JoinError> = farewell.await;
            if let Err(error) = left {
                tracing::warn!(%error, "leaving was cut short");
            }
        })
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let members = self.members.clone();
        // memberlist's own tasks keep it alive until it is told to stop.
        self.runtime.spawn(async move { stop(&members).await });
    }
}

/// Opens the port. On return, `config` says which.
async fn listen(
    config: &mut Config,
    gate: &Arc<Gate>,
    queue: &Queue,
) -> Result<Members, StartError> {
    let any_port = config.bind.port() == 0;
    let mut tries = if any_port { FREE_PORT_TRIES } else { 1 };
    loop {
        let bind = if any_port {
            free_port(config.bind).map_err(|error| refused(config.bind, &error))?
        } else {
            config.bind
        };
        tries -= 1;
        match open(config, bind, gate, queue).await {
            Err(StartError::InUse(_)) if tries > 0 => {}
            opened => {
                config.bind = bind;
                return opened;
            }
        }
    }
}

/// A port that is free now; memberlist would find one for TCP and hope that it is free for UDP too.
fn free_port(address: SocketAddr) -> io::Result<SocketAddr> {
    let tcp = TcpListener::bind(address)?;
    let address = tcp.local_addr()?;
    UdpSocket::bind(address)?;
    Ok(address)
}

async fn open(
    config: &Config,
    bind: SocketAddr,
    gate: &Arc<Gate>,
    queue: &Queue,
) -> Result<Members, StartError> {
    let mut advertise = config.advertise.unwrap_or(bind);
    if advertise.port() == 0 {
        advertise.set_port(bind.port());
    }
    if advertise.ip().is_unspecified() {
        return Err(StartError::NoAddress(advertise.ip()));
    }
    let name = Id::new(&config.name).map_err(|_| StartError::Name)?;
    let mut transport = NetTransportOptions::new(name)
        .with_advertise_address(advertise)
        .with_max_packet_size(config.packet_bytes)
        .with_packet_buffer_size(PACKETS_MAX);
    transport.add_bind_address(bind);
    let delegate = Delegate {
        gate: Arc::clone(gate),
        queue: queue.clone(),
    };
    let opened = Members::with_delegate(delegate, transport, options(config)).await;
    opened.map_err(|error: MemberlistError<Transport, Delegate>| match error {
        MemberlistError::Transport(
            NetTransportError::ListenPacket(address, error)
            | NetTransportError::ListenPromised(address, error),
        ) => refused(address, &error),
        error => StartError::Other {
            address: bind,
            reason: error.to_string(),
        },
    })
}

fn refused(address: SocketAddr, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse(address),
        io::ErrorKind::AddrNotAvailable => StartError::NotHere(address),
        io::ErrorKind::PermissionDenied => StartError::NotAllowed(address),
        _ => StartError::Other {
            address,
            reason: error.to_string(),
        },
    }
}

fn options(config: &Config) -> Options {
    let options = Options::lan()
        .with_label(Label::try_from(LABEL).expect("it is short"))
        .with_timeout(config.stream_timeout)
        .with_retransmit_mult(RETRANSMIT_MULT)
        .with_suspicion_mult(config.suspicion_mult)
        .with_suspicion_max_timeout_mult(SUSPICION_MAX_MULT)
        .with_push_pull_interval(config.push_pull_interval)
        // Both, always: memberlist's own defaults have them the wrong way round.
        .with_probe_interval(config.probe_interval)
        .with_probe_timeout(config.probe_timeout)
        .with_gossip_interval(config.gossip_interval)
        .with_gossip_nodes(config.gossip_nodes)
        .with_gossip_to_the_dead_time(FORGET_AFTER)
        .with_dead_node_reclaim_time(RECLAIM_AFTER)
        // Not CRC-32: of that memberlist compares the half that is always zero, so that nothing is ever found.
        .with_checksum_algo(ChecksumAlgorithm::XxHash64);
    let mut keys = config.keys.iter().map(|key| SecretKey::Aes256(key.0));
    let Some(primary) = keys.next() else {
        return options;
    };
    options
        .with_encryption_algo(EncryptionAlgorithm::NoPadding)
        .with_primary_key(primary)
        .with_secret_keys(keys.collect())
        .with_gossip_verify_incoming(true)
        .with_gossip_verify_outgoing(true)
}
