//! What became of a record.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::oneshot;

use crate::error::Error;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition {
    /// Partition.
    pub partition: u32,
    /// Offset; not known with `Acks::None`.
    pub offset: Option<u64>,
}

/// Where a batch is, or why it is not.
pub(super) type Outcome = Result<RecordPosition, Error>;

/// A promise to say what became of one record. Dropping it does not take the record back.
///
/// An error that is not definite, such as [`Error::Timeout`], leaves open whether the record was written.
#[derive(Clone, Debug)]
pub struct Delivery {
    batch: Shared<oneshot::Receiver<Outcome>>,
    index: u64,
}

impl Future for Delivery {
    type Output = Result<RecordPosition, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index;
        let outcome = ready!(self.batch.poll_unpin(context)).unwrap_or(Err(Error::Closed));
        Poll::Ready(outcome.map(|first| RecordPosition {
            offset: first.offset.map(|offset| offset + index),
            ..first
        }))
    }
}

/// The other end of all deliveries of a batch: one allocation, however many records ask.
#[derive(Debug)]
pub(super) struct Completion {
    sender: oneshot::Sender<Outcome>,
    receiver: Shared<oneshot::Receiver<Outcome>>,
}

impl Completion {
    pub(super) fn new() -> Self {
        let (sender, receiver) = oneshot::channel();
        Completion {
            sender,
            receiver: receiver.shared(),
        }
    }

    /// The delivery of the `index`th record.
    pub(super) fn delivery(&self, index: u32) -> Delivery {
        Delivery {
            batch: self.receiver.clone(),
            index: index.into(),
        }
    }

    pub(super) fn complete(self, outcome: Outcome) {
        // Nobody may be waiting any more.
        let _ = self.sender.send(outcome);
    }
}
