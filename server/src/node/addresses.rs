//! Where the nodes are: the catalog's word, carried into the address book. A node that comes back has no catalog before
//! it has found the others, so it begins with what the log of the catalog's group says of its members.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::{consensus::CatalogView, peers::AddressBook, types::NodeId};

/// Keeps `book` as the catalog has it, and as the `members` of its group are known where it has nothing yet.
pub(super) async fn follow(
    members: BTreeMap<NodeId, String>,
    mut catalog: watch::Receiver<CatalogView>,
    book: watch::Sender<AddressBook>,
) {
    loop {
        let view = catalog.borrow_and_update().clone();
        let nodes = view.nodes().filter(|node| !node.raft_address.is_empty());
        let nodes = nodes.map(|node| (node.id, node.address.clone(), node.raft_address.clone()));
        let old = members.iter();
        let old = old.map(|(node, raft)| (*node, String::new(), raft.clone()));
        let new = AddressBook::new(old.chain(nodes));
        book.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
        if catalog.changed().await.is_err() {
            return;
        }
    }
}
