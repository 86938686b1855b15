//! Calls to the other nodes of the cluster, over their Raft ports. No other room opens a connection to a node.
//!
//! Raft messages go over long-lived streams, one a lane and node, with many groups on each, see `lane.rs`; a full lane
//! refuses, so that a flood of one kind never delays another. Single calls go over a channel a node.

mod address_book;
mod credentials;
mod lane;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kelda_proto::{
    internal::v1::{RaftRequest, peer_service_client::PeerServiceClient, raft_response},
    limits::REQUEST_BYTES_MAX,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tonic::{
    ConnectError, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

pub use address_book::AddressBook;
pub use credentials::Credentials;
pub use lane::Answer;

use crate::{telemetry::Metrics, types::NodeId};
use lane::LaneSender;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a busy connection is checked, and how long the other side may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Most bytes of a message between nodes: a request of a client, and what goes around it.
pub const MESSAGE_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// A channel to one node that says who calls.
pub type PeerChannel = InterceptedService<Channel, Credentials>;

/// What a Raft message is carried by. Each has a connection of its own to each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes and heartbeats: small, and never behind anything else.
    Control,
    /// Entries that a producer waits for.
    Append,
    /// Snapshots, and entries for a replica that is far behind.
    Bulk,
}

/// A client of one node that says who calls.
pub type PeerClient = PeerServiceClient<PeerChannel>;

/// Why a single call to a node has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no connection: the node has not heard of it.
    #[error("not connected")]
    NotSent,
    /// The node may have carried it out.
    #[error("{0}")]
    Lost(String),
}

impl From<&Status> for CallError {
    fn from(status: &Status) -> Self {
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            if error.is::<ConnectError>() {
                return Self::NotSent;
            }
            cause = error.source();
        }
        Self::Lost(status.message().to_owned())
    }
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody knows where it is.
    #[error("address of node {0} is not known")]
    NoAddress(NodeId),
    /// There is no connection.
    #[error("node {node} is not reachable: {detail}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Why.
        detail: String,
    },
    /// Its lane is full.
    #[error("too many messages to node {0} are under way")]
    Busy(NodeId),
    /// It took too long.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
}

/// The other nodes. Clones share their connections.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    cluster_id: String,
    node: NodeId,
    book: watch::Receiver<AddressBook>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    lanes: Mutex<HashMap<(NodeId, Lane), LaneSender>>,
    channels: Mutex<HashMap<NodeId, (String, PeerChannel)>>,
    #[cfg(feature = "simulation")]
    carrier: Option<Arc<dyn Carrier>>,
}

/// Carries Raft messages in place of lanes, in simulations.
#[cfg(feature = "simulation")]
pub trait Carrier: Send + Sync {
    /// Takes a message to a node; its answer comes later, or never.
    fn carry(&self, to: NodeId, lane: Lane, request: RaftRequest) -> oneshot::Receiver<Answer>;
}

impl Peers {
    /// Calls of `node` of a cluster to the nodes of `book`. Must be called on the runtime that carries connections.
    pub fn new(
        cluster_id: String,
        node: NodeId,
        book: watch::Receiver<AddressBook>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                cluster_id,
                node,
                book,
                metrics,
                runtime: Handle::current(),
                lanes: Mutex::default(),
                channels: Mutex::default(),
                #[cfg(feature = "simulation")]
                carrier: None,
            }),
        }
    }

    /// Calls of `node` over a simulated network; only Raft messages get through.
    #[cfg(feature = "simulation")]
    pub fn simulated(node: NodeId, carrier: Arc<dyn Carrier>) -> Self {
        let (_, book) = watch::channel(AddressBook::default());
        let mut peers = Self::new(
            "simulation".to_owned(),
            node,
            book,
            Metrics::new("simulation"),
        );
        if let Some(shared) = Arc::get_mut(&mut peers.shared) {
            shared.carrier = Some(carrier);
        }
        peers
    }

    /// The way of a first node to nobody.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        let (_, book) = watch::channel(AddressBook::default());
        Self::new("test".to_owned(), NodeId(1), book, Metrics::new("test"))
    }

    /// The cluster.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Sends a message to a group on another node and waits for the answer, at most for `timeout`.
    ///
    /// # Errors
    /// Says why there is no answer; the message may have arrived all the same.
    pub async fn raft(
        &self,
        to: NodeId,
        lane: Lane,
        request: RaftRequest,
        timeout: Duration,
    ) -> Result<raft_response::Message, PeerError> {
        let answer = self.send(to, lane, request)?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(PeerError::Unreachable {
                node: to,
                detail: "the connection was lost".to_owned(),
            }),
            Err(_) => Err(PeerError::Timeout(to)),
        }
    }

    fn send(
        &self,
        to: NodeId,
        lane: Lane,
        request: RaftRequest,
    ) -> Result<oneshot::Receiver<Answer>, PeerError> {
        #[cfg(feature = "simulation")]
        if let Some(carrier) = &self.shared.carrier {
            return Ok(carrier.carry(to, lane, request));
        }
        self.lane(to, lane).send(request)
    }

    /// A channel for single calls to a node. It connects with the first call, and again after it was lost.
    ///
    /// # Errors
    /// If nobody knows where the node is.
    pub fn channel(&self, to: NodeId) -> Result<PeerChannel, PeerError> {
        let address = self.address(to)?;
        let mut channels = self
            .shared
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = channels.get(&to)
            && *known == address
        {
            return Ok(channel.clone());
        }
        let channel = self.lazy(to, &address)?;
        channels.insert(to, (address, channel.clone()));
        Ok(channel)
    }

    /// A message of this node, which was no call of its own, is on its way to another.
    pub fn count_sent(&self) {
        self.shared.metrics.peer_message_sent();
    }

    /// Changes of where nodes are.
    pub fn book(&self) -> watch::Receiver<AddressBook> {
        self.shared.book.clone()
    }

    fn lazy(&self, to: NodeId, address: &str) -> Result<PeerChannel, PeerError> {
        let endpoint =
            endpoint(address).map_err(|detail| PeerError::Unreachable { node: to, detail })?;
        let runtime = self.shared.runtime.clone();
        // On the node's runtime, whichever worker calls first: connections outlive calls.
        let endpoint = endpoint.executor(credentials::On(runtime));
        Ok(InterceptedService::new(
            endpoint.connect_lazy(),
            self.credentials(to),
        ))
    }

    fn credentials(&self, to: NodeId) -> Credentials {
        let (cluster, me) = (&self.shared.cluster_id, self.shared.node);
        Credentials::new(cluster, me, to, Arc::clone(&self.shared.metrics))
    }

    fn address(&self, to: NodeId) -> Result<String, PeerError> {
        let book = self.shared.book.borrow();
        book.raft_address(to)
            .map(str::to_owned)
            .ok_or(PeerError::NoAddress(to))
    }

    fn lane(&self, to: NodeId, lane: Lane) -> LaneSender {
        let mut lanes = self
            .shared
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sender = lanes.entry((to, lane)).or_insert_with(|| {
            LaneSender::start(
                to,
                lane,
                self.credentials(to),
                self.shared.book.clone(),
                &self.shared.runtime,
            )
        });
        sender.clone()
    }
}

/// A client of the service that nodes have for each other.
pub fn client(channel: PeerChannel) -> PeerClient {
    PeerServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A channel to a node of which only the address is known yet.
///
/// # Errors
/// If the address makes no sense.
pub fn stranger(address: &str) -> Result<PeerServiceClient<Channel>, String> {
    Ok(PeerServiceClient::new(endpoint(address)?.connect_lazy()))
}

/// Large windows and frames, as measured for clients.
fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| format!("{address} is not an address"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE))
}
