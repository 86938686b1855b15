//! Retention: old records go by age and by size, and nothing else goes with them.

mod support;

use kelda_proto::v1::{
    CreateTopicRequest, DeleteRecordsRequest, ErrorReason, FetchRequest, GetTopicRequest,
    ListOffsetsRequest, Partition, PartitionAck, PartitionTrim, ProduceRequest, ProducerSession,
    TopicConfig, UpdateTopicRequest, start_position::Position,
};
use kelda_server::{config::Config, telemetry::clock};
use support::{
    TestNode, assert_refused, config,
    reader::{Reader, follow, start},
    record,
    wait::eventually,
};
use tempfile::TempDir;
use tonic::Code;

const VALUE_BYTES: usize = 1000;
/// A value and what a record and its batch add to it.
const BATCH_BYTES: std::ops::Range<i64> = 1000..1050;

fn impatient(directory: &TempDir) -> Config {
    Config {
        retention_interval_ms: 20,
        ..config(Some(directory.path()))
    }
}

async fn create(node: &TestNode, config: TopicConfig) {
    let request = CreateTopicRequest {
        name: "orders".to_owned(),
        config: Some(config),
        ..Default::default()
    };
    node.topics().create_topic(request).await.expect("created");
}

async fn partition(node: &TestNode) -> Partition {
    let request = GetTopicRequest {
        name: "orders".to_owned(),
    };
    let response = node.topics().get_topic(request).await.expect("there");
    let topic = response.into_inner().topic.expect("a topic");
    topic.partitions[0].clone()
}

/// Appends a record that tells its number, as the session's append of that sequence.
async fn append(node: &TestNode, sequence: i64) -> PartitionAck {
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        records: vec![record(&value(sequence))],
        session: Some(ProducerSession {
            id: "till 7".to_owned(),
            epoch: 0,
            sequence,
        }),
        ..Default::default()
    };
    let response = node.produce().produce(request).await.expect("produced");
    response.into_inner().partitions.remove(0)
}

fn value(number: i64) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// Waits until the log starts at `offset` and the bytes in front of it are gone.
async fn purged(node: &TestNode, offset: i64) -> Partition {
    eventually("old records are deleted", async || {
        let partition = partition(node).await;
        let kept = partition.end_offset - offset;
        let done = partition.log_start_offset == offset
            && partition.size_bytes < (kept + 1) * BATCH_BYTES.start;
        done.then_some(partition)
    })
    .await
}

/// Asserts what is to be seen of records of which `[log_start, end)` are there.
async fn assert_serves(node: &TestNode, log_start: i64, end: i64) {
    let expected: Vec<_> = (log_start..end).map(value).collect();
    assert!(
        node.values("orders", 0, log_start).await == expected,
        "not the records of [{log_start}, {end})"
    );
    for offset in [0, log_start - 1, end + 1] {
        let request = FetchRequest {
            topic: "orders".to_owned(),
            offset,
            ..Default::default()
        };
        let refused = node.consume().fetch(request).await;
        let status = refused.expect_err("it is not there");
        let reason = ErrorReason::OffsetOutOfRange;
        let metadata = assert_refused(&status, Code::OutOfRange, reason);
        assert_eq!(metadata["log_start_offset"], log_start.to_string());
        assert_eq!(metadata["end_offset"], end.to_string());
    }
    for (timestamp_ms, offset) in [(0, log_start), (i64::MAX, end)] {
        let request = ListOffsetsRequest {
            topic: "orders".to_owned(),
            position: start(Position::TimestampMs(timestamp_ms)),
            ..Default::default()
        };
        let found = node.topics().list_offsets(request).await.expect("found");
        assert_eq!(found.get_ref().offsets[0].offset, offset);
    }
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let started = opened.expect("opened").started;
    assert_eq!(started.positions[0].next_offset, log_start);
}

#[tokio::test]
async fn records_are_deleted_by_size_and_what_is_kept_survives_restarts() {
    const KEPT: i64 = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(impatient(&directory)).await;
    let of_bytes = TopicConfig {
        retention_bytes: Some(KEPT * BATCH_BYTES.start),
        ..Default::default()
    };
    create(&node, of_bytes).await;
    let mut end = 0;
    for _ in 0..2 {
        for _ in 0..30 {
            assert_eq!(append(&node, end).await.base_offset, end);
            end += 1;
        }
        // Whole batches, so that at least as much is kept as the topic says.
        let partition = purged(&node, end - KEPT).await;
        assert_eq!(partition.end_offset, end);
        assert!(partition.size_bytes >= KEPT * BATCH_BYTES.start);
        for restarted in [false, true] {
            if restarted {
                node = node.restart(impatient(&directory)).await;
            }
            assert_serves(&node, end - KEPT, end).await;
        }
    }
}

#[tokio::test]
async fn records_are_deleted_once_they_are_older_than_the_topic_says_and_no_sooner() {
    const RETENTION_MS: i64 = 400;
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(impatient(&directory)).await;
    let of_time = TopicConfig {
        retention_ms: Some(RETENTION_MS),
        ..Default::default()
    };
    create(&node, of_time).await;
    let mut append_times = Vec::new();
    for sequence in 0..8 {
        let log_start = async || partition(&node).await.log_start_offset;
        let ack = append(&node, sequence).await;
        append_times.push(ack.append_time_ms);
        let next = ack.append_time_ms + 60;
        eventually("some time passes", async || {
            // The start is read before the clock: what is gone by then must be old by then.
            let gone = usize::try_from(log_start().await).expect("not negative");
            let now_ms = clock::now_ms();
            for append_time_ms in &append_times[..gone] {
                assert!(now_ms - append_time_ms >= RETENTION_MS, "deleted too soon");
            }
            (now_ms > next).then_some(())
        })
        .await;
    }
    let emptied = purged(&node, 8).await;
    assert!(clock::now_ms() - append_times[7] >= RETENTION_MS);
    assert_eq!(emptied.end_offset, 8);
    assert_serves(&node, 8, 8).await;
}

#[tokio::test]
async fn sessions_recognise_repeats_of_records_that_are_purged_even_after_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(impatient(&directory)).await;
    create(&node, TopicConfig::default()).await;
    let mut first_acks = Vec::new();
    for sequence in 0..10 {
        first_acks.push(append(&node, sequence).await);
    }
    let update = UpdateTopicRequest {
        name: "orders".to_owned(),
        config: Some(TopicConfig {
            retention_ms: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    node.topics().update_topic(update).await.expect("updated");
    let emptied = purged(&node, 10).await;
    assert_eq!(emptied.size_bytes, 0, "nothing is left");
    for _ in 0..2 {
        node = node.restart(impatient(&directory)).await;
        for (sequence, first) in (0..).zip(&first_acks) {
            let expected = PartitionAck {
                duplicate: true,
                ..first.clone()
            };
            assert_eq!(append(&node, sequence).await, expected);
        }
        assert_serves(&node, 10, 10).await;
    }
    let next = append(&node, 10).await;
    assert_eq!((next.base_offset, next.duplicate), (10, false));
}

#[tokio::test]
async fn the_space_of_records_that_are_deleted_by_hand_is_freed_without_waiting_for_retention() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    create(&node, TopicConfig::default()).await;
    for sequence in 0..20 {
        append(&node, sequence).await;
    }
    let full = partition(&node).await.size_bytes;
    assert!((20 * BATCH_BYTES.start..20 * BATCH_BYTES.end).contains(&full));
    for before_offset in [15, 20] {
        let trim = DeleteRecordsRequest {
            topic: "orders".to_owned(),
            partitions: vec![PartitionTrim {
                partition: 0,
                before_offset,
            }],
        };
        node.topics().delete_records(trim).await.expect("deleted");
        purged(&node, before_offset).await;
        assert_serves(&node, before_offset, 20).await;
    }
    let node = node.restart(config(Some(directory.path()))).await;
    assert_serves(&node, 20, 20).await;
    assert_eq!(append(&node, 20).await.base_offset, 20);
    assert_eq!(node.values("orders", 0, 20).await, [value(20)]);
}
