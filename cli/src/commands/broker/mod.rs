//! `kelda serve` and `kelda dev`: a broker in this process.

mod dev;
mod flags;
mod run;
mod serve;

pub(crate) use self::{dev::Dev, serve::Serve};
