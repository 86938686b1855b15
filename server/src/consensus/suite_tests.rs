//! openraft's own test suite of logs and state machines, on the real storage.

use std::sync::{Arc, Mutex};

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};

use super::{
    TypeConfig,
    encode::AppliedState,
    log_store::LogStore,
    machines::{CatalogMachine, Machine, PartitionMachine, RetentionPoint},
    state_machine::StateMachine,
};
use crate::{
    machine::{catalog::Catalog, partition::Partition},
    storage::{Config, Hooks, Storage},
    types::GroupId,
};

#[derive(Clone, Copy)]
enum Kind {
    Partition,
    Catalog,
}

/// Builds a new, empty store on a disk or in memory.
struct Builder {
    kind: Kind,
    on_disk: bool,
}

struct Guard {
    _directory: Option<tempfile::TempDir>,
    _storage: Storage,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = self
            .on_disk
            .then(|| tempfile::tempdir().expect("a directory"));
        let config = Config {
            data_dir: directory
                .as_ref()
                .map(|directory| directory.path().to_owned()),
            free_floor_bytes: 0,
            tail_bytes: 1 << 20,
            cache_bytes: 1 << 20,
        };
        let storage = Storage::open(config, Hooks::default()).expect("a new store opens");
        let store = storage.group(GroupId(1));
        let state = store.load().await.expect("an empty store loads");
        let snapshot = Arc::new(Mutex::new(None));
        let machine = match self.kind {
            Kind::Partition => Machine::Partition(PartitionMachine::new(
                Partition::new(),
                RetentionPoint::default(),
            )),
            Kind::Catalog => Machine::Catalog(CatalogMachine::new(Catalog::default())),
        };
        let log =
            LogStore::new(store.clone(), &state, Arc::clone(&snapshot)).expect("nothing to decode");
        let machine = StateMachine::new(store, machine, &AppliedState::default(), snapshot);
        Ok((
            Guard {
                _directory: directory,
                _storage: storage,
            },
            log,
            machine,
        ))
    }
}

async fn run(builder: Builder) {
    Suite::test_all(builder).await.expect("the suite passes");
}

#[tokio::test]
async fn a_partition_on_disk_passes_the_suite() {
    run(Builder {
        kind: Kind::Partition,
        on_disk: true,
    })
    .await;
}

#[tokio::test]
async fn a_partition_in_memory_passes_the_suite() {
    run(Builder {
        kind: Kind::Partition,
        on_disk: false,
    })
    .await;
}

#[tokio::test]
async fn the_catalog_passes_the_suite() {
    run(Builder {
        kind: Kind::Catalog,
        on_disk: false,
    })
    .await;
}
