//! Reading topics: a stream that unpacks batches and resumes by itself.
//!
//! `progress` keeps the positions and knows what a message means; this file owns the stream and opens a new one
//! when it breaks.

mod progress;

use std::time::Duration;

use kelda_proto::v1::consume_response::Event as Message;
use kelda_proto::v1::{ConsumeRequest, ConsumeResponse, Record, RecordFormat};
use tokio::time::Instant;
use tonic::Streaming;

use crate::client::{Client, consume_service};
use crate::error::Error;
use crate::retry::Backoff;
use progress::Progress;

/// Silence of this many heartbeat intervals means that the stream is dead.
const SILENT_INTERVALS_MAX: u32 = 3;

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumedRecord {
    /// Its offset.
    pub offset: u64,
    /// The record. Its timestamp is filled in with the append time if the producer gave none.
    pub record: Record,
}

/// Where a reader is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionPosition {
    /// Partition.
    pub partition: u32,
    /// Offset of the next record to come.
    pub next_offset: u64,
    /// Offset behind the newest committed record, as far as is known. The lag is `end_offset - next_offset`.
    pub end_offset: u64,
}

/// What a consumer hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Records of one partition, at least one, in ascending order of offset.
    Records {
        /// Partition.
        partition: u32,
        /// The records.
        records: Vec<ConsumedRecord>,
        /// Offset to resume this partition at, once these records are dealt with.
        next_offset: u64,
        /// Offset behind the newest committed record, as far as is known.
        end_offset: u64,
    },
    /// Nothing new, but all is well.
    Heartbeat {
        /// Where each partition is.
        positions: Vec<PartitionPosition>,
    },
    /// The records in `[from_offset, to_offset)` are not there (any more).
    Gap {
        /// Partition.
        partition: u32,
        /// Where the reader was or was to start.
        from_offset: u64,
        /// Where it goes on.
        to_offset: u64,
    },
    /// The end that was asked for is reached: the last event.
    End {
        /// Where each partition ended.
        positions: Vec<PartitionPosition>,
    },
}

/// Reads a topic. Made by [`Client::consume`].
///
/// When the stream breaks or falls silent it goes on from the last position, on the next server, as often in a row
/// and for as long as [`crate::Options`] allow. No record is returned twice.
pub struct Consumer {
    client: Client,
    request: ConsumeRequest,
    progress: Progress,
    stream: Option<Streaming<ConsumeResponse>>,
    /// Connections that the stream is on.
    generation: u64,
    /// Connections to give up before the next stream is opened.
    failed: Option<u64>,
    silence_max: Duration,
    backoff: Backoff,
    /// Since when it gets nowhere.
    stuck_since: Option<Instant>,
    /// What a broker said last while it does.
    said: Option<Error>,
    finished: bool,
}

impl Client {
    /// Starts to read a topic. If `request` does not name a format, batches come packed and are unpacked here,
    /// which is the fastest.
    ///
    /// # Errors
    /// Those of the first stream, such as an unknown topic.
    pub async fn consume(&self, mut request: ConsumeRequest) -> Result<Consumer, Error> {
        if request.format() == RecordFormat::Unspecified {
            request.set_format(RecordFormat::Batches);
        }
        let mut consumer = Consumer {
            client: self.clone(),
            progress: Progress::new(request.follow),
            request,
            stream: None,
            generation: 0,
            failed: None,
            silence_max: self.options().request_timeout,
            backoff: Backoff::new(self.options().retry),
            stuck_since: Some(Instant::now()),
            said: None,
            finished: false,
        };
        while let Err(error) = consumer.open().await {
            consumer.recover(error).await?;
        }
        Ok(consumer)
    }
}

impl Consumer {
    /// The next event; nothing behind [`Event::End`] and behind an error.
    ///
    /// Safe to cancel: an event is either returned or still to come.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        while !self.finished {
            let failure = match self.advance().await {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => continue,
                Err(error) => error,
            };
            self.stream = None;
            self.recover(failure).await?;
        }
        Ok(None)
    }

    /// Where each partition is, in ascending order of partition.
    pub fn positions(&self) -> Vec<PartitionPosition> {
        self.progress.positions()
    }

    /// Takes one step: opens a stream or takes its next message, which may be no event.
    async fn advance(&mut self) -> Result<Option<Event>, Error> {
        let Some(stream) = &mut self.stream else {
            if let Some(end) = self.progress.ended() {
                self.finished = true;
                return Ok(Some(end));
            }
            self.open().await?;
            return Ok(None);
        };
        let after = self.silence_max;
        let message = tokio::time::timeout(after, stream.message())
            .await
            .map_err(|_| Error::Timeout { after })??;
        let Some(message) = message else {
            return Err(Error::Disconnected {
                detail: "the stream ended without an end".to_owned(),
            });
        };
        let event = self.progress.take(message)?;
        self.backoff.reset();
        self.stuck_since = None;
        self.said = None;
        self.finished = matches!(event, Some(Event::End { .. }));
        Ok(event)
    }

    /// Opens a stream at the present positions and takes its first message.
    async fn open(&mut self) -> Result<(), Error> {
        let request = self.progress.resume(&self.request);
        let after = self.client.options().request_timeout.min(self.time_left());
        let opening = async {
            let pool = match self.failed {
                Some(failed) => self.client.replace(failed).await?,
                None => self.client.pool(),
            };
            self.generation = pool.generation;
            let mut service = consume_service(pool.channel());
            let mut stream = service.consume(request).await?.into_inner();
            let first = stream.message().await?;
            Ok::<_, Error>((stream, first))
        };
        let (stream, first) = tokio::time::timeout(after, opening)
            .await
            .map_err(|_| Error::Timeout { after })??;
        let Some(Message::Started(started)) = first.and_then(|message| message.event) else {
            return Err(Error::Protocol {
                detail: "a stream did not begin with Started",
            });
        };
        let interval = u64::try_from(started.heartbeat_interval_ms)
            .ok()
            .filter(|interval| *interval > 0)
            .ok_or(Error::Protocol {
                detail: "a heartbeat interval is not positive",
            })?;
        self.progress.start(started)?;
        self.silence_max = Duration::from_millis(interval) * SILENT_INTERVALS_MAX;
        self.stream = Some(stream);
        self.failed = None;
        self.stuck_since = None;
        Ok(())
    }

    /// How long it may go on to get nowhere.
    fn time_left(&self) -> Duration {
        let spent = self
            .stuck_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        self.client.options().call_timeout.saturating_sub(spent)
    }

    /// Waits before the next stream, or gives up with `error`.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.stuck_since.get_or_insert_with(Instant::now);
        let left = self.time_left();
        let pause = self.backoff.next_attempt(error.retry_after());
        let is_silence = matches!(error, Error::Timeout { .. });
        let Some(pause) = pause.filter(|pause| error.retryable() && *pause < left) else {
            self.finished = true;
            let spent = self.client.options().call_timeout;
            return Err(error.after(self.said.take(), spent));
        };
        if !is_silence {
            self.said = Some(error.clone());
        }
        if error.blames_server() {
            self.failed = Some(self.generation);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
