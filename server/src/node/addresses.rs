//! Where the nodes are, carried into the address book. The catalog has the last word, but for a node that came back
//! elsewhere it comes too late: nobody can commit a change before the members have found each other. So what a living
//! node tells of itself by gossip goes before it. Who is a member gossip does not say: a node is looked for only if the
//! catalog knows it, or the log of the catalog's group, which is there before the catalog is.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::{
    broker::Liveness, consensus::CatalogView, machine::catalog::Catalog, membership::View,
    peers::AddressBook, types::NodeId,
};

/// What says where the nodes are.
pub(super) struct Sources {
    /// The cluster.
    pub(super) cluster_id: String,
    /// Members of the catalog's group, as its log has them.
    pub(super) members: BTreeMap<NodeId, String>,
    pub(super) catalog: watch::Receiver<CatalogView>,
    pub(super) gossip: Liveness,
}

/// Keeps `book` as the sources have it.
pub(super) async fn follow(mut sources: Sources, book: watch::Sender<AddressBook>) {
    loop {
        let new = sources.book();
        book.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
        if !sources.changed().await {
            return;
        }
    }
}

impl Sources {
    fn book(&mut self) -> AddressBook {
        let catalog = self.catalog.borrow_and_update().clone();
        let heard = self
            .gossip
            .as_mut()
            .map(|it| it.borrow_and_update().clone());
        let heard: Arc<View> = heard.unwrap_or_default();
        merge(&self.cluster_id, &self.members, &catalog, &heard)
    }

    /// Waits for news. Answers whether there can be any more.
    async fn changed(&mut self) -> bool {
        let Some(gossip) = &mut self.gossip else {
            return self.catalog.changed().await.is_ok();
        };
        tokio::select! {
            changed = self.catalog.changed() => changed.is_ok(),
            changed = gossip.changed() => changed.is_ok(),
        }
    }
}

fn merge(
    cluster_id: &str,
    members: &BTreeMap<NodeId, String>,
    catalog: &Catalog,
    heard: &View,
) -> AddressBook {
    let logged = members.iter();
    let logged = logged.map(|(node, raft)| (*node, String::new(), raft.clone()));
    let known = catalog.nodes().filter(|node| !node.raft_address.is_empty());
    let known = known.map(|node| (node.id, node.address.clone(), node.raft_address.clone()));
    let is_member = |id: NodeId, name: &str| match catalog.node(id) {
        Some(node) => node.name == name,
        None => members.contains_key(&id),
    };
    let told = heard.alive().filter(|node| {
        let it = &node.announcement;
        it.cluster_id == cluster_id
            && !it.raft_address.is_empty()
            && is_member(it.node_id, &node.name)
    });
    let told = told.map(|node| {
        let it = &node.announcement;
        (
            it.node_id,
            it.client_address.clone(),
            it.raft_address.clone(),
        )
    });
    AddressBook::new(logged.chain(known).chain(told))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use kelda_proto::internal::v1::{
        CatalogCommand,
        catalog_command::{Command, RegisterNode},
    };

    use super::*;
    use crate::membership::{Announcement, Liveness, Node};

    fn catalog() -> Catalog {
        let mut catalog = Catalog::new();
        let command = CatalogCommand {
            time_ms: 0,
            command: Some(Command::RegisterNode(RegisterNode {
                name: "node1".to_owned(),
                address: "client of catalog".to_owned(),
                raft_address: "catalog".to_owned(),
                version: "1".to_owned(),
                ..RegisterNode::default()
            })),
        };
        catalog.apply(&command).expect("registered");
        catalog
    }

    fn heard(name: &str, node: u64, cluster_id: &str, liveness: Liveness) -> View {
        let node = Node {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 7946)),
            announcement: Announcement {
                cluster_id: cluster_id.to_owned(),
                node_id: NodeId(node),
                client_address: "client of gossip".to_owned(),
                raft_address: "gossip".to_owned(),
                ..Announcement::default()
            },
            liveness,
            conflict: None,
        };
        View {
            nodes: [(name.to_owned(), node)].into(),
        }
    }

    fn address(catalog: &Catalog, heard: &View, node: u64) -> Option<String> {
        let members =
            BTreeMap::from([(NodeId(1), "log".to_owned()), (NodeId(2), "log".to_owned())]);
        let book = merge("ours", &members, catalog, heard);
        book.raft_address(NodeId(node)).map(str::to_owned)
    }

    #[test]
    fn what_a_living_member_tells_counts_most_and_then_the_catalog() {
        let (none, nobody) = (Catalog::new(), View::default());
        let alive = |name, node, cluster| heard(name, node, cluster, Liveness::Alive);
        for (what, catalog, heard, node, expected) in [
            ("only a log", &none, &nobody, 1, Some("log")),
            ("a catalog", &catalog(), &nobody, 1, Some("catalog")),
            (
                "gossip",
                &catalog(),
                &alive("node1", 1, "ours"),
                1,
                Some("gossip"),
            ),
            (
                "before the catalog",
                &none,
                &alive("node1", 1, "ours"),
                1,
                Some("gossip"),
            ),
            (
                "another name",
                &catalog(),
                &alive("other", 1, "ours"),
                1,
                Some("catalog"),
            ),
            (
                "another cluster",
                &none,
                &alive("node1", 1, "theirs"),
                1,
                Some("log"),
            ),
            ("no member", &catalog(), &alive("node3", 3, "ours"), 3, None),
            (
                "the dead",
                &none,
                &heard("node1", 1, "ours", Liveness::Dead),
                1,
                Some("log"),
            ),
        ] {
            assert_eq!(address(catalog, heard, node).as_deref(), expected, "{what}");
        }
    }
}
