//! Fetch: the long poll.

mod support;

use std::time::{Duration, Instant};

use kelda_proto::{
    batch,
    v1::{Compression, ErrorReason, FetchRequest, FetchResponse, ProduceRequest, RecordFormat},
};
use support::{TestNode, assert_refused, record, wait::soon};
use tonic::{Code, Status};

/// A wait that no test sits out.
const LONG_MS: i32 = 60_000;

fn request(offset: i64) -> FetchRequest {
    FetchRequest {
        topic: "orders".to_owned(),
        offset,
        ..Default::default()
    }
}

async fn fetch(node: &TestNode, request: FetchRequest) -> Result<FetchResponse, Status> {
    let mut service = node.consume();
    let answer = soon("the answer to a fetch", service.fetch(request)).await;
    answer.map(tonic::Response::into_inner)
}

fn offsets(fetched: &FetchResponse) -> Vec<i64> {
    fetched.records.iter().map(|record| record.offset).collect()
}

async fn node_with(values: &[&str]) -> TestNode {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for value in values {
        node.produce_values("orders", &[value]).await;
    }
    node
}

#[tokio::test]
async fn a_fetch_at_the_end_without_a_wait_answers_at_once_without_records() {
    let node = node_with(&["a", "b"]).await;
    let fetched = fetch(&node, request(2)).await.expect("the end is in range");
    assert!(fetched.records.is_empty() && fetched.batches.is_empty());
    assert_eq!(
        (
            fetched.next_offset,
            fetched.log_start_offset,
            fetched.end_offset
        ),
        (2, 0, 2)
    );
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_a_produce() {
    let node = node_with(&["a"]).await;
    let waiting = FetchRequest {
        max_wait_ms: LONG_MS,
        ..request(1)
    };
    let mut waiting = Box::pin(fetch(&node, waiting));
    assert!(futures::poll!(&mut waiting).is_pending());
    node.produce_values("orders", &["b"]).await;
    // Its wait is longer than the patience of the test.
    let fetched = waiting.await.expect("fetched");
    assert_eq!(offsets(&fetched), [1]);
    assert_eq!((fetched.next_offset, fetched.end_offset), (2, 2));
}

#[tokio::test]
async fn a_fetch_waits_as_long_as_it_says_and_answers_with_what_there_is() {
    let node = node_with(&["a"]).await;
    for (offset, seen) in [(1, &[][..]), (0, &[0][..])] {
        let started = Instant::now();
        let waiting = FetchRequest {
            max_wait_ms: 150,
            min_bytes: 1000,
            ..request(offset)
        };
        let fetched = fetch(&node, waiting).await.expect("fetched");
        assert!(started.elapsed() >= Duration::from_millis(150));
        assert_eq!(offsets(&fetched), seen, "from {offset}");
        assert_eq!(fetched.next_offset, 1);
    }
}

#[tokio::test]
async fn a_fetch_waits_for_min_bytes() {
    let node = node_with(&["a"]).await;
    let waiting = FetchRequest {
        max_wait_ms: LONG_MS,
        min_bytes: 3000,
        ..request(0)
    };
    let mut waiting = Box::pin(fetch(&node, waiting));
    for round in 0..2 {
        assert!(futures::poll!(&mut waiting).is_pending(), "round {round}");
        node.produce_values("orders", &["x".repeat(1000).as_str()])
            .await;
    }
    assert!(futures::poll!(&mut waiting).is_pending());
    node.produce_values("orders", &["x".repeat(1000).as_str()])
        .await;
    let fetched = waiting.await.expect("fetched");
    assert_eq!(offsets(&fetched), [0, 1, 2, 3]);
    // Nothing is there that makes it wait again.
    let again = FetchRequest {
        max_wait_ms: LONG_MS,
        min_bytes: 3000,
        ..request(0)
    };
    assert_eq!(
        offsets(&fetch(&node, again).await.expect("fetched")).len(),
        4
    );
}

#[tokio::test]
async fn a_fetch_that_many_small_appends_wake_gets_all_of_them() {
    let node = node_with(&["first"]).await;
    let waiting = FetchRequest {
        max_wait_ms: LONG_MS,
        min_bytes: 20_000,
        ..request(0)
    };
    let mut waiting = Box::pin(fetch(&node, waiting));
    let value = "x".repeat(100);
    for round in 0..150 {
        assert!(futures::poll!(&mut waiting).is_pending(), "round {round}");
        node.produce_values("orders", &[&value]).await;
    }
    node.produce_values("orders", &["y".repeat(10_000).as_str()])
        .await;
    let fetched = waiting.await.expect("fetched");
    assert_eq!(offsets(&fetched), (0..=151).collect::<Vec<_>>());
    assert_eq!((fetched.next_offset, fetched.end_offset), (152, 152));
}

#[tokio::test]
async fn a_fetch_does_not_wait_for_a_batch_that_does_not_fit() {
    let large = "x".repeat(10_000);
    let node = node_with(&[large.as_str(); 2]).await;
    let waiting = FetchRequest {
        max_wait_ms: LONG_MS,
        min_bytes: 15_000,
        max_bytes: 15_000,
        ..request(0)
    };
    let fetched = fetch(&node, waiting).await.expect("fetched");
    assert_eq!(offsets(&fetched), [0]);
    assert_eq!((fetched.next_offset, fetched.end_offset), (1, 2));
}

#[tokio::test]
async fn a_fetch_stops_at_max_bytes_but_returns_at_least_one_batch() {
    let large = "x".repeat(10_000);
    let node = node_with(&[large.as_str(); 6]).await;
    for (max_bytes, most) in [(1, 1), (10_000, 1), (25_000, 3), (0, 6)] {
        let mut offset = 0;
        while offset < 6 {
            let limited = FetchRequest {
                max_bytes,
                ..request(offset)
            };
            let fetched = fetch(&node, limited).await.expect("fetched");
            let seen = offsets(&fetched);
            assert_eq!(seen.first().copied(), Some(offset), "{max_bytes}");
            assert!(seen.len() <= most, "{max_bytes}: {seen:?}");
            offset = fetched.next_offset;
            assert_eq!(seen.last().copied(), Some(offset - 1));
        }
        assert_eq!(offset, 6);
    }
    let fetched = fetch(&node, request(0)).await.expect("fetched");
    assert_eq!(offsets(&fetched).len(), 6, "1 MiB unless it says otherwise");
}

#[tokio::test]
async fn a_fetch_from_the_middle_of_a_batch_gets_the_whole_batch_only_if_it_is_packed() {
    let node = node_with(&[]).await;
    let records: Vec<_> = (0..10).map(|n| record(&n.to_string())).collect();
    let packed = batch::pack(&records, Compression::Gzip).expect("packed");
    let produce = ProduceRequest {
        topic: "orders".to_owned(),
        batch: Some(packed.clone()),
        ..Default::default()
    };
    node.produce().produce(produce).await.expect("produced");

    let fetched = fetch(&node, request(7)).await.expect("fetched");
    assert_eq!(offsets(&fetched), [7, 8, 9]);
    assert!(fetched.batches.is_empty());
    let as_batches = FetchRequest {
        format: RecordFormat::Batches.into(),
        ..request(7)
    };
    let fetched = fetch(&node, as_batches).await.expect("fetched");
    assert!(fetched.records.is_empty());
    assert_eq!(fetched.batches.len(), 1);
    assert_eq!(fetched.batches[0].base_offset, 0);
    assert_eq!(fetched.batches[0].batch, Some(packed));
    assert_eq!(fetched.next_offset, 10);
}

#[tokio::test]
async fn an_offset_outside_of_the_log_is_refused_with_its_bounds() {
    let node = node_with(&["a", "b", "c"]).await;
    let trim = kelda_proto::v1::DeleteRecordsRequest {
        topic: "orders".to_owned(),
        partitions: vec![kelda_proto::v1::PartitionTrim {
            partition: 0,
            before_offset: 2,
        }],
    };
    node.topics().delete_records(trim).await.expect("deleted");
    for offset in [-1, 0, 1, 4] {
        let waiting = FetchRequest {
            max_wait_ms: LONG_MS,
            ..request(offset)
        };
        let refused = fetch(&node, waiting).await.expect_err("out of range");
        let reason = ErrorReason::OffsetOutOfRange;
        let metadata = assert_refused(&refused, Code::OutOfRange, reason);
        assert_eq!(metadata["offset"], offset.to_string());
        assert_eq!(metadata["log_start_offset"], "2");
        assert_eq!(metadata["end_offset"], "3");
    }
    assert_eq!(
        offsets(&fetch(&node, request(2)).await.expect("there")),
        [2]
    );
}

#[tokio::test]
async fn a_waiting_fetch_hears_of_the_end_of_its_topic_and_of_the_node() {
    let node = node_with(&["a"]).await;
    let waiting = || {
        let request = FetchRequest {
            max_wait_ms: LONG_MS,
            ..request(1)
        };
        let mut service = node.consume();
        tokio::spawn(async move { service.fetch(request).await })
    };
    let in_flight = async |calls: f64| {
        support::wait::eventually("the fetch waits", async || {
            let seen = node.metric("kelda_rpc_in_flight").await;
            (seen == Some(calls)).then_some(())
        })
        .await;
    };
    let fetch = waiting();
    in_flight(1.0).await;
    let delete = kelda_proto::v1::DeleteTopicRequest {
        name: "orders".to_owned(),
    };
    node.topics().delete_topic(delete).await.expect("deleted");
    let ended = soon("the end", fetch).await.expect("it does not panic");
    let status = ended.expect_err("the topic is gone");
    assert_refused(&status, Code::NotFound, ErrorReason::UnknownTopic);

    node.create_topic("orders", 1).await;
    node.produce_values("orders", &["a"]).await;
    let fetch = waiting();
    in_flight(1.0).await;
    node.node.shutdown().await;
    let ended = soon("the end", fetch).await.expect("it does not panic");
    let status = ended.expect_err("the node stops");
    assert_refused(&status, Code::Unavailable, ErrorReason::NotReady);
}
