//! The RPC room over real connections, with a node in memory behind it.
#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod consume;
mod errors;
mod pages;
mod produce_stream;
mod support;
