//! Reading a group from a view of the tables. Everything that comes out was verified; what is missing or wrong gives
//! an error, never a shorter or another answer.

mod log;
mod offsets;
mod state;

pub(super) use log::{entries, head, heads};
pub(super) use offsets::{batches, batches_of, find, first_base_at};
pub(super) use state::{Bounds, bounds, groups, state, state_digest};

use super::Error;
use crate::types::{GroupId, LogIndex};

pub(super) fn corrupt(group: GroupId, index: LogIndex) -> Error {
    Error::Corrupt { group, index }
}

pub(super) fn corrupt_row(group: GroupId, row: &'static str) -> Error {
    Error::CorruptRow { group, row }
}
