//! One file for each group of rules.

pub(super) mod losses;
pub(super) mod places;
pub(super) mod polls;
pub(super) mod reads;
pub(super) mod sends;
