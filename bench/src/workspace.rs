//! Where a benchmark runs: the binary, and directories on the disk that is measured.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Marks a file system that lives in memory, from Linux' `magic.h`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// The binary under test and the disk under it.
#[derive(Debug)]
pub(crate) struct Workspace {
    kelda: PathBuf,
    disk: PathBuf,
}

impl Workspace {
    /// Fails if there is no such binary, or if `disk` is memory.
    pub(crate) fn new(kelda: PathBuf, disk: PathBuf) -> Result<Self> {
        ensure!(
            kelda.is_file(),
            "there is no kelda binary to measure: build it with 'cargo build --release -p kelda-cli', or name it with --kelda"
        );
        fs::create_dir_all(&disk).context("cannot make the directory of --disk")?;
        let kind = rustix::fs::statfs(&disk)?.f_type;
        ensure!(
            kind != TMPFS_MAGIC,
            "--disk is memory (tmpfs): name a directory on a disk"
        );
        Ok(Self { kelda, disk })
    }

    /// The binary.
    pub(crate) fn kelda(&self) -> &Path {
        &self.kelda
    }

    /// A new directory on the disk, gone when it is dropped.
    pub(crate) fn directory(&self) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix("kelda-bench-")
            .tempdir_in(&self.disk)
            .context("cannot make a directory on --disk")
    }
}

/// Bytes that the files of a directory occupy on the disk, which is less than their length where they have holes.
pub(crate) fn occupied_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // `blocks` counts units of 512 bytes whatever the file system's block is.
        bytes += if metadata.is_dir() {
            occupied_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_not_counted_as_occupied() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("sub")).expect("a directory");
        fs::write(directory.path().join("sub/full"), vec![1; 65_536]).expect("a file");
        let sparse = fs::File::create(directory.path().join("sparse")).expect("a file");
        sparse.set_len(1 << 30).expect("a hole");
        let bytes = occupied_bytes(directory.path()).expect("readable");
        assert!((65_536..1 << 20).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_missing_binary_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let error = Workspace::new(directory.path().join("kelda"), directory.path().into())
            .expect_err("no binary");
        assert!(error.to_string().contains("cargo build"), "{error}");
    }
}
