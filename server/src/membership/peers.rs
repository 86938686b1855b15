//! What the tasks of this room want of memberlist, and memberlist behind it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use memberlist::{
    Memberlist,
    net::NetTransport,
    proto::{MaybeResolvedAddress, NodeState},
    tokio::{TokioRuntime, TokioSocketAddrResolver},
    transport::Node,
};

use super::{delegate::Delegate, tcp::Tcp};

/// Names, as memberlist has them. Longer ones do not get past its decoder.
pub(super) type Id = memberlist::proto::NodeId<64>;
pub(super) type Transport = NetTransport<Id, TokioSocketAddrResolver, Tcp, TokioRuntime>;
pub(super) type Members = Memberlist<Transport, Delegate>;

/// A member as memberlist has it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) metadata: Bytes,
    pub(super) online: bool,
}

/// Other nodes, as far as gossip reaches.
pub(super) trait Peers: Clone + Send + Sync + 'static {
    /// All members, this node too.
    fn list(&self) -> impl Future<Output = Vec<Member>> + Send;

    /// Whether a node of this name answers at this address.
    fn answers(&self, name: &str, address: SocketAddr) -> impl Future<Output = bool> + Send;

    /// Meets the node at this address and hears all that it knows; else says why not.
    fn join(&self, address: SocketAddr) -> impl Future<Output = Result<(), String>> + Send;

    /// Tells the others what this node tells of itself now. Answers when that has been sent, or after `timeout`.
    fn announce(&self, timeout: Duration) -> impl Future<Output = ()> + Send;
}

impl Peers for Members {
    async fn list(&self) -> Vec<Member> {
        // In this order: who comes between the two is online, and who goes between them is not.
        let all = self.members().await;
        let online = self.online_members().await;
        let is_online = |node: &Arc<NodeState<Id, SocketAddr>>| {
            online.iter().any(|online| online.id() == node.id())
        };
        let late = online.iter().filter(|node| {
            let id = node.id();
            !all.iter().any(|known| known.id() == id)
        });
        let member = |node: &Arc<NodeState<Id, SocketAddr>>, online| Member {
            name: node.id().as_str().to_owned(),
            address: *node.address(),
            metadata: Bytes::copy_from_slice(node.meta().as_bytes()),
            online,
        };
        let known = all.iter().map(|node| member(node, is_online(node)));
        known.chain(late.map(|node| member(node, true))).collect()
    }

    async fn answers(&self, name: &str, address: SocketAddr) -> bool {
        match Id::new(name) {
            Ok(id) => self.ping(Node::new(id, address)).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn join(&self, address: SocketAddr) -> Result<(), String> {
        let joined = Memberlist::join(self, MaybeResolvedAddress::Resolved(address)).await;
        joined.map(drop).map_err(|error| error.to_string())
    }

    async fn announce(&self, timeout: Duration) {
        if let Err(error) = self.update_node(timeout).await {
            // It was queued all the same, and goes out with whatever is sent next.
            tracing::debug!(%error, "the announcement has not reached everybody yet");
        }
    }
}
