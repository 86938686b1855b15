//! The node's part in gossip: tells the others who it is, and looks for those that the catalog knows.

use std::{net::IpAddr, sync::Arc};

use kelda_proto::internal::v1::catalog_command::RegisterNode;
use tokio::{runtime::Handle, sync::watch};

use super::{StartError, identity::Identity};
use crate::{
    broker::Liveness,
    config::{Config, cluster_address},
    membership::{self, Announcement, Founding, Membership, Thread},
    peers::AddressBook,
    storage::Marker,
    telemetry::Metrics,
    types::NodeId,
};

/// Gossip of a node; nothing for a node that is alone.
#[derive(Clone, Default)]
pub(super) struct Gossip(Option<Parts>);

#[derive(Clone)]
struct Parts {
    membership: Arc<Thread>,
    announcement: Announcement,
}

impl Gossip {
    /// Starts it, if the node is not to be alone. `ip` is where others reach the node.
    pub(super) async fn start(
        config: &Config,
        ip: IpAddr,
        this: &RegisterNode,
        marker: Option<&Marker>,
        metrics: &Arc<Metrics>,
        publisher: &Handle,
    ) -> Result<Self, StartError> {
        if config.cluster_port == 0 {
            return Ok(Self(None));
        }
        let founding = match (marker, config.bootstrap_expect) {
            (Some(_), _) | (_, 0) => None,
            (None, expect) => Some(Founding {
                expect: u32::try_from(expect).unwrap_or(u32::MAX),
                start: start_number()?,
                consent: 0,
            }),
        };
        let announcement = Announcement {
            cluster_id: marker.map_or_else(String::new, |it| it.cluster_id.clone()),
            node_id: marker.map_or(NodeId(0), |it| it.node_id),
            client_address: this.address.clone(),
            raft_address: this.raft_address.clone(),
            rack: this.rack.clone(),
            version: this.version.clone(),
            founding,
        };
        let gossip = config.gossip(ip)?;
        let started = Thread::start(
            gossip,
            announcement.clone(),
            Arc::clone(metrics),
            publisher.clone(),
        );
        Ok(Self(Some(Parts {
            membership: Arc::new(started.await?),
            announcement,
        })))
    }

    /// The others, and what this node told them first; nothing for a node that is alone.
    pub(super) fn parts(&self) -> Option<(&dyn Membership, &Announcement)> {
        let parts = self.0.as_ref()?;
        Some((parts.membership.as_ref(), &parts.announcement))
    }

    /// Tells the others that this node is in the cluster.
    pub(super) fn joined(&self, identity: &Identity) -> Result<(), StartError> {
        let Some(parts) = &self.0 else { return Ok(()) };
        let told = parts.membership.announce(Announcement {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node,
            founding: None,
            ..parts.announcement.clone()
        });
        told.map_err(|error| StartError::Gossip(membership::StartError::Announcement(error)))
    }

    /// Who lives, as gossip has it.
    pub(super) fn liveness(&self) -> Liveness {
        self.0.as_ref().map(|parts| parts.membership.watch())
    }

    /// Looks for the nodes of `book`, as it changes: a node that comes back without seeds finds the others by it.
    pub(super) async fn follow(self, me: NodeId, mut book: watch::Receiver<AddressBook>) {
        let Some(parts) = self.0 else { return };
        loop {
            let now = book.borrow_and_update().clone();
            let others = now.raft_addresses().filter(|(node, _)| *node != me);
            let others = others.filter_map(|(_, address)| cluster_address(address));
            parts.membership.seek(others.collect());
            if book.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the others that this node leaves, and stops.
    pub(super) async fn leave(&self) {
        if let Some(parts) = &self.0 {
            parts.membership.leave().await;
        }
    }
}

/// Tells this start of the node from others. 0 stands for none.
fn start_number() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Catalog(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
