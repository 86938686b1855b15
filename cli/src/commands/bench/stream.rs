//! A produce stream with a fixed number of appends in flight.

use std::{sync::Arc, time::Instant};

use kelda_client::Client;
use kelda_proto::v1::{
    Acks, ProduceStreamRequest, ProduceStreamResponse,
    produce_stream_request::{Append, Hello, Message},
    produce_stream_response::{self, Ack, Welcome, ack},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{report::Window, threads::SharedTally};
use crate::{client::refused, failure::Failure};

/// An open stream.
pub(super) struct AppendStream {
    appends: mpsc::Sender<ProduceStreamRequest>,
    answers: Streaming<ProduceStreamResponse>,
    /// What the broker allows.
    pub(super) welcome: Welcome,
}

impl AppendStream {
    /// Opens a stream that will have at most `in_flight` appends without an ack.
    pub(super) async fn open(
        client: &Client,
        topic: &str,
        in_flight: usize,
    ) -> Result<Self, Failure> {
        // One more for the hello.
        let (appends, requests) = mpsc::channel(in_flight + 1);
        let hello = Hello {
            topic: topic.to_owned(),
            acks: Acks::Quorum.into(),
            ..Default::default()
        };
        let hello = ProduceStreamRequest {
            message: Some(Message::Hello(hello)),
        };
        let ended = || Failure::failed("the broker ended the produce stream");
        appends.try_send(hello).map_err(|_| ended())?;
        let response = client
            .produce_service()
            .produce_stream(ReceiverStream::new(requests))
            .await
            .map_err(refused)?;
        let mut answers = response.into_inner();
        let first = answers
            .message()
            .await
            .map_err(refused)?
            .and_then(|answer| answer.message);
        match first {
            Some(produce_stream_response::Message::Welcome(welcome)) => Ok(Self {
                appends,
                answers,
                welcome,
            }),
            _ => Err(ended()),
        }
    }

    /// Sends one append. Never waits: the caller keeps to the number it opened the stream for.
    pub(super) fn send(&self, append: Append) -> Result<(), Failure> {
        let request = ProduceStreamRequest {
            message: Some(Message::Append(append)),
        };
        self.appends
            .try_send(request)
            .map_err(|_| Failure::failed("the produce stream is closed"))
    }

    /// Waits for the next ack.
    pub(super) async fn ack(&mut self) -> Result<Ack, Failure> {
        match self
            .answers
            .message()
            .await
            .map_err(refused)?
            .and_then(|answer| answer.message)
        {
            Some(produce_stream_response::Message::Ack(ack)) => Ok(ack),
            _ => Err(Failure::failed("the broker ended the produce stream")),
        }
    }
}

/// What one streaming producer sends.
pub(super) struct Load {
    /// Topic.
    pub(super) topic: String,
    /// What is sent again and again; the correlation id is filled in.
    pub(super) append: Append,
    /// Records of an append.
    pub(super) records: u64,
    /// Bytes of the values of an append.
    pub(super) bytes: u64,
    /// Appends that are without an ack at any time.
    pub(super) in_flight: usize,
    /// When it counts.
    pub(super) window: Window,
}

/// Keeps `in_flight` appends in flight until the window is over, then waits for the rest.
///
/// A correlation id is the number of a slot, which is free again when its ack is there.
pub(super) async fn produce(
    client: Client,
    number: usize,
    load: Arc<Load>,
    tally: SharedTally,
) -> Result<(), Failure> {
    let mut stream = AppendStream::open(&client, &load.topic, load.in_flight).await?;
    let slots = load
        .in_flight
        .min(usize::try_from(stream.welcome.window).unwrap_or(1))
        .max(1);
    let mut append = load.append.clone();
    if append.partition.is_none() {
        append.partition = Some((number % stream.welcome.partition_count.max(1) as usize) as i32);
    }
    let mut sent = vec![Instant::now(); slots];
    for slot in 0..slots {
        stream.send(Append {
            correlation_id: slot as u64,
            ..append.clone()
        })?;
    }
    let mut in_flight = slots;
    while in_flight > 0 {
        let ack = match stream.ack().await {
            Ok(ack) => ack,
            Err(failure) => {
                tally.borrow_mut().error(failure.to_string());
                return Ok(());
            }
        };
        let slot = usize::try_from(ack.correlation_id)
            .ok()
            .filter(|slot| *slot < slots);
        let slot =
            slot.ok_or_else(|| Failure::failed("the broker acknowledged what was not sent"))?;
        match ack.result {
            Some(ack::Result::Ok(_)) => {
                tally
                    .borrow_mut()
                    .done(load.window, load.records, load.bytes, Some(sent[slot]));
            }
            Some(ack::Result::Error(error)) => tally.borrow_mut().error(error.message),
            None => tally.borrow_mut().error("an ack without a result"),
        }
        let now = Instant::now();
        if load.window.is_over(now) {
            in_flight -= 1;
        } else {
            sent[slot] = now;
            stream.send(Append {
                correlation_id: slot as u64,
                ..append.clone()
            })?;
        }
    }
    Ok(())
}
