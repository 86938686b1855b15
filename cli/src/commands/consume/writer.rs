//! Standard output in big steps.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncWriteExt, Stdout};

use crate::failure::Failure;

/// Written as soon as so much has gathered.
const STEP_BYTES: usize = 128 * 1024;

/// Gathers output. Writing happens on another thread, so that a reader that stands still (a pager) holds up
/// nothing but the next write: the connection stays alive meanwhile.
pub(super) struct Writer {
    stdout: Stdout,
    buffer: Vec<u8>,
    closed: bool,
}

impl Writer {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            buffer: Vec::with_capacity(2 * STEP_BYTES),
            closed: false,
        }
    }

    /// Where to append.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether the reader has gone away.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes if enough has gathered.
    pub(super) async fn step(&mut self) -> Result<(), Failure> {
        if self.buffer.len() < STEP_BYTES {
            return Ok(());
        }
        let written = self.stdout.write_all(&self.buffer).await;
        self.buffer.clear();
        self.judge(written)
    }

    /// Writes everything and waits until it is written.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let mut written = self.stdout.write_all(&self.buffer).await;
        self.buffer.clear();
        if written.is_ok() {
            written = self.stdout.flush().await;
        }
        self.judge(written)
    }

    /// A reader that has gone away, like `head`, has what it wanted.
    fn judge(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::from(error).context("cannot write to standard output")),
            Ok(()) => Ok(()),
        }
    }
}
