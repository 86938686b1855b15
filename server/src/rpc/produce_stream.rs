//! A produce stream: Hello and Welcome, then appends in the order they come, each answered once.
//!
//! It has no task of its own: what tonic polls for responses drives it. So a client that does not read its acks is
//! not read from either.

use std::pin::Pin;

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered},
};
use kelda_proto::v1::{
    PartitionSequence, ProduceStreamRequest, ProduceStreamResponse,
    produce_stream_request::{Append, Hello, Message},
    produce_stream_response::{self as response, Ack, Welcome, ack},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::{
    convert,
    status::{item, received, status},
};
use crate::broker::{Acks, Broker, Error, PendingProduce, Produce, Produced, Session};

/// The responses to a stream of requests.
pub(super) fn responses(
    broker: Broker,
    stopping: CancellationToken,
    requests: Streaming<ProduceStreamRequest>,
) -> BoxStream<'static, Result<ProduceStreamResponse, Status>> {
    let opening = Phase::Opening(Box::new(Opening {
        broker,
        requests,
        stopping: Box::pin(stopping.cancelled_owned()),
    }));
    stream::unfold(opening, |phase| async move {
        match phase {
            Phase::Opening(opening) => Some(match opening.welcome().await {
                Ok((welcome, open)) => (Ok(welcome), Phase::Open(Box::new(open))),
                Err(status) => (Err(status), Phase::Ended),
            }),
            Phase::Open(mut open) => match open.next().await {
                Ok(Some(ack)) => Some((Ok(ack), Phase::Open(open))),
                Ok(None) => None,
                Err(status) => Some((Err(status), Phase::Ended)),
            },
            Phase::Ended => None,
        }
    })
    .boxed()
}

enum Phase {
    Opening(Box<Opening>),
    Open(Box<Open>),
    Ended,
}

/// A stream that has not said Hello.
struct Opening {
    broker: Broker,
    requests: Streaming<ProduceStreamRequest>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// A stream that takes appends.
struct Open {
    broker: Broker,
    requests: Streaming<ProduceStreamRequest>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    topic: String,
    acks: Acks,
    session: Option<(String, i32)>,
    window: usize,
    /// Why no more appends are read: the client has closed its side, or an error that is told behind the last ack.
    closed: Option<Result<(), Status>>,
    /// The append that is being queued. One at a time, or a later one could overtake it.
    queueing: Option<Queueing>,
    /// Appends that wait for their commit.
    committing: FuturesUnordered<Committing>,
}

type Queueing = BoxFuture<'static, (u64, Result<PendingProduce, Error>)>;
type Committing = BoxFuture<'static, (u64, Result<Produced, Error>)>;

impl Opening {
    async fn welcome(mut self) -> Result<(ProduceStreamResponse, Open), Status> {
        // Nothing is lost whichever branch is dropped: the stream ends if it is not the first.
        let first = tokio::select! {
            first = self.requests.message() => first.map_err(received)?,
            () = &mut self.stopping => return Err(status(&Error::NotReady)),
        };
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(status(&Error::invalid(
                "hello",
                "must be the first message",
            )));
        };
        let (welcome, open) = self.open(hello).await.map_err(|error| status(&error))?;
        let message = Some(response::Message::Welcome(welcome));
        Ok((ProduceStreamResponse { message }, open))
    }

    async fn open(self, hello: Hello) -> Result<(Welcome, Open), Error> {
        let acks = convert::acks(hello.acks)?;
        let session =
            (!hello.session_id.is_empty()).then_some((hello.session_id, hello.session_epoch));
        let of_session = session.as_ref().map(|(id, epoch)| (&**id, *epoch));
        let terms = self
            .broker
            .produce_stream_terms(&hello.topic, of_session, !hello.without_sequences)
            .await?;
        let welcome = Welcome {
            window: convert::most(terms.window),
            limits: Some(self.broker.limits()),
            partition_count: convert::number(terms.partition_count),
            last_sequences: terms
                .last_sequences
                .into_iter()
                .map(|(partition, last_sequence)| PartitionSequence {
                    partition: convert::number(partition),
                    last_sequence,
                })
                .collect(),
        };
        let open = Open {
            broker: self.broker,
            requests: self.requests,
            stopping: self.stopping,
            topic: hello.topic,
            acks,
            session,
            window: terms.window,
            closed: None,
            queueing: None,
            committing: FuturesUnordered::new(),
        };
        Ok((welcome, open))
    }
}

impl Open {
    /// The next ack, or the end.
    async fn next(&mut self) -> Result<Option<ProduceStreamResponse>, Status> {
        loop {
            let idle = self.committing.is_empty() && self.queueing.is_none();
            if idle && let Some(end) = self.closed.take() {
                return end.map(|()| None);
            }
            let reading = self.closed.is_none() && self.queueing.is_none();
            // Whichever branch comes first, the others lose nothing: what they wait for is kept in `self`, and
            // `Streaming` keeps the part of a message that has arrived.
            let ack = tokio::select! {
                biased;
                Some((id, produced)) = self.committing.next() => Some(ack(id, produced)),
                (id, queued) = wait_for(&mut self.queueing) => {
                    self.queueing = None;
                    match queued {
                        Ok(pending) => {
                            let committing = async move { (id, pending.wait().await) };
                            self.committing.push(committing.boxed());
                            None
                        }
                        Err(error) => Some(ack(id, Err(error))),
                    }
                }
                request = self.requests.message(), if reading => self.take(request),
                () = &mut self.stopping, if self.closed.is_none() => {
                    self.closed = Some(Err(status(&Error::NotReady)));
                    None
                }
            };
            if let Some(ack) = ack {
                let message = Some(response::Message::Ack(ack));
                return Ok(Some(ProduceStreamResponse { message }));
            }
        }
    }

    /// Takes what came from the client. An append that is refused at once is answered at once.
    fn take(&mut self, request: Result<Option<ProduceStreamRequest>, Status>) -> Option<Ack> {
        let invalid = |field, message| Err(status(&Error::invalid(field, message)));
        let end = match request {
            Ok(None) => Ok(()),
            Err(error) => Err(received(error)),
            Ok(Some(ProduceStreamRequest { message })) => match message {
                Some(Message::Append(append)) if self.committing.len() < self.window => {
                    return self.queue(append);
                }
                Some(Message::Append(_)) => {
                    invalid("append", "exceeds Welcome.window: wait for acks")
                }
                Some(Message::Hello(_)) => invalid("hello", "must be the first message only"),
                None => invalid("message", "must be an append"),
            },
        };
        self.closed = Some(end);
        None
    }

    fn queue(&mut self, append: Append) -> Option<Ack> {
        let id = append.correlation_id;
        let content = match convert::content(append.records, append.batch) {
            Ok(content) => content,
            Err(error) => return Some(ack(id, Err(error))),
        };
        let call = Produce {
            topic: self.topic.clone(),
            partition: append.partition,
            content,
            acks: self.acks,
            session: self.session.clone().map(|(session, epoch)| Session {
                id: session,
                epoch,
                sequence: append.sequence,
            }),
            expected_offset: append.expected_offset,
        };
        let broker = self.broker.clone();
        let queueing = async move { (id, broker.begin_produce(call).await) };
        self.queueing = Some(queueing.boxed());
        None
    }
}

fn ack(correlation_id: u64, produced: Result<Produced, Error>) -> Ack {
    let result = match produced {
        Ok(produced) => ack::Result::Ok(convert::produced(produced)),
        Err(error) => ack::Result::Error(item(&error)),
    };
    Ack {
        correlation_id,
        result: Some(result),
    }
}

/// Waits for a future if there is one, else for ever.
async fn wait_for<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => futures::future::pending().await,
    }
}
