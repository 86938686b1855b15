//! What memberlist calls. It calls with its list of members locked, from the task that reads its packets: nothing
//! here waits.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use memberlist::{
    delegate::{
        AliveDelegate, ConflictDelegate, EventDelegate, MergeDelegate, NodeDelegate, PingDelegate,
    },
    proto::{Meta, NodeState, State},
};

use super::{
    gate::{Gate, Heard, Refusal},
    intake::{Event, Kind, Queue},
    peers::Id,
};

type Peer = NodeState<Id, SocketAddr>;

/// See the module.
#[derive(Debug)]
pub(super) struct Delegate {
    pub(super) gate: Arc<Gate>,
    pub(super) queue: Queue,
}

fn heard(peer: &Peer) -> Heard<'_> {
    Heard {
        name: peer.id().as_str(),
        address: *peer.address(),
        metadata: peer.meta().as_bytes(),
    }
}

impl Delegate {
    fn queue(&self, kind: Kind, peer: &Peer) {
        self.queue.push(Event {
            kind,
            name: peer.id().as_str().to_owned(),
            address: *peer.address(),
            metadata: Bytes::copy_from_slice(peer.meta().as_bytes()),
        });
    }
}

impl NodeDelegate for Delegate {
    async fn node_meta(&self, _limit: usize) -> Meta {
        // It is never longer than memberlist allows: `Announcement::encode` sees to that.
        Meta::try_from(self.gate.own()).unwrap_or_default()
    }
}

impl AliveDelegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;
    type Error = Refusal;

    async fn notify_alive(&self, peer: Arc<Peer>) -> Result<(), Refusal> {
        self.gate.admit(heard(&peer)).map(drop)
    }
}

impl MergeDelegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;
    type Error = Refusal;

    async fn notify_merge(&self, peers: Arc<[Peer]>) -> Result<(), Refusal> {
        // What is left of the dead says nothing about who keeps the list.
        let live = peers
            .iter()
            .filter(|peer| matches!(peer.state(), State::Alive | State::Suspect));
        for peer in live {
            self.gate.inspect(heard(peer))?;
        }
        Ok(())
    }
}

impl EventDelegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;

    async fn notify_join(&self, node: Arc<Peer>) {
        self.queue(Kind::Join, &node);
    }

    async fn notify_leave(&self, node: Arc<Peer>) {
        self.queue(Kind::Leave, &node);
    }

    async fn notify_update(&self, node: Arc<Peer>) {
        self.queue(Kind::Update, &node);
    }
}

impl ConflictDelegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;

    async fn notify_conflict(&self, _existing: Arc<Peer>, other: Arc<Peer>) {
        self.queue(Kind::Conflict, &other);
    }
}

impl PingDelegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;

    async fn ack_payload(&self) -> Bytes {
        Bytes::new()
    }

    async fn notify_ping_complete(
        &self,
        _node: Arc<Peer>,
        _round_trip: std::time::Duration,
        _payload: Bytes,
    ) {
    }
}

impl memberlist::delegate::Delegate for Delegate {
    type Id = Id;
    type Address = SocketAddr;
}
