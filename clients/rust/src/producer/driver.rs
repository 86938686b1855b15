//! The task behind a producer: owns outbox and stream, sends what is due, takes acks, and opens a new stream when
//! the old one breaks.

use std::sync::Arc;

use kelda_proto::batch;
use kelda_proto::v1::produce_stream_response::Ack;
use kelda_proto::v1::produce_stream_response::ack::Result as AckResult;
use kelda_proto::v1::{Compression, ErrorReason, ProduceResponse, RecordBatch};
use tokio::time::Instant;

use super::accumulator::Sealed;
use super::delivery::{Outcome, RecordPosition};
use super::outbox::{Entry, Outbox};
use super::stream::{Session, Stream, Welcome};
use super::{ProducerOptions, Shared};
use crate::client::Client;
use crate::connection::Pool;
use crate::error::Error;
use crate::retry::Backoff;

/// Longest time without a look at the clock: far beyond any deadline, near enough to add.
const FAR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Why a stream is no longer used.
enum Leave {
    /// Everything is acknowledged and the producer is being closed.
    Finished,
    /// It broke, or an append failed in a way that may pass.
    Broken(Error),
    /// What is on it was given up, so the rest needs a new one.
    GivenUp,
    /// Nothing can be sent any more.
    Stop(Error),
}

/// Owner of a producer's outbox and stream.
pub(super) struct Driver {
    target: Arc<Target>,
    shared: Arc<Shared>,
    session_id: String,
    outbox: Outbox,
    backoff: Backoff,
    /// Connections of the last stream, and whether they failed.
    pool: Arc<Pool>,
    pool_failed: bool,
}

impl Driver {
    pub(super) fn new(
        client: &Client,
        topic: &str,
        options: ProducerOptions,
        shared: Arc<Shared>,
        stream: &Stream,
    ) -> Driver {
        Driver {
            target: Arc::new(Target {
                client: client.clone(),
                topic: topic.to_owned(),
                options,
            }),
            shared,
            session_id: stream.session.id.clone(),
            outbox: Outbox::new(stream.session.epoch),
            backoff: Backoff::new(client.options().retry),
            pool: Arc::clone(&stream.pool),
            pool_failed: false,
        }
    }

    /// Runs until the producer is closed or stopped.
    pub(super) async fn run(mut self, first: Stream) {
        let mut stream = Some(first);
        let error = loop {
            let current = match stream.take() {
                Some(stream) => stream,
                None => match self.reopen().await {
                    Ok(Some(stream)) => stream,
                    Ok(None) => return,
                    Err(error) => break error,
                },
            };
            match self.serve(current).await {
                Leave::Finished => return,
                Leave::GivenUp => {}
                Leave::Stop(error) => break error,
                Leave::Broken(error) => {
                    self.pool_failed = error.blames_server();
                    self.pause(&error).await;
                }
            }
            self.outbox.restart();
        };
        self.stop(&error);
    }

    /// Uses a stream until it has to be left.
    async fn serve(&mut self, mut stream: Stream) -> Leave {
        loop {
            let now = Instant::now();
            if self.expire(now) {
                return Leave::GivenUp;
            }
            if let Err(leave) = self.feed(&stream, now) {
                return leave;
            }
            if self.is_finished() {
                stream.finish(&self.target.client).await;
                return Leave::Finished;
            }
            let ack_timeout = self.target.client.options().request_timeout;
            let ack_due = self.outbox.oldest_sent_at().map(|sent| sent + ack_timeout);
            if ack_due.is_some_and(|due| due <= now) {
                return Leave::Broken(Error::Timeout { after: ack_timeout });
            }
            let wake = self.wake_at(now).min(ack_due.unwrap_or(now + FAR));
            // All three are safe to cancel: an ack stays in the stream, a notice in the Notify.
            tokio::select! {
                ack = stream.ack() => {
                    let leave = match ack {
                        Ok(ack) => self.take_ack(ack),
                        Err(error) => Some(broken(error)),
                    };
                    if let Some(leave) = leave {
                        return leave;
                    }
                }
                () = self.shared.work.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Opens a stream as soon as there is something to send, however often it takes. Nothing: the producer was
    /// closed with nothing left to send.
    async fn reopen(&mut self) -> Result<Option<Stream>, Error> {
        loop {
            let now = Instant::now();
            self.expire(now);
            self.gather(now);
            if self.is_finished() {
                return Ok(None);
            }
            if self.outbox.is_empty() {
                // Both are safe to cancel: a notice stays in the Notify.
                tokio::select! {
                    () = self.shared.work.notified() => {}
                    () = tokio::time::sleep_until(self.wake_at(now)) => {}
                }
                continue;
            }
            match self.open().await {
                // An epoch given up meanwhile.
                Ok(stream) if stream.session.epoch != self.outbox.epoch() => {}
                Ok(stream) => return Ok(Some(stream)),
                Err(error) if error.retryable() => {
                    self.pool_failed |= error.blames_server();
                    self.pause(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a stream; deadlines go on meanwhile.
    async fn open(&mut self) -> Result<Stream, Error> {
        let session = Session {
            id: self.session_id.clone(),
            epoch: self.outbox.epoch(),
            // By this producer: what has no ack is sent again, whatever became of it.
            may_be_known: false,
        };
        let target = Arc::clone(&self.target);
        let failed = self.pool_failed.then_some(self.pool.generation);
        let mut opening = std::pin::pin!(target.open(failed, session));
        let (pool, opened) = loop {
            // The opening is not dropped, so it gets on however often deadlines pass.
            tokio::select! {
                done = &mut opening => break done?,
                () = tokio::time::sleep_until(self.wake_at(Instant::now())) => {
                    let now = Instant::now();
                    self.expire(now);
                    self.gather(now);
                }
            }
        };
        // If it fails on these connections, the next attempt replaces them and not those before.
        self.pool = pool;
        self.pool_failed = false;
        let (stream, welcome) = opened?;
        let mut state = self.shared.lock();
        state
            .accumulator
            .set_partition_count(welcome.partition_count);
        Ok(stream)
    }

    /// Seals what is due and sends what the window allows.
    fn feed(&mut self, stream: &Stream, now: Instant) -> Result<(), Leave> {
        loop {
            while let Some(append) = self.outbox.next(stream.window, now) {
                stream.append(append).map_err(broken)?;
            }
            match self.next_sealed(now) {
                // Sent before the next one is compressed.
                Some(sealed) => self.admit(sealed, now),
                None if self.waits_for_new_epoch(now) && self.outbox.is_empty() => {
                    self.outbox
                        .abandon(self.target.options.delivery_timeout, now);
                    return Err(Leave::GivenUp);
                }
                None => return Ok(()),
            }
        }
    }

    /// Seals what is due while there is no stream, so that it can expire.
    fn gather(&mut self, now: Instant) {
        if self.outbox.is_empty() && self.waits_for_new_epoch(now) {
            self.outbox
                .abandon(self.target.options.delivery_timeout, now);
        }
        while let Some(sealed) = self.next_sealed(now) {
            self.admit(sealed, now);
        }
    }

    fn next_sealed(&mut self, now: Instant) -> Option<Sealed> {
        let mut state = self.shared.lock();
        state.accumulator.seal_due(now);
        let partition = state.accumulator.next_sealed_partition()?;
        if self.has_session() && self.outbox.is_stale(partition, now) {
            return None;
        }
        state.accumulator.take_sealed()
    }

    /// Whether the next batch must wait until all others have their result and the session has a new epoch.
    fn waits_for_new_epoch(&self, now: Instant) -> bool {
        let next = self.shared.lock().accumulator.next_sealed_partition();
        self.has_session() && next.is_some_and(|partition| self.outbox.is_stale(partition, now))
    }

    fn admit(&mut self, sealed: Sealed, now: Instant) {
        match pack(&sealed, self.target.options.compression) {
            Ok(batch) => self.outbox.admit(sealed, batch, now),
            Err(error) => {
                let bytes = sealed.records.len();
                self.resolve(sealed, bytes, Err(error.into()), false);
            }
        }
    }

    fn take_ack(&mut self, ack: Ack) -> Option<Leave> {
        let id = ack.correlation_id;
        match ack.result {
            Some(AckResult::Ok(response)) => {
                let entry = self.outbox.settle(id)?;
                self.backoff.reset();
                match position(&entry, &response) {
                    Ok((position, duplicate)) => self.settle(entry, Ok(position), duplicate),
                    Err(error) => {
                        self.settle(entry, Err(error.clone()), false);
                        return Some(Leave::Stop(error));
                    }
                }
                None
            }
            Some(AckResult::Error(error)) => self.take_error(id, error.into()),
            None => Some(Leave::Stop(Error::Protocol {
                detail: "an ack has no result",
            })),
        }
    }

    fn take_error(&mut self, correlation_id: u64, error: Error) -> Option<Leave> {
        self.outbox.find(correlation_id)?;
        let missing_predecessor = error.reason() == Some(ErrorReason::SequenceOutOfOrder)
            && self.outbox.has_predecessor(correlation_id);
        if error.retryable() || missing_predecessor {
            return Some(Leave::Broken(error));
        }
        let entry = self.outbox.settle(correlation_id)?;
        self.settle(entry, Err(error.clone()), false);
        if error.reason() == Some(ErrorReason::ProducerFenced) {
            return Some(Leave::Stop(error));
        }
        if !self.has_session() {
            return None;
        }
        self.abandon(&error, Instant::now());
        Some(Leave::GivenUp)
    }

    /// Fails what is on its way for too long; whether the stream has to be left for it.
    fn expire(&mut self, now: Instant) -> bool {
        let timeout = self.target.options.delivery_timeout;
        if self
            .outbox
            .oldest_born()
            .is_none_or(|born| born + timeout > now)
        {
            return false;
        }
        let error = Error::Timeout { after: timeout };
        if self.has_session() {
            self.abandon(&error, now);
        } else {
            for entry in self.outbox.take_expired(timeout, now) {
                self.settle(entry, Err(error.clone()), false);
            }
        }
        true
    }

    /// Fails every batch that may have been written, because `cause` leaves a hole in front of them.
    fn abandon(&mut self, cause: &Error, now: Instant) {
        let timeout = self.target.options.delivery_timeout;
        for entry in self.outbox.abandon(timeout, now) {
            let error = if entry.sealed.born + timeout <= now {
                Error::Timeout { after: timeout }
            } else {
                Error::Abandoned {
                    cause: Box::new(cause.clone()),
                }
            };
            self.settle(entry, Err(error), false);
        }
    }

    /// Fails everything, now and from now on.
    fn stop(&mut self, error: &Error) {
        self.shared.lock().stopped = Some(error.clone());
        for entry in self.outbox.take_all() {
            self.settle(entry, Err(error.clone()), false);
        }
        self.shared.lock().accumulator.seal_all();
        loop {
            let sealed = self.shared.lock().accumulator.take_sealed();
            let Some(sealed) = sealed else { break };
            let bytes = sealed.records.len();
            self.resolve(sealed, bytes, Err(error.clone()), false);
        }
        self.shared.results.notify_waiters();
    }

    fn settle(&self, entry: Entry, outcome: Outcome, duplicate: bool) {
        self.resolve(entry.sealed, entry.bytes, outcome, duplicate);
    }

    /// Gives a batch its result.
    fn resolve(&self, sealed: Sealed, bytes: usize, outcome: Outcome, duplicate: bool) {
        let count = u64::from(sealed.record_count);
        {
            let mut state = self.shared.lock();
            state.accumulator.resolve(sealed.id, bytes);
            match &outcome {
                Ok(_) => {
                    state.summary.acknowledged += count;
                    state.summary.duplicates += if duplicate { count } else { 0 };
                }
                Err(error) => {
                    state.summary.failed += count;
                    state
                        .summary
                        .first_error
                        .get_or_insert_with(|| error.clone());
                    state.unflushed.get_or_insert_with(|| error.clone());
                }
            }
        }
        if let Some(completion) = sealed.completion {
            completion.complete(outcome);
        }
        self.shared.results.notify_waiters();
    }

    fn has_session(&self) -> bool {
        !self.session_id.is_empty()
    }

    fn is_finished(&self) -> bool {
        let state = self.shared.lock();
        state.closing && state.accumulator.is_empty()
    }

    /// When there is something to do that nobody announces.
    fn wake_at(&self, now: Instant) -> Instant {
        let linger = self.shared.lock().accumulator.next_due();
        let expiry = self.outbox.oldest_born();
        let expiry = expiry.map(|born| born + self.target.options.delivery_timeout);
        let far = now + FAR;
        far.min(linger.unwrap_or(far)).min(expiry.unwrap_or(far))
    }

    /// Waits before the next stream, but not beyond a deadline.
    async fn pause(&mut self, error: &Error) {
        let until = Instant::now() + self.backoff.pause(error.retry_after());
        let expiry = self.outbox.oldest_born();
        let expiry = expiry.map_or(until, |born| born + self.target.options.delivery_timeout);
        tokio::time::sleep_until(until.min(expiry)).await;
    }
}

/// Where streams are opened.
struct Target {
    client: Client,
    topic: String,
    options: ProducerOptions,
}

impl Target {
    /// Opens a stream on the connections in use, or on new ones if those of generation `failed` still are. Says on
    /// which it tried.
    async fn open(&self, failed: Option<u64>, session: Session) -> Result<Attempt, Error> {
        let pool = match failed {
            Some(failed) => self.client.replace(failed).await?,
            None => self.client.pool(),
        };
        let (client, on) = (&self.client, Arc::clone(&pool));
        let opened = Stream::open(client, on, &self.topic, &self.options, session).await;
        Ok((pool, opened))
    }
}

/// Connections, and what opening a stream on them came to.
type Attempt = (Arc<Pool>, Result<(Stream, Welcome), Error>);

/// A stream is left for an error of its own.
fn broken(error: Error) -> Leave {
    if error.retryable() {
        Leave::Broken(error)
    } else {
        Leave::Stop(error)
    }
}

/// Packs a batch, compressed if that makes it smaller.
fn pack(sealed: &Sealed, compression: Compression) -> Result<RecordBatch, batch::Error> {
    let count = sealed.record_count as usize;
    let packed = batch::pack_encoded(&sealed.records, count, compression)?;
    if packed.records.len() < sealed.records.len() || compression == Compression::Unspecified {
        return Ok(packed);
    }
    batch::pack_encoded(&sealed.records, count, Compression::Unspecified)
}

/// Where the batch is, by its ack, and whether it was there before.
fn position(entry: &Entry, response: &ProduceResponse) -> Result<(RecordPosition, bool), Error> {
    let [ack] = response.partitions.as_slice() else {
        return Err(Error::Protocol {
            detail: "an ack of one batch does not name one partition",
        });
    };
    let partition = entry.sealed.partition;
    let same_partition = u32::try_from(ack.partition) == Ok(partition);
    let same_count = u32::try_from(ack.record_count) == Ok(entry.sealed.record_count);
    if !same_partition || !same_count {
        return Err(Error::Protocol {
            detail: "an ack is not about the batch that was sent",
        });
    }
    let position = RecordPosition {
        partition,
        offset: u64::try_from(ack.base_offset).ok(),
    };
    Ok((position, ack.duplicate))
}
