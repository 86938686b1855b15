//! The catalog's group: the log of the cluster's topics and nodes, and the catalog that it makes.

use std::io;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use super::{
    CatalogView, Group, OpenError, encode,
    group::applied_state,
    groups::Home,
    machines::{CatalogMachine, Machine, decode_catalog},
};
use crate::{machine::catalog::Catalog, peers::Peers, storage::GroupStore, types::NodeId};

/// Entries of the catalog's log that are worth a purge. A snapshot holds the whole catalog, so not for each entry.
const PURGE_ENTRIES: u64 = 1024;

/// The catalog's group.
#[derive(Clone)]
pub struct CatalogGroup {
    pub(super) group: Group,
    pub(super) peers: Peers,
    view: watch::Receiver<CatalogView>,
}

impl CatalogGroup {
    pub(super) async fn open(
        home: &Home,
        store: GroupStore,
        founders: &[NodeId],
    ) -> Result<Self, OpenError> {
        let state = store.load().await?;
        // What was saved last: the applied state, or the snapshot of a purge behind it.
        let mut applied = applied_state(&state)?;
        let mut stored: Option<Bytes> = state.applied.as_ref().map(|_| applied.machine.clone());
        if let Some(snapshot) = &state.snapshot {
            let (meta, machine) = encode::decode_snapshot(snapshot)?;
            if meta.last_log_id > applied.applied {
                applied.applied = meta.last_log_id;
                applied.membership = meta.last_membership;
                stored = Some(machine);
            }
        }
        let catalog = stored
            .as_ref()
            .map(decode_catalog)
            .transpose()?
            .unwrap_or_else(Catalog::default);
        let machine = CatalogMachine::new(catalog);
        let view = machine.watch();
        let running = Machine::Catalog(machine);
        let group = Group::start(home, store, &state, running, &applied, founders).await?;
        let peers = home.peers.clone();
        Ok(Self { group, peers, view })
    }

    /// Deletes the log behind a snapshot of the catalog once it has grown. Returns whether it had.
    ///
    /// # Errors
    /// Says why the log is still there; the next call tries again.
    pub async fn compact(&self) -> Result<bool, io::Error> {
        let applied = self.group.raft.data_metrics().borrow_watched().last_applied;
        let Some(applied) = applied else {
            return Ok(false);
        };
        let first = self.group.purged().map_or(0, |purged| purged.0 + 1);
        if applied.index + 1 - first < PURGE_ENTRIES {
            return Ok(false);
        }
        self.group.purge(applied).await?;
        Ok(true)
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The catalog, now.
    pub fn view(&self) -> CatalogView {
        self.view.borrow().clone()
    }

    /// The catalog, as it changes.
    pub fn watch(&self) -> watch::Receiver<CatalogView> {
        self.view.clone()
    }
}

#[cfg(test)]
mod tests {
    use kelda_proto::internal::v1::{CatalogCommand, catalog_command as command};

    use super::*;
    use crate::{
        consensus::{Command, Groups},
        storage::{Config, Hooks, Storage},
    };

    async fn register(catalog: &CatalogGroup, id: u64, version: u64) {
        let register = command::RegisterNode {
            id,
            name: "node1".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
            version: version.to_string(),
            ..command::RegisterNode::default()
        };
        let command = CatalogCommand {
            time_ms: 0,
            command: Some(command::Command::RegisterNode(register)),
        };
        let proposal = catalog.group().propose(Command::catalog(&command)).await;
        proposal.expect("proposed").wait().await.expect("applied");
    }

    #[tokio::test]
    async fn the_log_is_purged_as_it_grows_and_the_catalog_comes_back_without_it() {
        let storage = Storage::open(Config::in_memory(), Hooks::default()).expect("opened");
        let groups = Groups::new(storage.clone(), Peers::alone());
        let mut catalog = groups.open_catalog(false).await.expect("opened");
        assert!(
            !catalog.compact().await.expect("looked"),
            "nothing to purge"
        );
        register(&catalog, 0, 0).await;
        for round in 1..=3 {
            for change in 0..PURGE_ENTRIES {
                register(&catalog, 1, round * PURGE_ENTRIES + change).await;
            }
            assert!(catalog.compact().await.expect("purged"), "round {round}");
            // Changes behind the purge that are not saved yet are applied again.
            register(&catalog, 1, round).await;
            let before = catalog.view();
            catalog.group().stop().await;
            catalog = groups.open_catalog(false).await.expect("opened again");
            assert_eq!(*catalog.view(), *before);
            assert!(catalog.group().purged().is_some());
        }
    }
}
