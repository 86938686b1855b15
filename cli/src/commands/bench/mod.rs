//! `kelda bench`: measures a broker with as little work in the client as there can be.
//!
//! The generated stubs are used directly: batches are packed once and sent many times, and read without being
//! unpacked. Each thread has its own runtime and connections, which on two cores doubles the rate of unary calls
//! against one runtime of two threads.

mod consume;
mod latency;
mod options;
mod payload;
mod produce;
mod report;
mod stream;
mod threads;
mod unary;

use clap::Subcommand;

use crate::{client::ClientOptions, failure::Failure};

/// Measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    Produce(produce::Produce),
    Consume(consume::Consume),
    Latency(latency::Latency),
}

impl Bench {
    /// Runs the measurement.
    pub(crate) fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        match self {
            Self::Produce(command) => command.run(options),
            Self::Consume(command) => command.run(options),
            Self::Latency(command) => command.run(options),
        }
    }
}
