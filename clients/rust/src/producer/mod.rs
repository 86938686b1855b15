//! Writing to a topic: records are batched here and sent over one stream that is renewed when it breaks.
//!
//! `accumulator` collects records into batches, `outbox` keeps those on their way in order, `stream` speaks the
//! protocol, and `driver` is the one task that owns outbox and stream. Callers and driver share [`Shared`].

mod accumulator;
mod delivery;
mod driver;
mod outbox;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kelda_proto::v1::{Acks, Compression, ListTopicsRequest, Record, TopicConfig};
use kelda_proto::{batch, limits};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Client, topic_service};
use crate::error::Error;
use accumulator::{Accumulator, Bounds, Taken};
pub use delivery::{Delivery, RecordPosition};
use driver::Driver;
use stream::Session;

/// Brokers forget a session after 24 hours: a batch must be settled well before.
const DELIVERY_TIMEOUT_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// How a producer writes.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Write to this partition only. None: by key; records without one stay together for a batch at a time.
    pub partition: Option<u32>,
    /// What acks wait for.
    pub acks: Acks,
    /// Compression of batches. One that would grow by it is sent as it is.
    pub compression: Compression,
    /// Bytes of a full batch before compression; what the topic allows is the most.
    pub batch_bytes: usize,
    /// Records of a full batch.
    pub batch_records: usize,
    /// How long a batch waits for more records. Zero: it is sent at once, and batches fill while `in_flight`
    /// others are on their way.
    pub linger: Duration,
    /// Most batches without an ack. The producer holds at most twice their bytes.
    pub in_flight: usize,
    /// Session id; None: a random one. A producer takes over from one of the same id that started at least a second
    /// earlier, which then fails. Without meaning for `Acks::None`, which has no session: there a repeat after a
    /// lost connection may write records twice.
    pub session: Option<String>,
    /// How long a record may be on its way, repeats included, before it counts as failed. At most 12 hours.
    pub delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            partition: None,
            acks: Acks::Quorum,
            compression: Compression::Unspecified,
            batch_bytes: 256 << 10,
            batch_records: 10_000,
            linger: Duration::from_millis(2),
            in_flight: 8,
            session: None,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// What a producer has done so far, in records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Taken.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Of the acknowledged: those whose batch was sent again although it had been written.
    pub duplicates: u64,
    /// Failed: not written, or that is not known.
    pub failed: u64,
    /// Why the first one failed.
    pub first_error: Option<Error>,
}

/// Writes to a topic. Made by [`Client::producer`].
///
/// Records of one partition are written in the order in which they were sent. After a lost connection or an error
/// that may pass, batches are sent again, and the session keeps a repeat from being written twice. A batch that
/// fails for good takes with it those sent behind it and not yet acknowledged, in all partitions
/// ([`Error::Abandoned`]); then the producer goes on. It stops when its topic is gone or a later producer takes its
/// session over. Dropping it drops what is not yet acknowledged: [`Producer::close`] first.
pub struct Producer {
    shared: Arc<Shared>,
    rules: batch::Rules,
    driver: JoinHandle<()>,
}

/// What callers and driver share.
struct Shared {
    state: Mutex<State>,
    /// Tells the driver that there is something to do.
    work: Notify,
    /// Tells callers that a batch has got its result.
    results: Notify,
}

struct State {
    accumulator: Accumulator,
    summary: Summary,
    /// First failure since the last flush.
    unflushed: Option<Error>,
    /// The caller closed the producer: the driver ends when nothing is left.
    closing: bool,
    /// Why nothing can be sent any more.
    stopped: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Makes a producer for `topic` and opens its stream.
    ///
    /// # Errors
    /// Those of the first stream, such as an unknown topic; [`Error::UnknownPartition`].
    pub async fn producer(
        &self,
        topic: &str,
        mut options: ProducerOptions,
    ) -> Result<Producer, Error> {
        options.delivery_timeout = options.delivery_timeout.min(DELIVERY_TIMEOUT_MAX);
        options.linger = options.linger.min(options.delivery_timeout);
        let config = self.topic_config(topic).await?;
        let session = Session::new(&options);
        let (stream, welcome) = stream::open_first(self, topic, &options, session).await?;
        let partition_count = welcome.partition_count;
        if let Some(partition) = options.partition.filter(|p| *p >= partition_count) {
            return Err(Error::UnknownPartition {
                partition,
                partition_count,
            });
        }
        let rules = rules(&config, &welcome.limits);
        let batch_bytes = options.batch_bytes.clamp(1, rules.batch_bytes_max);
        let in_flight = options.in_flight.max(1);
        let bounds = Bounds {
            batch_bytes,
            batch_records: options.batch_records.clamp(1, rules.batch_records_max),
            linger: options.linger,
            batches_max: in_flight,
            buffer_bytes_max: batch_bytes.saturating_mul(in_flight).saturating_mul(2),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                accumulator: Accumulator::new(bounds, partition_count, options.partition),
                summary: Summary::default(),
                unflushed: None,
                closing: false,
                stopped: None,
            }),
            work: Notify::new(),
            results: Notify::new(),
        });
        let driver = Driver::new(self, topic, options, Arc::clone(&shared), &stream);
        Ok(Producer {
            shared,
            rules,
            driver: tokio::spawn(driver.run(stream)),
        })
    }

    /// Configuration of a topic: of a page that starts with its name it is the first. An unknown topic has none;
    /// the stream says so better.
    async fn topic_config(&self, topic: &str) -> Result<TopicConfig, Error> {
        let request = ListTopicsRequest {
            prefix: topic.to_owned(),
            page_size: 1,
            page_token: String::new(),
        };
        let called = self.call(|channel| {
            let request = self.request(request.clone());
            async move { topic_service(channel).list_topics(request).await }
        });
        let page = called.await.result?;
        let found = page.topics.into_iter().find(|found| found.name == topic);
        Ok(found.and_then(|found| found.config).unwrap_or_default())
    }
}

impl Producer {
    /// Sends a record: waits until there is room for it, and returns a handle to learn what became of it.
    ///
    /// # Errors
    /// [`Error::Batch`] if the record breaks a limit; what stopped the producer, if it is stopped.
    pub async fn send(&self, record: Record) -> Result<Delivery, Error> {
        let delivery = self.push(&record, true).await?;
        Ok(delivery.expect("a delivery that is asked for is given"))
    }

    /// As [`Producer::send`], but only counted in the [`Summary`]: costs no allocation for a record.
    pub async fn post(&self, record: &Record) -> Result<(), Error> {
        self.push(record, false).await.map(drop)
    }

    /// Sends what waits for more records, and waits until all records taken until now have a result.
    ///
    /// # Errors
    /// The first failure since the last flush; what stopped the producer, if it is stopped.
    pub async fn flush(&self) -> Result<(), Error> {
        let pressed = self.shared.lock().accumulator.press();
        self.shared.work.notify_one();
        loop {
            let mut result = std::pin::pin!(self.shared.results.notified());
            // Counts as waiting from here on, so no result is missed before it waits.
            result.as_mut().enable();
            {
                let mut state = self.shared.lock();
                if state.accumulator.resolved_below(pressed) {
                    let failure = state.unflushed.take().or_else(|| state.stopped.clone());
                    return failure.map_or(Ok(()), Err);
                }
            }
            result.await;
        }
    }

    /// What was done so far.
    pub fn summary(&self) -> Summary {
        self.shared.lock().summary.clone()
    }

    /// Waits until all records have a result, and ends the stream.
    ///
    /// # Errors
    /// What stopped the producer, if it is stopped. Records that failed are counted in the summary.
    pub async fn close(mut self) -> Result<Summary, Error> {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.accumulator.press();
        }
        self.shared.work.notify_one();
        let ended = (&mut self.driver).await;
        let state = self.shared.lock();
        match (&state.stopped, ended) {
            (Some(error), _) => Err(error.clone()),
            (None, Ok(())) => Ok(state.summary.clone()),
            (None, Err(_)) => Err(Error::Closed),
        }
    }

    async fn push(&self, record: &Record, wants_delivery: bool) -> Result<Option<Delivery>, Error> {
        let record_bytes = batch::check_record(0, record, &self.rules)?;
        if let Some(taken) = self.try_push(record, record_bytes, wants_delivery)? {
            return Ok(taken.delivery);
        }
        loop {
            let mut result = std::pin::pin!(self.shared.results.notified());
            // Counts as waiting from here on, so no result is missed before it waits.
            result.as_mut().enable();
            if let Some(taken) = self.try_push(record, record_bytes, wants_delivery)? {
                return Ok(taken.delivery);
            }
            result.await;
        }
    }

    /// Takes a record, if there is room for it.
    fn try_push(
        &self,
        record: &Record,
        record_bytes: usize,
        wants_delivery: bool,
    ) -> Result<Option<Taken>, Error> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.stopped {
            return Err(error.clone());
        }
        let now = Instant::now();
        let taken = state
            .accumulator
            .push(record, record_bytes, wants_delivery, now);
        state.summary.sent += u64::from(taken.is_some());
        drop(state);
        if taken.as_ref().is_none_or(|taken| taken.news) {
            self.shared.work.notify_one();
        }
        Ok(taken)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What the topic and the broker allow, as far as they say.
fn rules(config: &TopicConfig, broker: &kelda_proto::v1::Limits) -> batch::Rules {
    let least = |default: usize, allowed: &[Option<i32>]| {
        let allowed = allowed.iter().flatten();
        let positive = allowed.filter_map(|limit| usize::try_from(*limit).ok().filter(|l| *l > 0));
        positive.min().unwrap_or(default)
    };
    let defaults = batch::Rules::default();
    batch::Rules {
        record_bytes_max: least(
            limits::RECORD_BYTES_MAX,
            &[config.record_bytes_max, Some(broker.record_bytes_max)],
        ),
        batch_bytes_max: least(
            limits::BATCH_BYTES_DEFAULT,
            &[config.batch_bytes_max, Some(broker.batch_bytes_max)],
        ),
        batch_records_max: least(limits::BATCH_RECORDS_MAX, &[Some(broker.batch_records_max)]),
        record_headers_max: least(
            limits::RECORD_HEADERS_MAX,
            &[Some(broker.record_headers_max)],
        ),
        ..defaults
    }
}
