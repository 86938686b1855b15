//! Reads a partition that another node leads, and answers other nodes that read from this one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use kelda_proto::{
    internal::v1::{
        ReadRequest, ReadResponse, TrimRequest, TrimResponse,
        read_request::{self, Question},
    },
    v1::{self, ErrorReason, start_position::Position},
};

use super::{
    Bounds, Broker, Error, Fetch, Fetched, ReadBatch, Start,
    directory::TopicHandle,
    fetch::LocalReader,
    partition::Partition,
    route::{Ask, Place, not_leader},
};
use crate::{
    peers::{CallError, PeerClient},
    types::Offset,
};

/// How long one request waits for records; the next one follows.
const WAIT: Duration = Duration::from_secs(10);
/// Bytes that a request that waits brings along.
const WAIT_BYTES: usize = 1 << 20;
/// Partitions of a topic whose leaders are asked at a time.
pub(super) const LEADERS_AT_ONCE: usize = 64;

/// Reads one partition from its leader. Clones share what they have seen.
#[derive(Clone)]
pub(super) struct RemoteReader {
    broker: Broker,
    topic: Arc<str>,
    number: i32,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    bounds: Bounds,
    /// What came with the end of a wait, to be read next.
    ahead: Vec<ReadBatch>,
}

impl RemoteReader {
    /// Asks the leader for the bounds.
    pub(super) async fn open(broker: Broker, topic: &str, number: i32) -> Result<Self, Error> {
        let reader = Self {
            broker,
            topic: topic.into(),
            number,
            seen: Arc::new(Mutex::new(Seen {
                bounds: Bounds {
                    log_start: Offset(0),
                    end: Offset(0),
                },
                ahead: Vec::new(),
            })),
        };
        reader.resolve(Start::Latest).await?;
        Ok(reader)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.seen().bounds
    }

    async fn ask(&self, question: Question) -> Result<ReadResponse, Error> {
        let request = ReadRequest {
            topic: self.topic.to_string(),
            partition: self.number,
            question: Some(question),
        };
        let answer = self.broker.read_at_leader(&request).await;
        let bounds = match &answer {
            Ok(answer) => Some((answer.log_start_offset, answer.end_offset)),
            Err(Error::OffsetOutOfRange { log_start, end, .. }) => {
                Some(((*log_start).into(), (*end).into()))
            }
            Err(_) => None,
        };
        if let Some((log_start, end)) = bounds {
            self.seen().bounds = Bounds {
                log_start: offset(log_start),
                end: offset(end),
            };
        }
        answer
    }

    pub(super) async fn resolve(&self, start: Start) -> Result<Offset, Error> {
        let answer = self.ask(Question::Start(position(start))).await?;
        Ok(offset(answer.offset))
    }

    pub(super) async fn fetch(&self, call: &Fetch) -> Result<Fetched, Error> {
        let answer = self.ask(Question::Fetch(read_request::Fetch {
            offset: call.offset,
            max_wait_ms: i32::try_from(call.max_wait.as_millis()).unwrap_or(i32::MAX),
            max_bytes: i32::try_from(call.max_bytes).unwrap_or(i32::MAX),
            min_bytes: i32::try_from(call.min_bytes).unwrap_or(i32::MAX),
        }));
        let batches = answer.await?.batches.into_iter().map(read_batch);
        // Leaving one out would hide its records.
        let batches: Option<Vec<_>> = batches.collect();
        let batches = batches.ok_or_else(|| Error::Internal {
            detail: "the partition's leader sent an empty batch".to_owned(),
        })?;
        let wanted = offset(call.offset);
        Ok(Fetched {
            next_offset: batches.last().map_or(wanted, ReadBatch::end_offset),
            batches,
            bounds: self.bounds(),
        })
    }

    pub(super) async fn read(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<ReadBatch>, Error> {
        let ahead = std::mem::take(&mut self.seen().ahead);
        let mut batches = if holds(&ahead, from) {
            ahead
        } else {
            self.fetch(&self.call(from, Duration::ZERO, bytes_max))
                .await?
                .batches
        };
        batches.retain(|batch| batch.base_offset < to);
        Ok(batches)
    }

    pub(super) async fn wait_for_end_above(&self, offset: Offset) -> Result<Bounds, Error> {
        loop {
            let fetched = match self.fetch(&self.call(offset, WAIT, WAIT_BYTES)).await {
                // Retention has overtaken the wait: whoever reads next hears of it.
                Err(Error::OffsetOutOfRange { .. }) => return Ok(self.bounds()),
                fetched => fetched?,
            };
            if !fetched.batches.is_empty() {
                self.seen().ahead = fetched.batches;
                return Ok(fetched.bounds);
            }
        }
    }

    fn call(&self, from: Offset, max_wait: Duration, max_bytes: usize) -> Fetch {
        Fetch {
            topic: self.topic.to_string(),
            partition: self.number,
            offset: from.into(),
            max_wait,
            min_bytes: 1,
            max_bytes,
        }
    }
}

fn holds(batches: &[ReadBatch], wanted: Offset) -> bool {
    batches
        .first()
        .is_some_and(|first| first.base_offset <= wanted && wanted < first.end_offset())
}

impl Ask for ReadRequest {
    type Answer = ReadResponse;

    fn partition(&self) -> (&str, i32) {
        (&self.topic, self.partition)
    }

    fn patience(&self) -> Duration {
        match &self.question {
            Some(Question::Fetch(fetch)) => {
                Duration::from_millis(u64::from(fetch.max_wait_ms.unsigned_abs()))
            }
            _ => Duration::ZERO,
        }
    }

    async fn here(
        &self,
        broker: &Broker,
        partition: &Arc<Partition>,
    ) -> Result<ReadResponse, Error> {
        broker.read_from(partition, self).await
    }

    async fn there(
        &self,
        mut client: PeerClient,
    ) -> Result<Result<ReadResponse, v1::Error>, CallError> {
        let answer = client.read(self.clone()).await;
        let mut answer = answer
            .map_err(|status| CallError::from(&status))?
            .into_inner();
        Ok(match answer.error.take() {
            Some(error) => Err(error),
            None => Ok(answer),
        })
    }
}

impl Ask for TrimRequest {
    type Answer = Bounds;

    fn partition(&self) -> (&str, i32) {
        (&self.topic, self.partition)
    }

    async fn here(&self, _: &Broker, partition: &Arc<Partition>) -> Result<Bounds, Error> {
        partition.trim_checked(self.before_offset).await
    }

    async fn there(&self, mut client: PeerClient) -> Result<Result<Bounds, v1::Error>, CallError> {
        let answer = client.trim(self.clone()).await;
        let answer = answer
            .map_err(|status| CallError::from(&status))?
            .into_inner();
        Ok(match answer.error {
            Some(error) => Err(error),
            None => Ok(Bounds {
                log_start: offset(answer.log_start_offset),
                end: offset(answer.end_offset),
            }),
        })
    }
}

impl Broker {
    async fn read_at_leader(&self, request: &ReadRequest) -> Result<ReadResponse, Error> {
        self.ask_leader(request).await.map_err(known)
    }

    /// Answers another node, if this one leads the partition.
    pub async fn read_here(&self, request: &ReadRequest) -> Result<ReadResponse, Error> {
        let partition = self.led_here(&request.topic, request.partition).await?;
        self.read_from(&partition, request).await
    }

    async fn read_from(
        &self,
        partition: &Arc<Partition>,
        request: &ReadRequest,
    ) -> Result<ReadResponse, Error> {
        let mut reader = LocalReader::new(Arc::clone(partition), Arc::clone(&self.shared.metrics));
        let mut answer = ReadResponse::default();
        match &request.question {
            Some(Question::Start(start)) => {
                answer.offset = reader.resolve(from_position(start)).await?.into();
            }
            Some(Question::Session(session)) => {
                answer.last_sequence = partition.group.last_sequence(&session.id, session.epoch);
            }
            Some(Question::Fetch(fetch)) => {
                let call = Fetch {
                    topic: request.topic.clone(),
                    partition: request.partition,
                    offset: fetch.offset,
                    max_wait: Duration::from_millis(u64::from(fetch.max_wait_ms.unsigned_abs())),
                    min_bytes: fetch.min_bytes.unsigned_abs() as usize,
                    max_bytes: fetch.max_bytes.unsigned_abs() as usize,
                };
                let offset = reader.resolve(Start::Offset(call.offset)).await?;
                let deadline = Instant::now() + call.max_wait;
                let fetched = reader.long_poll(offset, &call, deadline).await?;
                reader.count(&fetched.batches);
                answer.batches = fetched.batches.iter().map(stored_batch).collect();
            }
            None => return Err(Error::invalid("question", "must be given")),
        }
        let bounds = reader.bounds();
        answer.log_start_offset = bounds.log_start.into();
        answer.end_offset = bounds.end.into();
        Ok(answer)
    }

    /// Takes records below an offset out of sight, wherever the partition is led.
    pub(super) async fn trim_at_leader(
        &self,
        topic: &str,
        number: i32,
        before_offset: i64,
    ) -> Result<Bounds, Error> {
        let request = TrimRequest {
            topic: topic.to_owned(),
            partition: number,
            before_offset,
        };
        self.ask_leader(&request).await.map_err(known)
    }

    /// Trims for another node, if this one leads the partition.
    pub async fn trim_here(&self, request: &TrimRequest) -> Result<TrimResponse, Error> {
        let partition = self.led_here(&request.topic, request.partition).await?;
        let bounds = partition.trim_checked(request.before_offset).await?;
        Ok(TrimResponse {
            log_start_offset: bounds.log_start.into(),
            end_offset: bounds.end.into(),
            error: None,
        })
    }

    async fn led_here(&self, topic: &str, number: i32) -> Result<Arc<Partition>, Error> {
        self.check_ready()?;
        match self.place_of(topic, number).await? {
            Place::Here(partition) => Ok(partition),
            Place::There(..) | Place::Nowhere => {
                let directory = self.directory();
                Err(self.not_led(directory.topic(topic)?, number.unsigned_abs()))
            }
        }
    }

    /// Last sequence of a session in each partition where it has one.
    pub(super) async fn last_sequences(
        &self,
        topic: &TopicHandle,
        id: &str,
        epoch: i32,
    ) -> Result<Vec<(u32, i64)>, Error> {
        let asking = (0..topic.partition_count()).map(|number| {
            let session = read_request::Session {
                id: id.to_owned(),
                epoch,
            };
            let request = ReadRequest {
                topic: topic.topic.name.clone(),
                partition: number.cast_signed(),
                question: Some(Question::Session(session)),
            };
            async move {
                let answer = self.read_at_leader(&request).await?;
                Ok(answer.last_sequence.map(|sequence| (number, sequence)))
            }
        });
        let found = stream::iter(asking).buffered(LEADERS_AT_ONCE);
        found
            .try_filter_map(|found| future::ready(Ok(found)))
            .try_collect()
            .await
    }
}

/// Gives an error of the leader that readers act upon its own variant again.
fn known(error: Error) -> Error {
    let Error::Remote(remote) = &error else {
        return error;
    };
    let number = |key: &str| remote.metadata.get(key)?.parse::<i64>().ok();
    let range = || {
        Some(Error::OffsetOutOfRange {
            offset: number("offset")?,
            log_start: offset(number("log_start_offset")?),
            end: offset(number("end_offset")?),
        })
    };
    match remote.reason() {
        ErrorReason::OffsetOutOfRange => range().unwrap_or(error),
        _ if not_leader(remote).is_some() => Error::NotReady,
        _ => error,
    }
}

/// An offset of the contract; none of a node is negative.
fn offset(offset: i64) -> Offset {
    Offset(u64::try_from(offset).unwrap_or_default())
}

fn position(start: Start) -> v1::StartPosition {
    let boundary = |boundary: v1::Boundary| Position::Boundary(boundary.into());
    let position = match start {
        Start::Earliest => boundary(v1::Boundary::Earliest),
        Start::Latest => boundary(v1::Boundary::Latest),
        Start::Offset(offset) => Position::Offset(offset),
        Start::Timestamp(timestamp_ms) => Position::TimestampMs(timestamp_ms),
    };
    v1::StartPosition {
        position: Some(position),
    }
}

fn from_position(start: &v1::StartPosition) -> Start {
    match start.position {
        Some(Position::Offset(offset)) => Start::Offset(offset),
        Some(Position::TimestampMs(timestamp_ms)) => Start::Timestamp(timestamp_ms),
        Some(Position::Boundary(boundary)) if boundary == v1::Boundary::Latest as i32 => {
            Start::Latest
        }
        Some(Position::Boundary(_)) | None => Start::Earliest,
    }
}

fn stored_batch(batch: &ReadBatch) -> v1::StoredBatch {
    v1::StoredBatch {
        base_offset: batch.base_offset.into(),
        append_time_ms: batch.append_time_ms,
        batch: Some(batch.packed()),
    }
}

fn read_batch(stored: v1::StoredBatch) -> Option<ReadBatch> {
    let batch = stored.batch?;
    Some(ReadBatch {
        base_offset: offset(stored.base_offset),
        append_time_ms: stored.append_time_ms,
        compression: batch.compression,
        record_count: batch.record_count.unsigned_abs(),
        crc32c: batch.crc32c,
        records: batch.records,
    })
}
