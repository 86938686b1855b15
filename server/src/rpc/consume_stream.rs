//! A consume stream: one task that reads the partitions in turn and hands one message at a time to the connection.
//!
//! A partition is in one of three places: `ready` if it may have something to read, `waiting` if it is at its end,
//! or nowhere, once it has reached the offset it was to stop at. So a message costs the same whether one partition
//! is read or thousands. The channel to the connection holds one message while the next is read; a slow client fills
//! it, and reading stops.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use kelda_proto::v1::{
    ConsumeRequest, ConsumeResponse, OutOfRangePolicy, PartitionPosition,
    consume_response::{End, Event, Gap, Heartbeat, Records, Started},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    convert::{self, Checks, Format, Incoming, READ_BYTES_DEFAULT},
    status::status,
};
use crate::{
    broker::{Bounds, Broker, Error, PartitionReader, Start},
    types::Offset,
};

const HEARTBEAT_MS_DEFAULT: i32 = 10_000;
const HEARTBEAT_MS_MIN: i32 = 100;
const HEARTBEAT_MS_MAX: i32 = 60_000;
const MESSAGE_BYTES_MAX: usize = 8 << 20;

type Message = Result<ConsumeResponse, Status>;
type Waiting = BoxFuture<'static, (usize, Result<Bounds, Error>)>;

/// Opens a stream: checks the request, finds where to start, and starts the task.
pub(super) async fn events(
    broker: &Broker,
    stopping: CancellationToken,
    request: ConsumeRequest,
) -> Result<BoxStream<'static, Message>, Error> {
    let plan = Plan::check(request)?;
    let numbers: Vec<i32> = plan.partitions.iter().map(|(number, _)| *number).collect();
    let readers = broker.readers(&plan.topic, &numbers).await?;
    let (sender, receiver) = mpsc::channel(1);
    let mut stream = Stream {
        partitions: Vec::with_capacity(readers.len()),
        ready: VecDeque::new(),
        waiting: FuturesUnordered::new(),
        heartbeat_due: Instant::now() + plan.heartbeat,
        gaps: Vec::new(),
        sender,
        plan,
    };
    for (index, reader) in readers.into_iter().enumerate() {
        stream.add(index, reader).await?;
    }
    tokio::spawn(async move {
        let sender = stream.sender.clone();
        // Reading changes nothing, so the stream may be dropped wherever it is.
        let end = tokio::select! {
            end = stream.run() => end.err(),
            () = stopping.cancelled() => Some(Stopped::Failed(Error::NotReady)),
            () = sender.closed() => None,
        };
        if let Some(Stopped::Failed(error)) = end {
            // If the client has gone meanwhile, nobody needs to hear of it.
            let _ = sender.send(Err(status(&error))).await;
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

/// What a client has asked for.
struct Plan {
    topic: String,
    /// Empty: all.
    partitions: Vec<(i32, Start)>,
    start: Start,
    follow: bool,
    format: Format,
    policy: OutOfRangePolicy,
    heartbeat: Duration,
    bytes_max: usize,
}

/// Why a stream ended before its end.
enum Stopped {
    Failed(Error),
    /// The client has gone.
    Left,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Stream {
    plan: Plan,
    partitions: Vec<Partition>,
    ready: VecDeque<usize>,
    waiting: FuturesUnordered<Waiting>,
    heartbeat_due: Instant,
    /// Those from the start, to be told behind Started.
    gaps: Vec<Gap>,
    sender: mpsc::Sender<Message>,
}

struct Partition {
    reader: PartitionReader,
    position: Offset,
    /// End of the partition, as far as the stream has seen.
    end: Offset,
    /// Where the stream leaves the partition; `None` with `follow`.
    stop_at: Option<Offset>,
}

impl Plan {
    fn check(request: ConsumeRequest) -> Result<Self, Error> {
        let mut checks = Checks::default();
        let start = convert::start(request.start);
        let start = start.unwrap_or_else(|violation| {
            checks.fail("start", violation.message);
            Start::Earliest
        });
        let mut seen = BTreeSet::new();
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for (index, partition) in request.partitions.into_iter().enumerate() {
            if !seen.insert(partition.partition) {
                checks.fail(format!("partitions[{index}]"), "must be named only once");
            }
            let own = match partition.start {
                None => start,
                given => convert::start(given).unwrap_or_else(|violation| {
                    checks.fail(format!("partitions[{index}].start"), violation.message);
                    start
                }),
            };
            partitions.push((partition.partition, own));
        }
        let heartbeat_ms = match request.heartbeat_interval_ms {
            0 => HEARTBEAT_MS_DEFAULT,
            given @ HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX => given,
            _ => {
                let rule = format!("must be 0, or {HEARTBEAT_MS_MIN} to {HEARTBEAT_MS_MAX}");
                checks.fail("heartbeat_interval_ms", rule);
                HEARTBEAT_MS_DEFAULT
            }
        };
        let bytes_max = checks.number(
            "max_message_bytes",
            request.max_message_bytes,
            convert::most(READ_BYTES_DEFAULT),
            convert::most(MESSAGE_BYTES_MAX),
        );
        let format = checks.take(convert::format(request.format));
        let policy = OutOfRangePolicy::try_from(request.on_out_of_range).unwrap_or_else(|_| {
            checks.fail("on_out_of_range", "must be FAIL, EARLIEST or LATEST");
            OutOfRangePolicy::Fail
        });
        checks.done()?;
        Ok(Self {
            topic: request.topic,
            partitions,
            start,
            follow: request.follow,
            format,
            policy,
            heartbeat: Duration::from_millis(u64::from(heartbeat_ms.unsigned_abs())),
            bytes_max: convert::size(bytes_max),
        })
    }

    /// Where to go on if `offset` is not there, or the error if the client wants to hear of it.
    fn elsewhere(&self, bounds: Bounds, error: Error) -> Result<Offset, Error> {
        match self.policy {
            OutOfRangePolicy::Earliest => Ok(bounds.log_start),
            OutOfRangePolicy::Latest => Ok(bounds.end),
            OutOfRangePolicy::Unspecified | OutOfRangePolicy::Fail => Err(error),
        }
    }
}

impl Stream {
    /// Adds a partition at its start.
    async fn add(&mut self, index: usize, reader: PartitionReader) -> Result<(), Error> {
        let own = self.plan.partitions.get(index);
        let start = own.map_or(self.plan.start, |(_, start)| *start);
        let end = reader.bounds().end;
        let position = match reader.resolve(start).await {
            Ok(position) => position,
            Err(error) => {
                let Error::OffsetOutOfRange {
                    offset,
                    log_start,
                    end,
                } = error
                else {
                    return Err(error);
                };
                let position = self.plan.elsewhere(Bounds { log_start, end }, error)?;
                self.gaps.push(Gap {
                    partition: convert::number(reader.partition()),
                    from_offset: offset,
                    to_offset: convert::offset(position),
                });
                position
            }
        };
        let stop_at = (!self.plan.follow).then_some(end);
        self.partitions.push(Partition {
            reader,
            position,
            end: end.max(position),
            stop_at,
        });
        self.place(index);
        Ok(())
    }

    /// Sends everything there is, and with `follow` everything there will be.
    async fn run(&mut self) -> Result<(), Stopped> {
        let started = Started {
            positions: self.positions(),
            heartbeat_interval_ms: i32::try_from(self.plan.heartbeat.as_millis())
                .unwrap_or(HEARTBEAT_MS_MAX),
        };
        self.send(Event::Started(started)).await?;
        for gap in std::mem::take(&mut self.gaps) {
            self.send(Event::Gap(gap)).await?;
        }
        while let Some(index) = self.next_ready().await? {
            self.read(index).await?;
            self.place(index);
        }
        let positions = self.positions();
        self.send(Event::End(End { positions })).await
    }

    /// Puts a partition where it belongs.
    fn place(&mut self, index: usize) {
        let partition = &self.partitions[index];
        let position = partition.position;
        if partition.stop_at.is_some_and(|stop_at| position >= stop_at) {
            return;
        }
        let Bounds { log_start, end } = partition.reader.bounds();
        if position < end || position < log_start {
            self.ready.push_back(index);
            return;
        }
        let mut reader = partition.reader.clone();
        let waiting = async move { (index, reader.wait_for_end_above(position).await) };
        self.waiting.push(waiting.boxed());
    }

    /// The next partition with something to read; `None` once all have been left.
    async fn next_ready(&mut self) -> Result<Option<usize>, Stopped> {
        // Those that have come to wait for their turn get it even if one never runs dry, and the other way round.
        while let Some(Some((index, woken))) = self.waiting.next().now_or_never() {
            woken?;
            self.ready.push_back(index);
        }
        if let Some(index) = self.ready.pop_front() {
            return Ok(Some(index));
        }
        loop {
            // Both branches only wait.
            tokio::select! {
                woken = self.waiting.next() => {
                    let Some((index, woken)) = woken else { return Ok(None) };
                    woken?;
                    return Ok(Some(index));
                }
                () = sleep_until(self.heartbeat_due) => self.heartbeat().await?,
            }
        }
    }

    /// Reads from a partition and sends what is there.
    async fn read(&mut self, index: usize) -> Result<(), Stopped> {
        let Partition {
            reader,
            position,
            stop_at,
            ..
        } = &self.partitions[index];
        let (reader, from) = (reader.clone(), *position);
        let to = stop_at.unwrap_or(Offset(u64::MAX));
        let (bytes_max, format) = (self.plan.bytes_max, self.plan.format);
        let topic = self.plan.topic.clone();
        let reading = async {
            let batches = reader.read(from, to, bytes_max).await?;
            let read = Incoming {
                batches,
                from,
                bytes_max,
            };
            let outgoing = convert::outgoing(read, format).await;
            outgoing.ok_or(Error::CorruptData {
                topic,
                partition: reader.partition(),
            })
        };
        let mut reading = Box::pin(reading);
        // A read that takes long does not stop the heartbeat; it goes on meanwhile.
        let outgoing = loop {
            tokio::select! {
                biased;
                outgoing = &mut reading => break outgoing,
                () = sleep_until(self.heartbeat_due) => self.heartbeat().await?,
            }
        };
        drop(reading);
        let outgoing = match outgoing {
            Err(error @ Error::OffsetOutOfRange { .. }) => {
                return self.skip(index, error).await;
            }
            outgoing => outgoing?,
        };
        let partition = &mut self.partitions[index];
        partition.position = outgoing.next_offset;
        partition.end = partition.reader.bounds().end.max(outgoing.next_offset);
        if outgoing.records.is_empty() && outgoing.batches.is_empty() {
            return Ok(());
        }
        let records = Records {
            partition: convert::number(partition.reader.partition()),
            records: outgoing.records,
            batches: outgoing.batches,
            next_offset: convert::offset(partition.position),
            end_offset: convert::offset(partition.end),
        };
        self.send(Event::Records(records)).await
    }

    /// Goes on elsewhere, since retention has overtaken the position.
    async fn skip(&mut self, index: usize, error: Error) -> Result<(), Stopped> {
        let partition = &mut self.partitions[index];
        let from = partition.position;
        let bounds = partition.reader.bounds();
        partition.position = self.plan.elsewhere(bounds, error)?;
        partition.end = bounds.end;
        let gap = Gap {
            partition: convert::number(partition.reader.partition()),
            from_offset: convert::offset(from),
            to_offset: convert::offset(partition.position),
        };
        self.send(Event::Gap(gap)).await
    }

    async fn heartbeat(&mut self) -> Result<(), Stopped> {
        let positions = self.positions();
        self.send(Event::Heartbeat(Heartbeat { positions })).await
    }

    fn positions(&mut self) -> Vec<PartitionPosition> {
        let position = |partition: &mut Partition| {
            partition.end = partition.end.max(partition.reader.bounds().end);
            PartitionPosition {
                partition: convert::number(partition.reader.partition()),
                next_offset: convert::offset(partition.position),
                end_offset: convert::offset(partition.end),
            }
        };
        self.partitions.iter_mut().map(position).collect()
    }

    /// Hands a message to the connection, when that has room.
    async fn send(&mut self, event: Event) -> Result<(), Stopped> {
        let message = ConsumeResponse { event: Some(event) };
        let sent = self.sender.send(Ok(message)).await;
        self.heartbeat_due = Instant::now() + self.plan.heartbeat;
        sent.map_err(|_| Stopped::Left)
    }
}
