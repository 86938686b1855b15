//! Polls, and now and then goes back.

use std::sync::Arc;

use kelda_proto::v1::{FetchRequest, FetchResponse};

use super::{
    Shared,
    servers::{Failure, Servers, attempt},
};
use crate::support::checker::Value;

/// How long a poll waits for records.
const WAIT_MS: i32 = 100;

/// Bytes of a poll, small so that a reading takes many.
const POLL_BYTES: i32 = 16 << 10;

/// A consumer goes back after this many polls.
const POLLS_BETWEEN: usize = 40;

/// How far it goes back at most, so that it does not fall behind for good.
const BACK_MAX: i64 = 500;

/// Polls one partition after the other until the load stops.
pub(super) async fn run(shared: Arc<Shared>, mut servers: Servers) {
    let mut log = shared.recorder.client();
    let mut positions = vec![0; shared.ends.len()];
    let polls = shared.settings.all_partitions().zip(0..).cycle();
    for (number, (partition, at)) in polls.enumerate() {
        if shared.stopped() {
            return;
        }
        tokio::time::sleep(shared.settings.pause).await;
        if number % POLLS_BETWEEN == POLLS_BETWEEN - 1 {
            // Somewhere else each time, and the same in each run.
            let back = i64::try_from(number).unwrap_or(0) * 37 % BACK_MAX;
            positions[at] = (positions[at] - back).max(0);
            log.assign(partition);
        }
        if number % (POLLS_BETWEEN * 10) == POLLS_BETWEEN * 10 - 1 {
            log = log.crash();
            positions.fill(0);
        }
        let request = FetchRequest {
            max_wait_ms: WAIT_MS,
            max_bytes: POLL_BYTES,
            ..fetch(&shared, partition, positions[at])
        };
        let mut service = servers.consume();
        let poll = log.poll(partition);
        match attempt(shared.settings.attempt, service.fetch(request)).await {
            Ok(response) => {
                positions[at] = response.next_offset;
                poll.ok(records(response));
            }
            Err(status) => {
                poll.fail();
                if Failure::of(&status) == Failure::Wrong {
                    let from = positions[at];
                    shared.refused(format!("fetch of {partition} from {from}: {status:?}"));
                }
                servers.next().await;
            }
        }
    }
}

/// Asks for a partition from an offset on.
pub(super) fn fetch(shared: &Shared, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        topic: shared.settings.topic.clone(),
        partition,
        offset,
        ..Default::default()
    }
}

/// Offsets and values of what came.
pub(super) fn records(response: FetchResponse) -> Vec<(i64, Value)> {
    let records = response.records.into_iter().map(|consumed| {
        let value = consumed.record.and_then(|record| record.value);
        let text = String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        let value = text.split(' ').next().and_then(|name| name.parse().ok());
        (consumed.offset, value.unwrap_or(Value::FOREIGN))
    });
    records.collect()
}
