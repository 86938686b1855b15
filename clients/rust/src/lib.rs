//! Rust client of Kelda.
//!
//! All logic is in the broker, and the generated stubs of [`kelda_proto`] suffice to use it; this crate adds
//! comfort: [`Client`] finds a node that answers and moves on when it stops, [`Producer`] batches records and
//! repeats them without doubling, [`Consumer`] resumes by itself. Start at [`Client::connect`].

mod client;
mod connection;
mod consumer;
mod error;
mod producer;
mod random;
mod retry;
mod topics;

pub use client::{Client, Options};
pub use consumer::{ConsumedRecord, Consumer, Event, PartitionPosition};
pub use error::Error;
pub use kelda_proto::v1;
pub use producer::{Delivery, Producer, ProducerOptions, RecordPosition, Summary};
pub use retry::Retry;
pub use topics::Topics;
