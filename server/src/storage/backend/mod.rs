//! The seam under the storage room: ordered tables of bytes, atomic durable transactions, snapshot reads.
//!
//! [`redb`] is the one that serves; [`memory`] shows in tests that the rooms above lean on nothing else.

mod census;
#[cfg(test)]
pub(super) mod memory;
mod occupied;
pub(super) mod redb;

use std::ops::ControlFlow;

use super::Error;
use super::keys::Table;

/// Direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// From the lowest key.
    Ascending,
    /// From the highest key.
    Descending,
}

/// Takes rows one by one until it breaks.
pub(super) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// A consistent view of all tables.
pub(super) trait Read {
    /// Calls `visit` with the value under `key`, if there is one, and says whether there is.
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Error>;

    /// Calls `visit` with every row whose key is in `[from, to)`, until it breaks.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error>;
}

/// A transaction: reads see what it wrote.
pub(super) trait Write: Read {
    /// Sets the row under `key` to `pieces`, back to back.
    fn put(&mut self, table: Table, key: &[u8], pieces: &[&[u8]]) -> Result<(), Error>;

    /// Deletes the row under `key`, if there is one.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Error>;

    /// Deletes every row whose key is in `[from, to)`.
    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Error>;
}

/// Keeps the tables. Every method blocks.
pub(super) trait Backend: Send + Sync {
    /// Runs `work` on a snapshot. Any number at once, beside a writer.
    fn read(&self, work: &mut dyn FnMut(&dyn Read) -> Result<(), Error>) -> Result<(), Error>;

    /// Runs `work` in a transaction and makes it durable. If `work` or the commit fails, nothing may be assumed about
    /// what is on disk, and no later write succeeds. Called by one thread.
    fn write(&self, work: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>)
    -> Result<(), Error>;

    /// Estimate of the bytes of its file that the rows take; the rest of the file is free for new ones. Never waits.
    fn occupied_bytes(&self) -> u64;

    /// Waits for the reads under way and closes; later calls give [`Error::Closed`].
    fn close(&self) -> Result<(), Error>;
}

/// The value under `key` as owned bytes.
pub(super) fn get(
    view: &(impl Read + ?Sized),
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let mut found = None;
    view.get(table, key, &mut |value| found = Some(value.to_vec()))?;
    Ok(found)
}
