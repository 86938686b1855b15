//! The binary as its users meet it: commands against a broker that is the same binary.

mod bench;
mod consume;
mod crash;
mod dev;
mod errors;
mod kills;
mod produce;
mod support;
mod topics;
