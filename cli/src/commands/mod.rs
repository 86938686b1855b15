//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod consume;
mod options;
pub(crate) mod produce;
pub(crate) mod topic;
