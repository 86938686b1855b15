//! Which rows there have to be beside the logs: their number, and the combined checksum of their keys.
//!
//! redb does not verify its pages when it reads them. A flipped bit in a key, or in the tree above it, can hide the rows
//! of a group, which then looks as if it had never been there: its log would begin anew. So each transaction keeps this
//! census, and opening compares it with what is found.

use std::ops::ControlFlow;

use super::{Order, Read, get};
use crate::storage::Error;
use crate::storage::keys::{self, Table};
use crate::storage::rows;
use crate::types::GroupId;

/// Tables that are counted: those that tell which groups there are and what is to be deleted.
const COUNTED: [Table; 2] = [Table::Meta, Table::Pending];

/// Number and combined checksum of the rows of the counted tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    rows: u64,
    combined: u32,
}

impl Census {
    /// Counts a row that was put.
    pub(super) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if let Some(mark) = mark(table, key, value) {
            self.rows = self.rows.wrapping_add(1);
            self.combined ^= mark;
        }
    }

    /// Counts a row that was deleted or replaced.
    pub(super) fn remove(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if let Some(mark) = mark(table, key, value) {
            self.rows = self.rows.wrapping_sub(1);
            self.combined ^= mark;
        }
    }

    /// Counts what is there.
    ///
    /// # Errors
    /// If a row is not where its key says.
    pub(super) fn take(view: &dyn Read) -> Result<Self, Error> {
        let mut census = Self::default();
        for table in COUNTED {
            let mut found = Vec::new();
            let high = keys::group_end(GroupId(u64::MAX));
            view.scan(table, &[], &high, Order::Ascending, &mut |key, value| {
                census.add(table, key, value);
                found.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
            for key in found {
                if get(view, table, &key)?.is_none() {
                    return Err(Error::damaged("a row is not where its key says"));
                }
            }
        }
        Ok(census)
    }

    /// Checks that what is there is what has to be there, as `row` has it. Every transaction writes the row, the first
    /// one too, so a database without it has lost it.
    pub(super) fn check(self, row: Option<&[u8]>) -> Result<(), Error> {
        match row {
            Some(row) if *row == self.encode() => Ok(()),
            Some(_) => Err(Error::damaged(
                "rows that say which groups there are have gone or changed",
            )),
            None => Err(Error::damaged(
                "the row that says how many groups there are has gone",
            )),
        }
    }

    pub(super) fn encode(self) -> [u8; 12] {
        rows::StateDigest {
            rows: self.rows,
            combined: self.combined,
        }
        .encode()
    }
}

/// What a row counts for. Values of [`Table::Meta`] have checksums of their own, and change with every commit.
fn mark(table: Table, key: &[u8], value: &[u8]) -> Option<u32> {
    let value = match table {
        Table::Meta => &[],
        Table::Pending => value,
        _ => return None,
    };
    Some(u32::from_be_bytes(rows::seal(table, key, value)))
}
