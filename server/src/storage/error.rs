//! What can go wrong in storage, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{GroupId, LogIndex};

/// Why an operation on an open storage failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// [`Storage::close`](super::Storage::close) was called.
    #[error("storage is closed")]
    Closed,
    /// The group was deleted through this handle.
    #[error("group {0} is deleted")]
    Deleted(GroupId),
    /// A write, commit or sync failed, now or earlier. Final: nothing is acknowledged any more.
    #[error("writing to storage failed, restart on a healthy disk: {0}")]
    Failed(Arc<io::Error>),
    /// Reading from the disk failed.
    #[error("reading from storage failed: {0}")]
    Read(Arc<io::Error>),
    /// An entry does not match its checksum, or a piece of it is missing.
    #[error("entry {index} of group {group} is corrupt: restore the data directory from a copy")]
    Corrupt {
        /// The group.
        group: GroupId,
        /// The entry.
        index: LogIndex,
    },
    /// A row beside the log does not match its checksum.
    #[error("{row} of group {group} is corrupt: restore the data directory from a copy")]
    CorruptRow {
        /// The group.
        group: GroupId,
        /// Which kind of row.
        row: &'static str,
    },
    /// The database itself is damaged.
    #[error("the database is damaged, restore the node from other replicas: {0}")]
    Damaged(Arc<str>),
    /// An append of an entry that cannot be stored: a mistake of the caller.
    #[error("an entry for group {group} is longer than {bytes_max} bytes")]
    EntryTooLarge {
        /// The group.
        group: GroupId,
        /// The longest that can be stored, encoded.
        bytes_max: usize,
    },
    /// An append that does not continue the log: a mistake of the caller.
    #[error("append to group {group} starts at {got}, but its log continues at {expected}")]
    NotContiguous {
        /// The group.
        group: GroupId,
        /// Where the log continues.
        expected: LogIndex,
        /// Where the append starts.
        got: LogIndex,
    },
}

impl Error {
    /// Whether stored bytes are wrong, rather than the disk or the caller.
    pub fn is_corrupt(&self) -> bool {
        matches!(
            self,
            Error::Corrupt { .. } | Error::CorruptRow { .. } | Error::Damaged(_)
        )
    }

    /// What everybody is told after this error stopped the writer.
    pub(super) fn into_failed(self) -> Error {
        match self {
            Error::Read(source) => Error::Failed(source),
            failed @ (Error::Failed(_) | Error::Closed) => failed,
            other => Error::Failed(Arc::new(io::Error::other(other.to_string()))),
        }
    }

    pub(super) fn damaged(detail: &(impl ToString + ?Sized)) -> Error {
        Error::Damaged(detail.to_string().into())
    }
}

/// Why a storage could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on this directory.
    #[error("{} is in use by another process: stop it, or choose another --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} holds files that are not Kelda's: choose an empty --data-dir", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no database of Kelda.
    #[error("{} is not a Kelda database: choose another --data-dir", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file was Kelda's and is damaged.
    #[error(
        "{} is damaged ({detail}): restore the data directory from a copy",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a version of Kelda before the first release.
    #[error(
        "{} has format version {found} from before the first release, this program reads {supported}: choose an empty --data-dir, or read it with the kelda that wrote it",
        path.display()
    )]
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The oldest version that this program knows.
        supported: u32,
    },
    /// Written by a later version of Kelda.
    #[error(
        "{} has format version {found}, this program reads up to {supported}: use a newer kelda",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        supported: u32,
    },
    /// The operating system refused.
    #[error("cannot open {}, as --data-dir says: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
