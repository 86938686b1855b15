//! Consensus: one openraft group a partition, and group 0 for the catalog. No other room sees openraft.
//!
//! A [`Group`] takes commands and answers when they are committed and applied. `log_store.rs` and
//! `state_machine.rs` put openraft's traits on the storage room; `encode.rs` has the stored form of its types.
//! The Raft log is the partition log: a record is stored once, in the entry that carries it.

mod beat;
mod catalog;
mod changes;
mod encode;
mod founding;
mod group;
mod groups;
mod inbox;
mod leaving;
mod log_store;
mod machines;
mod members;
mod network;
#[cfg(feature = "simulation")]
mod observe;
mod pulse;
mod quiesce;
mod retention;
mod seat;
mod signs;
mod state_machine;
mod stir;
#[cfg(test)]
mod suite_tests;
mod takeover;
mod wire;

use std::fmt;

use bytes::Bytes;
use kelda_proto::internal::v1::{CatalogCommand, PartitionCommand};
use prost::Message;

pub use beat::Beat;
pub use catalog::CatalogGroup;
pub use changes::{ChangeError, Changed, answer};
pub use group::{Group, OpenError, PartitionGroup, Proposal, ProposeError};
pub use groups::Groups;
pub use leaving::Standing;
pub use machines::{CatalogView, PartitionView};
pub use members::{Led, Members};
#[cfg(feature = "simulation")]
pub use observe::{Observation, Observations, seeded};
pub use stir::Sleep;

use crate::{
    machine::{catalog as catalog_machine, partition},
    storage::Part,
    types::NodeId,
};

/// Where openraft's tasks run, and where its random numbers come from.
#[cfg(not(feature = "simulation"))]
type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "simulation")]
type Runtime = observe::Seeded;

openraft::declare_raft_types!(
    /// The types of every group.
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        NodeId = NodeId,
        Node = Member,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, state_machine::StateMachine>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Where a member of a group is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Address of its Raft port, host:port.
    pub address: String,
}

/// A command of a group's state machine: a small encoded header, and the bulk that it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Encoded `PartitionCommand` or `CatalogCommand`.
    pub header: Bytes,
    /// One part for each batch of an append, otherwise none.
    pub parts: Vec<Part>,
}

impl Command {
    /// A command of a partition. `parts` belong to the batches of an append, in the same order.
    pub fn partition(command: &PartitionCommand, parts: Vec<Part>) -> Self {
        Self {
            header: command.encode_to_vec().into(),
            parts,
        }
    }

    /// A command of the catalog.
    pub fn catalog(command: &CatalogCommand) -> Self {
        Self {
            header: command.encode_to_vec().into(),
            parts: Vec::new(),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.parts.iter().map(|part| part.bytes.len()).sum();
        write!(f, "command of {} parts, {bytes} bytes", self.parts.len())
    }
}

/// What applying an entry answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The entry was not a command.
    Nothing,
    /// One outcome for each batch.
    Partition(Vec<partition::Outcome>),
    /// The change of the catalog.
    Catalog(Result<catalog_machine::Change, catalog_machine::Rejection>),
    /// The command could not be decoded: it changed nothing, here and on every replica.
    Malformed,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
