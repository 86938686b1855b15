//! Looks at every member of every group whenever it says something new.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use kelda_server::{
    consensus::Group,
    storage::{Entry, EntryKind},
    types::LogIndex,
};

use crate::{
    invariants::{Identity, Member},
    node::Life,
    world::World,
};

/// Starts watching one member of a group until its node's life ends.
pub(crate) fn watch(world: &Arc<World>, life: &Arc<Life>, group: &Group) {
    tokio::spawn(look(Arc::clone(world), Arc::clone(life), group.clone()));
}

async fn look(world: Arc<World>, life: Arc<Life>, group: Group) {
    let mut observations = group.observations();
    let member = Member {
        group: group.id(),
        node: life.node,
        life: life.number,
    };
    loop {
        let now = observations.now();
        if !life.pulse.beats() {
            return;
        }
        world.trace.note(format_args!("{member} {now:?}"));
        let from = world.invariants().observe(member, &now);
        world.check_speakers();
        if let Some(last) = now.last.filter(|last| last.0 >= from) {
            let read = group
                .stored()
                .read(LogIndex(from), LogIndex(last.0 + 1), usize::MAX);
            match read.await {
                Ok(entries) => {
                    let entries: Vec<Identity> = entries.iter().map(identity).collect();
                    if life.pulse.beats() {
                        world.invariants().log(member, &now, &entries);
                    }
                }
                Err(error) if life.pulse.beats() && !life.disk.failed() => {
                    world.violation(format!("{member} can not read its log: {error}"));
                }
                Err(_) => return,
            }
        }
        if !observations.changed().await {
            return;
        }
    }
}

fn identity(entry: &Entry) -> Identity {
    // Its keys are fixed.
    let mut hasher = DefaultHasher::new();
    let kind = match entry.kind {
        EntryKind::Blank => 0_u8,
        EntryKind::Membership => 1,
        EntryKind::Command => 2,
    };
    kind.hash(&mut hasher);
    entry.header.hash(&mut hasher);
    for part in &entry.parts {
        part.bytes.hash(&mut hasher);
        part.crc32c.hash(&mut hasher);
    }
    Identity {
        id: entry.id,
        content: hasher.finish(),
    }
}
