//! The last reading, when no fault is injected any more: everything, from start to end.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

use tonic::Status;

use super::{
    Shared, consumer,
    servers::{Servers, attempt},
};
use crate::support::{PATIENCE, checker::ClientLog};

/// Reads all partitions through one node.
pub(super) async fn run(shared: &Shared, address: SocketAddr) {
    let log = shared.recorder.client();
    let mut servers = Servers::new(&[address]);
    for partition in shared.settings.all_partitions() {
        log.assign(partition);
        partition_to_end(shared, &mut servers, &log, partition).await;
        log.drained(partition);
    }
}

async fn partition_to_end(shared: &Shared, servers: &mut Servers, log: &ClientLog, partition: i32) {
    let acknowledged = shared.end(partition).load(Ordering::Relaxed);
    let mut offset = 0;
    let mut progressed = Instant::now();
    loop {
        let request = consumer::fetch(shared, partition, offset);
        let mut service = servers.consume();
        let poll = log.poll(partition);
        let answer = attempt(shared.settings.attempt, service.fetch(request)).await;
        let response = match answer {
            Ok(response) => response,
            Err(status) => {
                poll.fail();
                assert_patient(progressed, partition, offset, &status);
                servers.next().await;
                continue;
            }
        };
        let end = response.end_offset;
        if response.next_offset > offset {
            progressed = Instant::now();
        }
        offset = response.next_offset;
        poll.ok(consumer::records(response));
        let is_whole = end >= acknowledged || progressed.elapsed() > shared.settings.whole;
        if offset >= end && is_whole {
            return;
        }
        if offset >= end {
            servers.next().await;
        }
    }
}

fn assert_patient(progressed: Instant, partition: i32, offset: i64, status: &Status) {
    let waited = progressed.elapsed();
    assert!(
        waited < PATIENCE,
        "partition {partition} can not be read from {offset}: {status:?}"
    );
}
