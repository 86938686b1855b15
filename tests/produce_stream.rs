//! Produce streams: order, acks, errors, and the end.

mod support;

use std::collections::BTreeSet;

use kelda_proto::{
    batch,
    v1::{
        Acks, Compression, ErrorReason,
        produce_stream_request::{Append, Hello},
    },
};
use support::{
    TestNode,
    appender::{Appender, hello, outcome},
    assert_refused, record,
};
use tonic::Code;

fn append(correlation_id: u64, value: &str) -> Append {
    Append {
        correlation_id,
        partition: Some(0),
        records: vec![record(value)],
        ..Default::default()
    }
}

#[tokio::test]
async fn appends_take_effect_in_their_order_and_each_is_acknowledged_once() {
    const APPENDS: usize = 1000;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 2).await;
    let mut stream = Appender::open(&node, hello("orders"))
        .await
        .expect("opened");
    assert_eq!(stream.welcome.partition_count, 2);
    let limits = stream.welcome.limits.expect("limits are told");
    assert_eq!(limits.record_bytes_max, 1 << 20);
    assert_eq!(limits.batch_bytes_max, 8 << 20);
    let window = usize::try_from(stream.welcome.window).expect("a window");
    assert!(window > 1, "appends can be pipelined");

    // Correlation ids are the client's: descending ones show that nothing is made of their order.
    let id = |number: usize| u64::MAX - number as u64;
    let number = |id: u64| usize::try_from(u64::MAX - id).expect("one of ours");
    let mut sent = 0;
    let mut acknowledged = BTreeSet::new();
    while acknowledged.len() < APPENDS {
        while sent < APPENDS && sent - acknowledged.len() < window {
            // Sizes differ, and some are packed, so that some appends are joined and others are not.
            let value = format!("{sent} {}", "x".repeat(sent % 7 * 800));
            let mut append = append(id(sent), &value);
            if sent % 5 == 0 {
                let packed = batch::pack(&append.records, Compression::Lz4);
                append.batch = Some(packed.expect("packed"));
                append.records.clear();
            }
            stream.send(append).await;
            sent += 1;
        }
        let ack = stream.ack().await.expect("open").expect("an ack");
        let number = number(ack.correlation_id);
        let response = outcome(ack).expect("appended");
        assert_eq!(response.acks(), Acks::Quorum);
        assert_eq!(response.partitions.len(), 1);
        assert_eq!(response.partitions[0].base_offset, number as i64);
        assert!(
            acknowledged.insert(number),
            "{number} was acknowledged once"
        );
    }
    let values = node.values("orders", 0, 0).await;
    let numbers: Vec<usize> = values
        .iter()
        .filter_map(|value| value.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(numbers, (0..APPENDS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_the_client_closes_ends_with_ok_behind_the_remaining_acks() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let mut stream = Appender::open(&node, hello("orders"))
        .await
        .expect("opened");
    for id in 0..100 {
        stream.send(append(id, "x")).await;
    }
    stream.close();
    let mut acknowledged = BTreeSet::new();
    while let Some(ack) = stream.ack().await.expect("it ends with OK") {
        acknowledged.insert(ack.correlation_id);
        outcome(ack).expect("appended");
    }
    assert_eq!(acknowledged, (0..100).collect());
    assert_eq!(node.values("orders", 0, 0).await.len(), 100);
}

#[tokio::test]
async fn an_append_that_fails_is_told_in_its_ack_and_the_stream_goes_on() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 2).await;
    let mut stream = Appender::open(&node, hello("orders"))
        .await
        .expect("opened");
    let mut bad_crc = batch::pack(&[record("x")], Compression::Zstd).expect("packed");
    bad_crc.crc32c ^= 1;
    let bad = [
        (
            Append {
                partition: Some(2),
                ..append(0, "x")
            },
            ErrorReason::UnknownPartition,
        ),
        (
            Append {
                expected_offset: Some(7),
                ..append(1, "x")
            },
            ErrorReason::ExpectedOffsetMismatch,
        ),
        (
            Append {
                records: vec![],
                ..append(2, "")
            },
            ErrorReason::InvalidField,
        ),
        (
            Append {
                records: vec![],
                batch: Some(bad_crc),
                ..append(3, "")
            },
            ErrorReason::ChecksumMismatch,
        ),
        (
            append(4, &"x".repeat((1 << 20) + 1)),
            ErrorReason::RecordTooLarge,
        ),
    ];
    for (id, (bad, reason)) in (0..).zip(bad) {
        stream.send(bad).await;
        let ack = stream.ack().await.expect("open").expect("an ack");
        assert_eq!(ack.correlation_id, id);
        assert_eq!(outcome(ack), Err(reason));
        stream.send(append(1000 + id, "good")).await;
        let ack = stream.ack().await.expect("open").expect("an ack");
        assert_eq!(ack.correlation_id, 1000 + id);
        let response = outcome(ack).expect("appended");
        assert_eq!(response.partitions[0].base_offset, id.cast_signed());
    }
}

#[tokio::test]
async fn a_stream_without_acks_tells_no_offsets() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let unacknowledged = Hello {
        acks: Acks::None.into(),
        ..hello("orders")
    };
    let mut stream = Appender::open(&node, unacknowledged).await.expect("opened");
    stream.send(append(9, "x")).await;
    stream.close();
    let ack = stream.ack().await.expect("open").expect("an ack");
    assert_eq!(ack.correlation_id, 9);
    let response = outcome(ack).expect("taken");
    assert_eq!(response.acks(), Acks::None);
    assert_eq!(response.partitions[0].base_offset, -1);
    assert!(stream.ack().await.expect("it ends with OK").is_none());
}

#[tokio::test]
async fn a_stream_to_an_unknown_topic_is_refused() {
    let node = TestNode::ephemeral().await;
    let refused = Appender::open(&node, hello("orders")).await;
    let status = refused.err().expect("there is no such topic");
    assert_refused(&status, Code::NotFound, ErrorReason::UnknownTopic);
}

#[tokio::test]
async fn a_node_that_stops_ends_its_streams_behind_their_acks() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let mut stream = Appender::open(&node, hello("orders"))
        .await
        .expect("opened");
    stream.send(append(1, "x")).await;
    let ack = stream.ack().await.expect("open").expect("an ack");
    outcome(ack).expect("appended");
    let stopping = tokio::spawn(node.node.shutdown());
    let status = stream.ack().await.expect_err("it can not go on");
    assert_refused(&status, Code::Unavailable, ErrorReason::NotReady);
    support::wait::soon("the node stops", stopping)
        .await
        .expect("it does not panic");
}
