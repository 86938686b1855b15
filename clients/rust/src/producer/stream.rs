//! One produce stream: Hello, Welcome, appends and acks.

use std::sync::Arc;

use kelda_proto::v1::produce_stream_request::{Append, Hello, Message as Request};
use kelda_proto::v1::produce_stream_response::{Ack, Message as Response};
use kelda_proto::v1::{Acks, Limits, ProduceStreamRequest, ProduceStreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::ProducerOptions;
use crate::client::{Client, produce_service};
use crate::connection::Pool;
use crate::error::Error;
use crate::random;
use crate::retry::Backoff;

/// Under which name the broker remembers a producer. An empty id: not at all.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) epoch: i32,
    /// Whether another producer may have had this id and epoch.
    pub(super) may_be_known: bool,
}

impl Session {
    pub(super) fn new(options: &ProducerOptions) -> Session {
        match &options.session {
            _ if options.acks == Acks::None => Session {
                id: String::new(),
                epoch: 0,
                may_be_known: false,
            },
            Some(id) => Session {
                id: id.clone(),
                epoch: epoch_now(),
                may_be_known: true,
            },
            None => Session {
                id: format!("{:016x}{:016x}", random::number(), random::number()),
                epoch: 0,
                may_be_known: false,
            },
        }
    }
}

/// Seconds since the start of 2026: higher for each later producer of a session, with no memory of the last one.
fn epoch_now() -> i32 {
    const START_OF_2026: u64 = 1_767_225_600;
    #[allow(
        clippy::disallowed_methods,
        reason = "nothing else of a client survives its restart"
    )]
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i32::try_from(since.as_secs().saturating_sub(START_OF_2026)).unwrap_or(i32::MAX)
}

/// What a Welcome says.
pub(super) struct Welcome {
    /// Appends that may be without an ack.
    pub(super) window: usize,
    pub(super) limits: Limits,
    pub(super) partition_count: u32,
    /// The session has appended in this epoch before.
    known: bool,
}

/// An open stream.
pub(super) struct Stream {
    appends: mpsc::Sender<ProduceStreamRequest>,
    answers: Streaming<ProduceStreamResponse>,
    pub(super) window: usize,
    pub(super) session: Session,
    /// The connections it is on.
    pub(super) pool: Arc<Pool>,
}

impl Stream {
    /// Opens a stream on `pool` that will carry at most `in_flight` appends without an ack.
    pub(super) async fn open(
        client: &Client,
        pool: Arc<Pool>,
        topic: &str,
        options: &ProducerOptions,
        session: Session,
    ) -> Result<(Stream, Welcome), Error> {
        let in_flight = options.in_flight.max(1);
        // Room for all that may be without an ack, so handing over never waits.
        let (appends, requests) = mpsc::channel(in_flight + 1);
        let hello = Hello {
            topic: topic.to_owned(),
            acks: options.acks.into(),
            session_id: session.id.clone(),
            session_epoch: session.epoch,
            without_sequences: !session.may_be_known,
        };
        hand_over(&appends, Request::Hello(hello))?;
        let after = client.options().request_timeout;
        let opening = async {
            let mut service = produce_service(pool.channel());
            let requests = ReceiverStream::new(requests);
            let mut answers = service.produce_stream(requests).await?.into_inner();
            let first = answers.message().await?;
            Ok::<_, Error>((answers, first))
        };
        let (answers, first) = tokio::time::timeout(after, opening)
            .await
            .map_err(|_| Error::Timeout { after })??;
        let welcome = welcome(first)?;
        let stream = Stream {
            appends,
            answers,
            window: welcome.window.min(in_flight),
            session,
            pool,
        };
        Ok((stream, welcome))
    }

    /// Puts an append on the stream.
    pub(super) fn append(&self, append: Append) -> Result<(), Error> {
        hand_over(&self.appends, Request::Append(append))
    }

    /// The next ack. Safe to cancel.
    pub(super) async fn ack(&mut self) -> Result<Ack, Error> {
        let answer = self.answers.message().await?;
        let Some(answer) = answer else {
            return Err(Error::Disconnected {
                detail: "the broker ended the stream".to_owned(),
            });
        };
        match answer.message {
            Some(Response::Ack(ack)) => Ok(ack),
            _ => Err(Error::Protocol {
                detail: "an answer on a produce stream is no ack",
            }),
        }
    }

    /// Ends the stream; the broker's side ends by itself, nothing is left on it.
    pub(super) async fn finish(mut self, client: &Client) {
        drop(self.appends);
        let end = self.answers.message();
        // How it ends changes nothing: all acks are here.
        let _ = tokio::time::timeout(client.options().connect_timeout, end).await;
    }
}

/// Opens the first stream of a producer, with the retries of a call.
pub(super) async fn open_first(
    client: &Client,
    topic: &str,
    options: &ProducerOptions,
    mut session: Session,
) -> Result<(Stream, Welcome), Error> {
    let mut backoff = Backoff::new(client.options().retry);
    let mut pool = client.pool();
    loop {
        let opened = Stream::open(client, Arc::clone(&pool), topic, options, session.clone()).await;
        let error = match opened {
            // Another producer began in the same second, or this clock was set back: an epoch of our own is needed,
            // because sequences start at 0.
            Ok((_, welcome)) if welcome.known => {
                session.epoch = session.epoch.saturating_add(1);
                Error::Disconnected {
                    detail: "the session's epoch is taken".to_owned(),
                }
            }
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let pause = backoff.next_attempt(error.retry_after());
        let Some(pause) = pause.filter(|_| error.retryable()) else {
            return Err(error);
        };
        tokio::time::sleep(pause).await;
        if error.blames_server() {
            // If none answers, the attempt on the old connections says so, and counts.
            pool = client.replace(pool.generation).await.unwrap_or(pool);
        }
    }
}

fn hand_over(requests: &mpsc::Sender<ProduceStreamRequest>, message: Request) -> Result<(), Error> {
    let request = ProduceStreamRequest {
        message: Some(message),
    };
    requests.try_send(request).map_err(|error| match error {
        mpsc::error::TrySendError::Closed(_) => Error::Disconnected {
            detail: "the broker takes no more appends".to_owned(),
        },
        mpsc::error::TrySendError::Full(_) => Error::Protocol {
            detail: "an append was acknowledged before it was sent",
        },
    })
}

fn welcome(first: Option<ProduceStreamResponse>) -> Result<Welcome, Error> {
    let Some(Response::Welcome(welcome)) = first.and_then(|answer| answer.message) else {
        return Err(Error::Protocol {
            detail: "a produce stream did not begin with Welcome",
        });
    };
    let positive = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
    let (Some(window), Some(partition_count)) =
        (positive(welcome.window), positive(welcome.partition_count))
    else {
        return Err(Error::Protocol {
            detail: "a Welcome without a window or partitions",
        });
    };
    Ok(Welcome {
        window: window as usize,
        limits: welcome.limits.unwrap_or_default(),
        partition_count,
        known: !welcome.last_sequences.is_empty(),
    })
}
