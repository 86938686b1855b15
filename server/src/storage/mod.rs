//! Storage: the logs and states of all groups of a node, in one redb database owned by one writer thread.
//!
//! Everything that writes goes through one bounded, ordered queue; the thread takes what is waiting, makes one
//! transaction, commits it (fsync), then fires every callback. Rooms above never see redb. Start reading at
//! [`Storage`], then `writer.rs`. The byte layout is drawn in `docs/storage-format.md`.

mod backend;
pub mod codec;
mod error;
mod founder;
mod group;
mod keys;
mod layout;
mod marker;
mod open;
mod queue;
mod reader;
mod rows;
#[cfg(feature = "simulation")]
mod steps;
mod store;
mod sweep;
mod tail;
mod token;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{Error, OpenError};
pub use founder::{delete_founder, read_founder, write_founder};
pub use group::GroupStore;
pub use marker::{Marker, read_marker, write_marker};
#[cfg(feature = "simulation")]
pub use steps::{Mistake, Steps};
pub use store::Storage;
pub use token::{delete_token, read_token, write_token};
pub use types::{
    Applied, BatchRead, CommitReport, Config, Done, Entry, EntryHead, EntryId, EntryKind,
    GroupState, Hooks, Part, Search, Status,
};

/// Version of everything on disk: the marker, the tables and the entries. There is one so far that was released; version
/// 1 was before it, without the row that tells how many groups there are.
pub const FORMAT_VERSION: u32 = 2;
