//! The raw disk: append and fdatasync, the least that a durable log can do.

use std::{
    fs::{self, File},
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::workspace::Workspace;

/// What the raw disk did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    /// Bytes a second.
    pub(crate) bytes_per_second: f64,
    /// Half of the writes took at most this, in milliseconds.
    pub(crate) p50_ms: f64,
}

/// How long to write, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// This long.
    pub(crate) time: Duration,
    /// This many writes.
    pub(crate) writes: u32,
}

/// Appends blocks of `bytes` to a new file that grows, each followed by fdatasync, one at a time.
pub(crate) fn append_and_sync(workspace: &Workspace, bytes: usize, until: Until) -> Result<Raw> {
    let directory = workspace.directory()?;
    let path = directory.path().join("raw");
    let block = noise(bytes);
    let mut file = File::create(&path)?;
    // The first write of a file also makes its metadata: it is not counted.
    file.write_all(&block)?;
    file.sync_all()?;

    let mut times_ms = Vec::new();
    let started = Instant::now();
    while started.elapsed() < until.time && times_ms.len() < until.writes as usize {
        let write = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times_ms.push(write.elapsed().as_secs_f64() * 1e3);
    }
    let seconds = started.elapsed().as_secs_f64();
    let written = (bytes * times_ms.len()) as f64;
    drop(file);
    fs::remove_file(&path)?;
    times_ms.sort_by(f64::total_cmp);
    Ok(Raw {
        bytes_per_second: written / seconds,
        p50_ms: times_ms[times_ms.len() / 2],
    })
}

/// Bytes that no layer below can compress or leave out (xorshift64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(bytes + 8);
    while block.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block.truncate(bytes);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_length_asked_for_and_is_not_monotonous() {
        let block = noise(1_001);
        assert_eq!(block.len(), 1_001);
        assert_ne!(block[..100], block[100..200]);
    }
}
