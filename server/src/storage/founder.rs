//! The founder that a node without a cluster has agreed to, by name.
//!
//! It is written before the founder is told, and deleted once there is a marker. A node that starts again has agreed all
//! the same: two founders that both had its word would found two clusters.

use std::fs;
use std::io;
use std::path::Path;

use super::OpenError;
use super::marker::{remove, write_whole};

/// Name of the file in the data directory.
pub(super) const FOUNDER_FILE: &str = "kelda.founder";
/// Its name while it is written.
pub(super) const FOUNDER_TEMPORARY: &str = "kelda.founder.new";

/// Reads the name of the founder that the node of a data directory has agreed to; `None`: to none yet. Blocks.
pub fn read_founder(dir: &Path) -> Result<Option<String>, OpenError> {
    let path = dir.join(FOUNDER_FILE);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Err(OpenError::Corrupt {
            path,
            detail:
                "it names no node: delete the data directory, if the node was never in a cluster"
                    .to_owned(),
        }),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Writes the name of the founder that the node agrees to, all of it or nothing, durably. Blocks.
pub fn write_founder(dir: &Path, name: &str) -> Result<(), OpenError> {
    let text = format!("{name}\n");
    let written = write_whole(dir, FOUNDER_FILE, FOUNDER_TEMPORARY, text.as_bytes());
    written.map_err(|source| OpenError::Io {
        path: dir.join(FOUNDER_FILE),
        source,
    })
}

/// Deletes it, if there is one. Blocks.
pub fn delete_founder(dir: &Path) -> Result<(), OpenError> {
    remove(&dir.join(FOUNDER_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_founder_is_read_as_it_was_written_until_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_founder(dir.path()).unwrap(), None);
        write_founder(dir.path(), "node1").unwrap();
        assert_eq!(read_founder(dir.path()).unwrap().as_deref(), Some("node1"));
        assert!(!dir.path().join(FOUNDER_TEMPORARY).exists());
        for _ in 0..2 {
            delete_founder(dir.path()).unwrap();
        }
        assert_eq!(read_founder(dir.path()).unwrap(), None);
        fs::write(dir.path().join(FOUNDER_FILE), "\n").unwrap();
        let error = read_founder(dir.path()).unwrap_err();
        assert!(error.to_string().contains(FOUNDER_FILE), "{error}");
    }
}
