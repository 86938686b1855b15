//! Sends with a session, and repeats until it is acknowledged.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kelda_proto::v1::{ProduceRequest, ProducerSession};

use super::{
    Settings, Shared,
    servers::{Failure, Servers, attempt},
};
use crate::support::{
    checker::{ClientLog, Value},
    record,
};

/// Pause of a probe: how exactly it tells a gap.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// What a producer is there for.
pub(super) struct Role {
    partitions: Range<i32>,
    batch_records_max: u32,
    pause: Duration,
    probe: Option<usize>,
}

impl Role {
    /// Makes load.
    pub(super) fn load(settings: &Settings) -> Self {
        Self {
            partitions: settings.all_partitions(),
            batch_records_max: settings.batch_records_max,
            pause: settings.pause,
            probe: None,
        }
    }

    /// Tells how long partition 0 takes nothing.
    pub(super) fn probe(number: usize) -> Self {
        Self {
            partitions: 0..1,
            batch_records_max: 1,
            pause: PROBE_PAUSE,
            probe: Some(number),
        }
    }
}

/// How a send ended.
enum Ended {
    /// Acknowledged with this first offset, for an attempt that began then.
    Acknowledged(i64, Instant),
    /// It certainly had no effect.
    Refused,
    Unknown,
}

/// Sends to one partition after the other until the load stops.
pub(super) async fn run(shared: Arc<Shared>, mut servers: Servers, role: Role) {
    let mut log = shared.recorder.client();
    let mut sequences = vec![0_i64; shared.ends.len()];
    let mut count = 0;
    for (partition, sequence) in role.partitions.clone().zip(0..).cycle() {
        if shared.stopped() {
            return;
        }
        tokio::time::sleep(role.pause).await;
        count = count % role.batch_records_max + 1;
        let values = log.values(count);
        let request = request(&shared, &log, partition, sequences[sequence], &values);
        let send = log.send(partition, &values);
        match deliver(&shared, &mut servers, request).await {
            Ended::Acknowledged(offset, began) => {
                send.ok(Some(offset));
                if let Some(probe) = role.probe {
                    shared.gap.acknowledged(probe, began);
                }
                let end = offset + i64::from(count);
                shared.end(partition).fetch_max(end, Ordering::Relaxed);
                sequences[sequence] += 1;
                continue;
            }
            Ended::Refused => send.fail(),
            Ended::Unknown => send.info(),
        }
        // What this session sends next could overtake what it has given up.
        log = log.crash();
        sequences.fill(0);
    }
}

fn request(
    shared: &Shared,
    log: &ClientLog,
    partition: i32,
    sequence: i64,
    values: &[Value],
) -> ProduceRequest {
    let padding = "-".repeat(shared.settings.padding_bytes);
    let records = values
        .iter()
        .map(|value| record(&format!("{value} {padding}")));
    ProduceRequest {
        topic: shared.settings.topic.clone(),
        partition: Some(partition),
        records: records.collect(),
        session: Some(ProducerSession {
            id: format!("producer {}", log.client()),
            epoch: 1,
            sequence,
        }),
        ..Default::default()
    }
}

/// Repeats a request on one node after the other.
async fn deliver(shared: &Shared, servers: &mut Servers, request: ProduceRequest) -> Ended {
    let started = Instant::now();
    let mut unknown = false;
    while started.elapsed() < shared.settings.give_up {
        let mut service = servers.produce();
        let began = Instant::now();
        let call = service.produce(request.clone());
        let status = match attempt(shared.settings.attempt, call).await {
            Ok(response) => match &response.partitions[..] {
                [ack] => {
                    let repeats = u64::from(ack.duplicate);
                    shared.repeats.fetch_add(repeats, Ordering::Relaxed);
                    return Ended::Acknowledged(ack.base_offset, began);
                }
                other => panic!("one partition is asked for: {other:?}"),
            },
            Err(status) => status,
        };
        match Failure::of(&status) {
            Failure::Retry => {}
            Failure::Unknown => unknown = true,
            Failure::Wrong => {
                let session = &request.session;
                shared.refused(format!("produce of {session:?}: {status:?}"));
                break;
            }
        }
        servers.next().await;
    }
    if unknown {
        Ended::Unknown
    } else {
        Ended::Refused
    }
}
