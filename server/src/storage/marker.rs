//! The marker file: which node of which cluster a data directory belongs to, readable by people.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, OpenError};
use crate::types::NodeId;

/// Name of the marker in the data directory.
pub(super) const MARKER_FILE: &str = "kelda.marker";
/// Name of the marker while it is written.
pub(super) const MARKER_TEMPORARY: &str = "kelda.marker.new";

/// What the marker says. What a difference means is for the node to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// See [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The cluster, given when it was founded.
    pub cluster_id: String,
    /// The node's number in it.
    pub node_id: NodeId,
    /// The node's name (`--node-id`).
    pub node_name: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format_version: u32,
    cluster_id: String,
    node_id: u64,
    node_name: String,
}

/// Only what tells whether the rest can be understood.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// Reads the marker of a data directory; `None` if there is none. Blocks.
pub fn read_marker(dir: &Path) -> Result<Option<Marker>, OpenError> {
    let path = dir.join(MARKER_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let corrupt = |error: serde_json::Error| OpenError::Corrupt {
        path: path.clone(),
        detail: error.to_string(),
    };
    let version: Version = serde_json::from_slice(&text).map_err(corrupt)?;
    check_format(version.format_version, &path)?;
    let stored: Stored = serde_json::from_slice(&text).map_err(corrupt)?;
    Ok(Some(Marker {
        format_version: stored.format_version,
        cluster_id: stored.cluster_id,
        node_id: NodeId(stored.node_id),
        node_name: stored.node_name,
    }))
}

/// Writes the marker, all of it or nothing, durably. Blocks.
pub fn write_marker(dir: &Path, marker: &Marker) -> Result<(), OpenError> {
    let stored = Stored {
        format_version: marker.format_version,
        cluster_id: marker.cluster_id.clone(),
        node_id: marker.node_id.0,
        node_name: marker.node_name.clone(),
    };
    let path = dir.join(MARKER_FILE);
    let write = || {
        let mut text = serde_json::to_vec_pretty(&stored)?;
        text.push(b'\n');
        write_whole(dir, MARKER_FILE, MARKER_TEMPORARY, &text)
    };
    write().map_err(|source| OpenError::Io { path, source })
}

/// Writes a file of the directory, all of it or nothing, durably.
pub(super) fn write_whole(
    dir: &Path,
    name: &str,
    temporary: &str,
    content: &[u8],
) -> io::Result<()> {
    let temporary = dir.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Checks that this program knows the format of a file.
pub(super) fn check_format(found: u32, path: &Path) -> Result<(), OpenError> {
    let path = path.to_owned();
    let supported = FORMAT_VERSION;
    match found {
        FORMAT_VERSION => Ok(()),
        // There never was one.
        0 => Err(OpenError::Corrupt {
            path,
            detail: "its format version is 0".to_owned(),
        }),
        1..FORMAT_VERSION => Err(OpenError::OlderFormat {
            path,
            found,
            supported,
        }),
        _ => Err(OpenError::NewerFormat {
            path,
            found,
            supported,
        }),
    }
}

/// Deletes a file, if there is one.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(OpenError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            format_version: FORMAT_VERSION,
            cluster_id: "c-42".to_owned(),
            node_id: NodeId(3),
            node_name: "node3".to_owned(),
        }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_marker(dir.path()).unwrap(), None);
        write_marker(dir.path(), &marker()).unwrap();
        write_marker(dir.path(), &marker()).unwrap();
        assert_eq!(read_marker(dir.path()).unwrap(), Some(marker()));
        assert!(!dir.path().join(MARKER_TEMPORARY).exists());
    }

    #[test]
    fn a_marker_of_another_format_is_refused_whatever_else_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |version: u32| {
            let text = format!(r#"{{"format_version": {version}, "shape": "unknown"}}"#);
            fs::write(dir.path().join(MARKER_FILE), text).unwrap();
            read_marker(dir.path()).unwrap_err()
        };
        let newer = refusal(FORMAT_VERSION + 1);
        assert!(matches!(newer, OpenError::NewerFormat { found: 3, .. }));
        let older = refusal(1);
        assert!(matches!(older, OpenError::OlderFormat { found: 1, .. }));
        assert!(older.to_string().contains("--data-dir"), "{older}");
        assert!(matches!(refusal(0), OpenError::Corrupt { .. }));
    }

    #[test]
    fn a_damaged_marker_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER_FILE), "{").unwrap();
        let error = read_marker(dir.path()).unwrap_err();
        assert!(matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with(MARKER_FILE)));
    }
}
