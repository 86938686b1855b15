//! Where the nodes are.

use std::{collections::BTreeMap, sync::Arc};

use crate::types::NodeId;

/// Where each node is, as the catalog and gossip have it. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBook(Arc<BTreeMap<NodeId, Addresses>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses {
    client: String,
    raft: String,
}

impl AddressBook {
    /// A book of nodes with their addresses, host:port, for clients and for nodes. Of two of one node the last counts; an address for
    /// clients may be empty.
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, String, String)>) -> Self {
        let nodes = nodes.into_iter();
        let entries = nodes.map(|(node, client, raft)| (node, Addresses { client, raft }));
        Self(Arc::new(entries.collect()))
    }

    /// Where other nodes reach a node.
    pub fn raft_address(&self, node: NodeId) -> Option<&str> {
        self.0.get(&node).map(|entry| entry.raft.as_str())
    }

    /// Where other nodes reach each of them.
    pub fn raft_addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.0
            .iter()
            .map(|(node, entry)| (*node, entry.raft.as_str()))
    }

    /// Where clients reach a node.
    pub fn client_address(&self, node: NodeId) -> Option<&str> {
        let entry = self.0.get(&node)?;
        (!entry.client.is_empty()).then_some(entry.client.as_str())
    }
}
