//! Compares what the replicas of each group have on their disks, once their nodes have stopped.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use kelda_proto::{batch::crc32c, internal::v1::AppliedState};
use kelda_server::{
    storage::{Config, Entry, GroupStore, Hooks, Storage},
    types::LogIndex,
};
use prost::Message as _;

use crate::support::checker::dump::{Dump, divergences};

/// Bytes of a step of reading.
const STEP_BYTES: usize = 4 << 20;

/// How many entries are held by several replicas that know them to be committed, and where these differ.
pub(super) async fn compare(directories: &[PathBuf]) -> (usize, Vec<String>) {
    let mut dumps = Vec::new();
    for directory in directories {
        dumps.extend(node(directory).await);
    }
    let mut holders: HashMap<(i32, i64), usize> = HashMap::new();
    for dump in &dumps {
        for (index, _) in dump.entries.range(..dump.commit) {
            *holders.entry((dump.partition, *index)).or_default() += 1;
        }
    }
    let compared = holders.values().filter(|count| **count > 1).count();
    let found = divergences(&dumps)
        .iter()
        .map(ToString::to_string)
        .collect();
    (compared, found)
}

/// The logs of a node that has stopped.
async fn node(directory: &Path) -> Vec<Dump> {
    let config = Config {
        data_dir: Some(directory.to_owned()),
        free_floor_bytes: 0,
        tail_bytes: 0,
        cache_bytes: 16 << 20,
    };
    let storage = Storage::open(config, Hooks::default()).expect("the node has stopped");
    let name = directory.file_name().unwrap_or_default();
    let mut dumps = Vec::new();
    for group in storage.groups().expect("it is open") {
        let number = i32::try_from(group.0).expect("few groups");
        let replica = name.to_string_lossy().into_owned();
        dumps.push(log(&storage.group(group), replica, number).await);
    }
    storage.close().await.expect("it closes");
    dumps
}

async fn log(store: &GroupStore, replica: String, partition: i32) -> Dump {
    let state = store.load().await.expect("readable");
    let applied = state.applied.map(AppliedState::decode);
    let applied = applied.and_then(|applied| applied.expect("as it was stored").applied);
    let behind = |index: u64| LogIndex(index + 1);
    let start = state.purged.map_or(LogIndex(0), |id| behind(id.index.0));
    let end = state.last.map_or(start, |id| behind(id.index.0));
    let mut entries = BTreeMap::new();
    let mut next = start;
    while next < end {
        let read = store.read(next, end, STEP_BYTES).await.expect("readable");
        for entry in read {
            next = behind(entry.id.index.0);
            entries.insert(signed(entry.id.index.0), text(&entry).into_bytes());
        }
    }
    Dump {
        replica,
        partition,
        start: signed(start.0),
        commit: applied.map_or(0, |id| signed(id.index + 1)),
        entries,
    }
}

/// What makes an entry this one and no other.
fn text(entry: &Entry) -> String {
    let parts: Vec<u32> = entry.parts.iter().map(|it| crc32c(&it.bytes)).collect();
    let (id, kind, header) = (entry.id, entry.kind, crc32c(&entry.header));
    format!("{id:?} {kind:?} {header:08x} {parts:08x?}")
}

fn signed(index: u64) -> i64 {
    i64::try_from(index).expect("a short log")
}
