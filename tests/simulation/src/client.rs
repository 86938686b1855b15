//! Clients: they write values with producer sessions and repeat what was not answered, read, and record everything.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use kelda_proto::{
    batch::crc32c,
    internal::v1::{
        BatchHeader, PartitionCommand, SessionStamp,
        partition_command::{Append, Command as Kind},
    },
};
use kelda_server::{
    consensus::{Command, PartitionGroup, ProposeError, Reply},
    machine::partition::Outcome,
    storage::{BatchRead, Part},
    types::Offset,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    checker::{ClientLog, Value},
    disk::Random,
    node::Life,
    world::World,
};

/// The number of the partition in histories.
pub(crate) const PARTITION: i32 = 0;
/// How long one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a client repeats a send.
const GIVE_UP: Duration = Duration::from_secs(12);
/// Most values of a send.
const VALUES_MAX: u64 = 4;
/// Bytes that one poll reads.
const POLL_BYTES: usize = 4 << 10;

/// How a send ended.
enum Ended {
    /// Acknowledged with this first offset.
    Acknowledged(u64),
    /// It certainly had no effect.
    Refused,
    Unknown,
}

/// Sends until the run is over.
pub(crate) async fn produce(world: Arc<World>, mut random: Random, pause_ms: u64) {
    let mut log = world.recorder.client();
    let mut sequence = 0;
    while !world.is_over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(random.below(pause_ms) + 1)).await;
        let count = 1 + random.below(VALUES_MAX) as u32;
        let values = log.values(count);
        let send = log.send(PARTITION, &values);
        let batch = Batch::new(&log, sequence, &values, &mut random);
        let ended = deliver(&world, &batch, &mut random).await;
        let client = log.client();
        match ended {
            Ended::Acknowledged(base) => {
                world
                    .trace
                    .note(format_args!("client {client} sent {count} at {base}"));
                world.acknowledge(base + u64::from(count));
                send.ok(i64::try_from(base).ok());
                sequence += 1;
                continue;
            }
            Ended::Refused => send.fail(),
            Ended::Unknown => send.info(),
        }
        world.trace.note(format_args!("client {client} gave up"));
        // What this session sends next could overtake what it has given up.
        log = log.crash();
        sequence = 0;
    }
}

/// A batch that can be sent several times.
struct Batch {
    header: BatchHeader,
    part: Part,
}

impl Batch {
    fn new(log: &ClientLog, sequence: i64, values: &[Value], random: &mut Random) -> Self {
        let mut text: String = values.iter().map(|value| format!("{value}\n")).collect();
        // Some take several pages.
        let padding = if random.chance(10) {
            9000
        } else {
            random.below(200)
        };
        text.extend(std::iter::repeat_n('-', padding as usize));
        let bytes = Bytes::from(text);
        Self {
            header: BatchHeader {
                record_count: values.len() as u32,
                session: Some(SessionStamp {
                    id: format!("client {}", log.client()),
                    epoch: 1,
                    sequence,
                }),
                ..BatchHeader::default()
            },
            part: Part {
                crc32c: crc32c(&bytes),
                bytes,
            },
        }
    }

    fn command(&self, world: &World) -> Command {
        let append = Append {
            append_time_ms: i64::try_from(world.trace.elapsed_ms()).unwrap_or(i64::MAX),
            batches: vec![self.header.clone()],
        };
        let command = PartitionCommand {
            command: Some(Kind::Append(append)),
        };
        Command::partition(&command, vec![self.part.clone()])
    }
}

/// Repeats a batch on one node after the other, as the broker and its client do between them.
async fn deliver(world: &World, batch: &Batch, random: &mut Random) -> Ended {
    let began = Instant::now();
    let mut unknown = false;
    while began.elapsed() < GIVE_UP {
        if let Some(life) = world.some_life(random)
            && let Some(partition) = life.partition()
            && partition.group().confirm_lead().await
        {
            match timeout(ATTEMPT, attempt(world, partition, batch)).await {
                // Its answer is lost with it.
                Ok(_) if !life.pulse.beats() => unknown = true,
                Ok(Ok(base)) => return Ended::Acknowledged(base),
                Ok(Err(ProposeError::NotLeader { .. })) => {}
                Ok(Err(ProposeError::Indefinite | ProposeError::Stopped)) | Err(_) => {
                    unknown = true
                }
            }
        }
        sleep(Duration::from_millis(20 + random.below(80))).await;
    }
    if unknown {
        Ended::Unknown
    } else {
        Ended::Refused
    }
}

async fn attempt(
    world: &World,
    partition: &PartitionGroup,
    batch: &Batch,
) -> Result<u64, ProposeError> {
    let proposal = partition.group().propose(batch.command(world)).await?;
    let reply = proposal.wait().await?;
    let outcome = match &reply {
        Reply::Partition(outcomes) => outcomes.first(),
        _ => None,
    };
    match outcome {
        Some(Outcome::Appended { base_offset, .. } | Outcome::Duplicate { base_offset, .. }) => {
            Ok(base_offset.0)
        }
        _ => {
            world.violation(format!("{:?} was answered {reply:?}", batch.header));
            Err(ProposeError::Indefinite)
        }
    }
}

/// Reads from the start until the run is over.
pub(crate) async fn consume(world: Arc<World>, mut random: Random, pause_ms: u64) {
    let mut reader = Reader::new(&world);
    while !world.is_over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(random.below(pause_ms) + 1)).await;
        if let Some(life) = world.some_life(&mut random) {
            reader.poll(&world, &life).await;
        }
    }
}

/// Reads one partition.
pub(crate) struct Reader {
    log: ClientLog,
    next: Offset,
}

impl Reader {
    /// A new client that begins at the start.
    pub(crate) fn new(world: &World) -> Self {
        let log = world.recorder.client();
        log.assign(PARTITION);
        Self {
            log,
            next: Offset(0),
        }
    }

    /// Reads from a node, if it leads. Returns whether the end is reached.
    pub(crate) async fn poll(&mut self, world: &World, life: &Life) -> bool {
        let Some(partition) = life.partition() else {
            return false;
        };
        if !partition.group().confirm_lead().await {
            return false;
        }
        let poll = self.log.poll(PARTITION);
        let end = partition.view().end;
        let read = partition.store().read_batches(self.next, end, POLL_BYTES);
        match read.await {
            Ok(batches) if life.pulse.beats() => {
                let records = batches.iter().flat_map(records).collect();
                if let Some(last) = batches.last() {
                    self.next = last.row.end_offset();
                }
                poll.ok(records);
                self.next >= end
            }
            Err(error) if life.pulse.beats() && !life.disk.failed() => {
                world.violation(format!("{} can not be read: {error}", life.node));
                poll.fail();
                false
            }
            _ => {
                poll.fail();
                false
            }
        }
    }

    /// Says that everything was read.
    pub(crate) fn drained(self) {
        self.log.drained(PARTITION);
    }
}

/// The values of a batch with their offsets.
fn records(batch: &BatchRead) -> Vec<(i64, Value)> {
    let text = String::from_utf8_lossy(&batch.part.bytes);
    let lines = text.lines().take(batch.row.record_count as usize);
    let values = lines.map(|line| line.parse().unwrap_or(Value::FOREIGN));
    let base = i64::try_from(batch.row.base_offset.0).unwrap_or(i64::MAX);
    (base..).zip(values).collect()
}
