//! Reads the input on a thread of its own, ahead of what is sent.

use std::{fs::File, io, path::Path, thread};

use kelda_proto::v1::Record;
use tokio::sync::mpsc;

use super::{
    lines::{self, Lines},
    record::Template,
};
use crate::failure::Failure;

/// Blocks of records that may wait to be sent; each is of one read.
const BLOCKS: usize = 4;

/// Records of the input, in blocks in the order of the lines.
pub(super) type Blocks = mpsc::Receiver<Result<Vec<Record>, lines::Error>>;

/// Input that is open.
pub(super) struct Input {
    source: Box<dyn io::Read + Send>,
    /// Bytes that will come, where that is known.
    pub(super) bytes: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input if there is none.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                source: Box::new(io::stdin()),
                bytes: None,
            });
        };
        let open = |path| File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = open(path).map_err(|error| {
            Failure::from(error).context(format!("cannot open {}", path.display()))
        })?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self {
            source: Box::new(file),
            bytes,
        })
    }

    /// Starts to read. The thread ends with the input, on an error, or when nobody takes its blocks; it may stay
    /// behind waiting for input, which does not keep the process.
    pub(super) fn read(self, template: Template) -> Blocks {
        let (sender, blocks) = mpsc::channel(BLOCKS);
        thread::spawn(move || {
            let mut lines = Lines::new(self.source);
            loop {
                let mut block = Vec::new();
                let read = lines.read(&mut block);
                let ends = block.is_empty();
                let records: Vec<Record> = block
                    .into_iter()
                    .map(|line| template.record(line))
                    .collect();
                if !ends && sender.blocking_send(Ok(records)).is_err() {
                    return;
                }
                match read {
                    Err(error) => {
                        // If nobody listens any more, nobody misses the error.
                        let _ = sender.blocking_send(Err(error));
                        return;
                    }
                    Ok(()) if ends => return,
                    Ok(()) => {}
                }
            }
        });
        blocks
    }
}
