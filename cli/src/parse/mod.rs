//! Reads what people type: sizes, durations, times, places in a log, headers and output formats.
//!
//! Every parser takes text and returns a value or a message for the usage error; none of them does I/O.

pub(crate) mod duration;
pub(crate) mod format;
pub(crate) mod header;
pub(crate) mod size;
pub(crate) mod start;
pub(crate) mod time;
