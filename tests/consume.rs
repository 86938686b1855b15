//! Consume streams: starts, ends, heartbeats, gaps, and slow or vanished readers.

mod support;

use std::collections::BTreeMap;

use kelda_proto::{
    batch,
    v1::{
        Boundary, Compression, ConsumeRequest, DeleteRecordsRequest, DeleteTopicRequest,
        ErrorReason, OutOfRangePolicy, PartitionStart, PartitionTrim, ProduceRequest, Record,
        consume_response::{Event, Gap},
        start_position::Position,
    },
};
use support::{
    TestNode, assert_refused, config,
    reader::{Reader, follow, packed, positions, start, to_end, values},
    record,
    wait::{eventually, soon},
};
use tonic::Code;

/// Most that may be read ahead for a stream whose client does not read: what is queued on both sides of the
/// connection, not what there is.
const READ_AHEAD_MAX: f64 = 10e6;

async fn node_with(values: &[&str]) -> TestNode {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for value in values {
        node.produce_values("orders", &[value]).await;
    }
    node
}

async fn produce_to(node: &TestNode, partition: i32, records: Vec<Record>) {
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(partition),
        records,
        ..Default::default()
    };
    node.produce().produce(request).await.expect("produced");
}

async fn delete_before(node: &TestNode, before_offset: i64) {
    let request = DeleteRecordsRequest {
        topic: "orders".to_owned(),
        partitions: vec![PartitionTrim {
            partition: 0,
            before_offset,
        }],
    };
    node.topics()
        .delete_records(request)
        .await
        .expect("deleted");
}

#[tokio::test]
async fn a_stream_starts_where_it_is_told_and_stops_at_the_end() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    // Times are the producers' and not in order.
    for (value, timestamp_ms) in [("a", 100), ("b", 300), ("c", 200), ("d", 400)] {
        let record = Record {
            timestamp_ms,
            ..record(value)
        };
        produce_to(&node, 0, vec![record]).await;
    }
    let earliest = Position::Boundary(Boundary::Earliest.into());
    let latest = Position::Boundary(Boundary::Latest.into());
    for (position, expected) in [
        (None, 0),
        (Some(earliest), 0),
        (Some(latest), 4),
        (Some(Position::Offset(0)), 0),
        (Some(Position::Offset(3)), 3),
        (Some(Position::Offset(4)), 4),
        (Some(Position::TimestampMs(0)), 0),
        (Some(Position::TimestampMs(150)), 1),
        (Some(Position::TimestampMs(300)), 1),
        (Some(Position::TimestampMs(301)), 3),
        (Some(Position::TimestampMs(400)), 3),
        (Some(Position::TimestampMs(401)), 4),
    ] {
        let request = ConsumeRequest {
            start: position.and_then(start),
            ..to_end("orders")
        };
        let opened = Reader::open(&node.channel, request).await;
        let mut reader = opened.expect("opened");
        let started = positions(&reader.started.positions);
        assert_eq!(started, [(0, expected, 4)], "{position:?}");
        assert_eq!(reader.started.heartbeat_interval_ms, 100);
        let mut seen = Vec::new();
        let end = loop {
            match reader.event().await.expect("no error") {
                Some(Event::Records(records)) => {
                    assert_eq!(records.records[0].offset, expected + seen.len() as i64);
                    seen.extend(values(&records));
                    assert_eq!(records.next_offset, expected + seen.len() as i64);
                    assert_eq!(records.end_offset, 4);
                }
                Some(Event::End(end)) => break end,
                other => panic!("{other:?}"),
            }
        };
        let all = ["a", "b", "c", "d"];
        assert_eq!(seen, all[usize::try_from(expected).expect("small")..]);
        assert_eq!(positions(&end.positions), [(0, 4, 4)]);
        assert_eq!(reader.event().await.expect("OK behind the end"), None);
    }
}

#[tokio::test]
async fn the_end_is_where_it_was_when_the_stream_started() {
    let node = node_with(&["a", "b"]).await;
    let large = vec![record(&"x".repeat(900_000))];
    for _ in 0..4 {
        produce_to(&node, 0, large.clone()).await;
    }
    let opened = Reader::open(&node.channel, to_end("orders")).await;
    let mut reader = opened.expect("opened");
    for _ in 0..4 {
        produce_to(&node, 0, large.clone()).await;
    }
    let mut next_offset = 0;
    let end = loop {
        match reader.event().await.expect("no error") {
            Some(Event::Records(records)) => next_offset = records.next_offset,
            Some(Event::Heartbeat(_)) => {}
            Some(Event::End(end)) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next_offset, 6);
    assert_eq!(end.positions[0].next_offset, 6);
}

#[tokio::test]
async fn a_stream_that_follows_gets_new_records_as_they_come() {
    let node = node_with(&["a"]).await;
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let mut reader = opened.expect("opened");
    assert_eq!(reader.values().await, ["a"]);
    for value in ["b", "c", "d"] {
        node.produce_values("orders", &[value]).await;
        assert_eq!(reader.values().await, [value]);
    }
    let latest = ConsumeRequest {
        start: start(Position::Boundary(Boundary::Latest.into())),
        ..follow("orders")
    };
    let opened = Reader::open(&node.channel, latest).await;
    let mut from_now_on = opened.expect("opened");
    node.produce_values("orders", &["e"]).await;
    assert_eq!(from_now_on.values().await, ["e"]);
}

#[tokio::test]
async fn an_idle_stream_tells_its_positions_at_every_heartbeat() {
    let node = node_with(&["a"]).await;
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let mut reader = opened.expect("opened");
    assert_eq!(reader.values().await, ["a"]);
    for at in 1..3 {
        for _ in 0..2 {
            let started = std::time::Instant::now();
            let Some(Event::Heartbeat(heartbeat)) = reader.event().await.expect("open") else {
                panic!("nothing but heartbeats is to come");
            };
            // Far below the interval of a stream that does not say, with room for a busy machine.
            assert!(started.elapsed().as_secs() < 5);
            assert_eq!(positions(&heartbeat.positions), [(0, at, at)]);
        }
        node.produce_values("orders", &["b"]).await;
        assert_eq!(reader.values().await, ["b"]);
    }
}

#[tokio::test]
async fn several_partitions_come_each_from_its_own_start_and_in_order() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 4).await;
    for partition in 0..4 {
        for number in 0..20 {
            let value = format!("{partition}/{number}");
            produce_to(&node, partition, vec![record(&value)]).await;
        }
    }
    let from = |partition, position: Option<Position>| PartitionStart {
        partition,
        start: position.and_then(start),
    };
    let latest = Position::Boundary(Boundary::Latest.into());
    let request = ConsumeRequest {
        partitions: vec![
            from(3, Some(Position::Offset(5))),
            from(0, None),
            from(2, Some(latest)),
        ],
        start: start(Position::Offset(18)),
        ..to_end("orders")
    };
    let expected = [(0, 18), (2, 20), (3, 5)];
    let opened = Reader::open(&node.channel, request).await;
    let mut reader = opened.expect("opened");
    let mut started = positions(&reader.started.positions);
    started.sort_unstable();
    assert_eq!(started, expected.map(|(partition, at)| (partition, at, 20)));
    let mut next = BTreeMap::from(expected);
    let end = loop {
        match reader.event().await.expect("no error") {
            Some(Event::Records(records)) => {
                let next = next.get_mut(&records.partition).expect("was asked for");
                for value in values(&records) {
                    assert_eq!(value, format!("{}/{next}", records.partition));
                    *next += 1;
                }
                assert_eq!(records.next_offset, *next);
            }
            Some(Event::End(end)) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert!(next.values().all(|next| *next == 20), "{next:?}");
    let mut ended = positions(&end.positions);
    ended.sort_unstable();
    assert_eq!(ended, [(0, 20, 20), (2, 20, 20), (3, 20, 20)]);

    // None named: all that there are.
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let started = opened.expect("opened").started;
    let mut partitions: Vec<_> = started.positions.iter().map(|at| at.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3]);
}

#[tokio::test]
async fn batches_come_untouched_and_messages_keep_to_their_size() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let mut sent = Vec::new();
    for number in 0..20 {
        let records: Vec<_> = (0..10)
            .map(|n| record(&format!("{number} {n} {}", "x".repeat(1000))))
            .collect();
        let packed = batch::pack(&records, Compression::Unspecified).expect("packed");
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            batch: Some(packed.clone()),
            ..Default::default()
        };
        node.produce().produce(request).await.expect("produced");
        sent.push((number * 10, packed));
    }
    let request = ConsumeRequest {
        max_message_bytes: 25_000,
        ..packed(to_end("orders"))
    };
    let opened = Reader::open(&node.channel, request).await;
    let mut reader = opened.expect("opened");
    let mut seen = Vec::new();
    while let Some(Event::Records(records)) = reader.event().await.expect("no error") {
        assert!(records.records.is_empty(), "in one form only");
        assert!((1..=3).contains(&records.batches.len()), "about 25 kB");
        let batches = records.batches.into_iter();
        seen.extend(batches.map(|stored| (stored.base_offset, stored.batch.expect("given"))));
    }
    assert!(seen == sent, "the batches are those that were produced");
}

#[tokio::test]
async fn a_start_outside_of_the_log_fails_or_goes_where_it_is_told() {
    let node = node_with(&["a", "b", "c", "d"]).await;
    delete_before(&node, 2).await;
    for (from, policy, to) in [
        (0, OutOfRangePolicy::Earliest, Some(2)),
        (0, OutOfRangePolicy::Latest, Some(4)),
        (9, OutOfRangePolicy::Earliest, Some(2)),
        (9, OutOfRangePolicy::Latest, Some(4)),
        (1, OutOfRangePolicy::Fail, None),
        (5, OutOfRangePolicy::Unspecified, None),
    ] {
        let request = ConsumeRequest {
            start: start(Position::Offset(from)),
            on_out_of_range: policy.into(),
            ..to_end("orders")
        };
        let opened = Reader::open(&node.channel, request).await;
        let Some(to) = to else {
            let refused = opened.err().expect("out of range");
            let reason = ErrorReason::OffsetOutOfRange;
            let metadata = assert_refused(&refused, Code::OutOfRange, reason);
            assert_eq!(metadata["offset"], from.to_string());
            assert_eq!(metadata["log_start_offset"], "2");
            assert_eq!(metadata["end_offset"], "4");
            continue;
        };
        let mut reader = opened.expect("opened");
        let gap = Gap {
            partition: 0,
            from_offset: from,
            to_offset: to,
        };
        assert_eq!(reader.news().await.expect("open"), Some(Event::Gap(gap)));
        if to < 4 {
            assert_eq!(reader.records().await.records[0].offset, to);
        }
    }
}

/// Produces this many packed batches of about a megabyte each.
async fn produce_megabytes(node: &TestNode, count: usize) {
    let records = vec![record(&"x".repeat(100_000)); 10];
    let packed = batch::pack(&records, Compression::Unspecified).expect("packed");
    for _ in 0..count {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            batch: Some(packed.clone()),
            ..Default::default()
        };
        node.produce().produce(request).await.expect("produced");
    }
}

async fn fetched_bytes(node: &TestNode) -> f64 {
    let bytes = node.metric("kelda_fetch_bytes_total").await;
    bytes.expect("it is counted")
}

#[tokio::test]
async fn a_slow_reader_stops_the_broker_from_reading_on_and_misses_nothing() {
    const MEGABYTES: usize = 30;
    let node = node_with(&[]).await;
    produce_megabytes(&node, MEGABYTES).await;
    let channel = support::connect(node.node.address()).await;
    let opened = Reader::open(&channel, packed(to_end("orders"))).await;
    let mut slow = opened.expect("opened");

    // While another stream reads everything, the slow one had as much time.
    let opened = Reader::open(&node.channel, packed(to_end("orders"))).await;
    let mut fast = opened.expect("opened");
    let mut bytes = 0;
    while let Some(Event::Records(records)) = fast.news().await.expect("no error") {
        let batches = records.batches.iter().flat_map(|stored| &stored.batch);
        bytes += batches.map(|batch| batch.records.len()).sum::<usize>();
    }
    assert!(bytes > MEGABYTES * 1_000_000);
    let ahead = fetched_bytes(&node).await - bytes as f64;
    assert!(ahead < READ_AHEAD_MAX, "{ahead} bytes were read ahead");

    let mut next_offset = 0;
    while let Some(Event::Records(records)) = slow.news().await.expect("no error") {
        assert_eq!(records.batches[0].base_offset, next_offset);
        next_offset = records.next_offset;
    }
    assert_eq!(next_offset, MEGABYTES as i64 * 10);
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_is_told_of_the_gap() {
    const MEGABYTES: usize = 20;
    let node = node_with(&[]).await;
    produce_megabytes(&node, MEGABYTES).await;
    for policy in [OutOfRangePolicy::Earliest, OutOfRangePolicy::Fail] {
        let channel = support::connect(node.node.address()).await;
        let request = ConsumeRequest {
            on_out_of_range: policy.into(),
            ..packed(follow("orders"))
        };
        let opened = Reader::open(&channel, request).await;
        let mut reader = opened.expect("opened");
        let log_start = reader.started.positions[0].next_offset;
        let deleted = reader.started.positions[0].end_offset - 10;
        delete_before(&node, deleted).await;
        let mut next_offset = log_start;
        loop {
            match reader.news().await {
                Ok(Some(Event::Records(records))) => {
                    assert_eq!(records.batches[0].base_offset, next_offset);
                    next_offset = records.next_offset;
                }
                Ok(Some(Event::Gap(gap))) => {
                    assert_eq!(policy, OutOfRangePolicy::Earliest);
                    assert_eq!((gap.from_offset, gap.to_offset), (next_offset, deleted));
                    assert_eq!(reader.records().await.batches[0].base_offset, deleted);
                    break;
                }
                Err(status) => {
                    assert_eq!(policy, OutOfRangePolicy::Fail);
                    let reason = ErrorReason::OffsetOutOfRange;
                    let metadata = assert_refused(&status, Code::OutOfRange, reason);
                    assert_eq!(metadata["log_start_offset"], deleted.to_string());
                    break;
                }
                other => panic!("{other:?}"),
            }
            assert!(next_offset < deleted, "what is deleted is not served");
        }
        produce_megabytes(&node, MEGABYTES).await;
    }
}

#[tokio::test]
async fn a_cancelled_stream_gives_its_permit_back() {
    let node = TestNode::start(kelda_server::config::Config {
        streams_max: 1,
        ..config(None)
    })
    .await;
    node.create_topic("orders", 1).await;
    let first = Reader::open(&node.channel, follow("orders")).await;
    let first = first.expect("opened");
    let refused = Reader::open(&node.channel, follow("orders")).await;
    let status = refused.err().expect("there is one stream already");
    let metadata = assert_refused(&status, Code::ResourceExhausted, ErrorReason::Overloaded);
    assert!(metadata.contains_key("limit"), "{metadata:?}");
    let retry = tonic_types::StatusExt::get_details_retry_info(&status);
    assert!(retry.and_then(|retry| retry.retry_delay).is_some());

    drop(first);
    let mut second = eventually("the permit is free", async || {
        Reader::open(&node.channel, follow("orders")).await.ok()
    })
    .await;
    node.produce_values("orders", &["a"]).await;
    assert_eq!(second.values().await, ["a"]);
    let open = "kelda_open_streams{rpc_method=\"kelda.v1.ConsumeService/Consume\"}";
    assert_eq!(node.metric(open).await, Some(1.0));
    drop(second);
    eventually("no stream is open", async || {
        (node.metric(open).await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_an_error_when_its_topic_is_deleted() {
    let node = node_with(&["a"]).await;
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let mut reader = opened.expect("opened");
    assert_eq!(reader.values().await, ["a"]);
    let delete = DeleteTopicRequest {
        name: "orders".to_owned(),
    };
    node.topics().delete_topic(delete).await.expect("deleted");
    let status = reader.news().await.expect_err("the topic is gone");
    let metadata = assert_refused(&status, Code::NotFound, ErrorReason::UnknownTopic);
    assert_eq!(metadata["topic"], "orders");
}

#[tokio::test]
async fn a_stream_ends_with_an_error_when_the_node_stops_whether_it_is_read_or_not() {
    let node = node_with(&[]).await;
    produce_megabytes(&node, 20).await;
    let idle = ConsumeRequest {
        start: start(Position::Boundary(Boundary::Latest.into())),
        ..follow("orders")
    };
    let opened = Reader::open(&node.channel, idle).await;
    let mut idle = opened.expect("opened");
    let channel = support::connect(node.node.address()).await;
    let opened = Reader::open(&channel, packed(follow("orders"))).await;
    let mut unread = opened.expect("opened");
    let stopping = tokio::spawn(node.node.shutdown());
    for reader in [&mut idle, &mut unread] {
        let status = loop {
            match reader.news().await {
                Ok(Some(Event::Records(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => break status,
            }
        };
        assert_refused(&status, Code::Unavailable, ErrorReason::NotReady);
    }
    soon("the node stops", stopping)
        .await
        .expect("it does not panic");
}
