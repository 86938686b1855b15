//! Requests that never end: what has come of them takes a bounded part of the memory, and what is more is refused.

use futures::{StreamExt as _, stream::FuturesUnordered};
use kelda_proto::v1::{self, ErrorReason};
use kelda_server::config::Config;
use prost::bytes::Bytes;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{
    overload::{assert_healthy, assert_overloaded},
    transport::{PRODUCE, PRODUCE_STREAM, begin, plain_connection, status},
};
use crate::support::{
    PATIENCE, TestNode, assert_refused, config,
    orders::{self, Orders, TOPIC},
    record,
};

const MIB: usize = 1 << 20;
/// Room for three half requests, of which a connection may have two.
const NODE_BYTES: usize = 48 * MIB;
const CONNECTION_BYTES: usize = 32 * MIB;

/// Announces 15 MiB and has 14 of them.
fn half() -> Bytes {
    let mut body = vec![0; 14 * MIB];
    let announced = u32::try_from(15 * MIB).expect("small");
    body[1..5].copy_from_slice(&announced.to_be_bytes());
    body.into()
}

/// Memory that this process has, clients included, where the system tells.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Sends half a request on so many streams of each of the connections, and returns when only so many are left that
/// are not refused, all others with this limit. The connections live as long as what is returned.
async fn flood(
    node: &TestNode,
    connections: usize,
    streams: usize,
    left: usize,
    limit: usize,
) -> impl Sized + use<> {
    let half = half();
    let mut kept = Vec::new();
    let mut answers = FuturesUnordered::new();
    for _ in 0..connections {
        let connection = plain_connection(node).await;
        for number in 0..streams {
            let path = [PRODUCE, PRODUCE_STREAM][number % 2];
            let (response, stream) = begin(&connection, path, &[], half.clone(), false).await;
            kept.push(stream);
            answers.push(status(response));
        }
        // The requests keep it open.
        drop(connection);
    }
    while answers.len() > left {
        let answer = timeout(PATIENCE, answers.next()).await;
        let status = answer.expect("others must be refused").expect("an answer");
        assert_overloaded(&status, &limit.to_string());
    }
    (kept, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_take_bounded_memory_and_are_refused_beyond_it() {
    let node = TestNode::start(Config {
        receive_bytes: NODE_BYTES,
        connection_receive_bytes: CONNECTION_BYTES,
        ..config(None)
    })
    .await;
    let mut orders = Orders::create_on(node).await;
    let before = resident_bytes();
    let one_connection = flood(&orders.node, 1, 6, 2, CONNECTION_BYTES).await;
    // These send more than half a GiB.
    let many_connections = flood(&orders.node, 20, 2, 1, NODE_BYTES).await;
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let grown = after.saturating_sub(before) / MIB;
        assert!(grown < 300, "{grown} MiB");
    }
    // Small requests need no room.
    assert_healthy(&orders.node.channel).await;
    orders.check().await;
    drop((one_connection, many_connections));
    // Their room comes back as the node notices that they are gone.
    let all_that_fits = || v1::ProduceRequest {
        records: vec![record(&"x".repeat(MIB - 100)); 15],
        ..orders::good()
    };
    let taken = async {
        loop {
            let status: Status = orders.refused(all_that_fits()).await;
            if status.code() == Code::InvalidArgument {
                break status;
            }
            let limit = NODE_BYTES.to_string();
            assert_overloaded(&status, &limit);
        }
    };
    let status = timeout(PATIENCE, taken).await.expect("there is room again");
    // It was read to its end: what is wrong with it is what the topic does not allow.
    assert_refused(&status, Code::InvalidArgument, ErrorReason::BatchTooLarge);
    let value = "y".repeat(MIB / 2);
    orders.node.produce_values(TOPIC, &[&value]).await;
    orders.note(&value);
    orders.check().await;
}
