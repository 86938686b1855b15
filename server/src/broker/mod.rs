//! The verbs: produce, fetch, topics, status. Knows what a call means; knows nothing of gRPC, openraft or redb.
//!
//! Start reading at `produce.rs`. Every verb fails with an [`Error`] that names one fact.

mod calls;
mod error;

pub use calls::{
    Acks, Bounds, Content, Fetch, Fetched, PartitionProduced, Produce, Produced, ReadBatch,
    Session, Start, StreamTerms,
};
pub use error::{Error, Violation};
