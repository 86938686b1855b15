//! Offsets of partitions: found by time, and what deleting records leaves of them.

mod support;

use kelda_proto::v1::{
    Boundary, DeleteRecordsRequest, ErrorReason, GetTopicRequest, ListOffsetsRequest,
    PartitionOffset, PartitionTrim, ProduceRequest, Record, start_position::Position,
};
use support::{TestNode, assert_refused, config, reader::start, record};
use tonic::{Code, Status};

async fn list_offsets(
    node: &TestNode,
    partitions: &[i32],
    position: Position,
) -> Vec<PartitionOffset> {
    let request = ListOffsetsRequest {
        topic: "orders".to_owned(),
        partitions: partitions.to_vec(),
        position: start(position),
    };
    let response = node.topics().list_offsets(request).await;
    response.expect("listed").into_inner().offsets
}

async fn delete_records(
    node: &TestNode,
    trims: &[(i32, i64)],
) -> Result<Vec<PartitionOffset>, Status> {
    let trim = |(partition, before_offset): &(i32, i64)| PartitionTrim {
        partition: *partition,
        before_offset: *before_offset,
    };
    let request = DeleteRecordsRequest {
        topic: "orders".to_owned(),
        partitions: trims.iter().map(trim).collect(),
    };
    let response = node.topics().delete_records(request).await?;
    Ok(response.into_inner().offsets)
}

/// Partition, offset, start and end.
fn tuples(offsets: &[PartitionOffset]) -> Vec<(i32, i64, i64, i64)> {
    let tuple =
        |at: &PartitionOffset| (at.partition, at.offset, at.log_start_offset, at.end_offset);
    offsets.iter().map(tuple).collect()
}

#[tokio::test]
async fn offsets_are_found_by_time_although_times_are_out_of_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 2).await;
    // Offsets:                     0    1    2        3   4         5    6
    for times in [&[100, 500, 300][..], &[50, 200], &[600, 400]] {
        node.produce_at("orders", 0, times).await;
    }
    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        for (timestamp_ms, offset) in [
            (i64::MIN, 0),
            (0, 0),
            (100, 0),
            (101, 1),
            (300, 1),
            (500, 1),
            (501, 5),
            (600, 5),
            (601, 7),
            (i64::MAX, 7),
        ] {
            let at = Position::TimestampMs(timestamp_ms);
            let found = tuples(&list_offsets(&node, &[], at).await);
            assert_eq!(found, [(0, offset, 0, 7), (1, 0, 0, 0)], "{timestamp_ms}");
        }
    }
    let earliest = Position::Boundary(Boundary::Earliest.into());
    let found = list_offsets(&node, &[1, 0], earliest).await;
    assert_eq!(tuples(&found), [(0, 0, 0, 7), (1, 0, 0, 0)], "ascending");
    let latest = Position::Boundary(Boundary::Latest.into());
    let found = list_offsets(&node, &[0], latest).await;
    assert_eq!(tuples(&found), [(0, 7, 0, 7)]);

    // The record that was first at its time is deleted: the next one that is late enough takes its place.
    delete_records(&node, &[(0, 2)]).await.expect("deleted");
    for (timestamp_ms, offset) in [(0, 2), (300, 2), (301, 5), (500, 5), (601, 7)] {
        let at = Position::TimestampMs(timestamp_ms);
        let found = tuples(&list_offsets(&node, &[0], at).await);
        assert_eq!(found, [(0, offset, 2, 7)], "{timestamp_ms}");
    }
}

#[tokio::test]
async fn times_are_found_behind_a_deleted_record_that_was_far_ahead_of_them() {
    const FAR: i64 = 1 << 50;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    // Offsets 0 and 1 in one batch, whose first record hides every later time.
    node.produce_at("orders", 0, &[FAR, 5]).await;
    for batch in 1..=50 {
        // Offsets 2 * batch and 2 * batch + 1, out of order within the batch.
        node.produce_at("orders", 0, &[batch * 10, batch * 10 - 5])
            .await;
    }
    node.produce_at("orders", 0, &[FAR + 1]).await;
    delete_records(&node, &[(0, 1)]).await.expect("deleted");
    for (timestamp_ms, offset) in [
        (0, 1),
        (5, 1),
        (6, 2),
        (10, 2),
        (11, 4),
        (495, 100),
        (500, 100),
        (501, 102),
        (FAR, 102),
        (FAR + 1, 102),
        (FAR + 2, 103),
    ] {
        let at = Position::TimestampMs(timestamp_ms);
        let found = tuples(&list_offsets(&node, &[0], at).await);
        assert_eq!(found, [(0, offset, 1, 103)], "{timestamp_ms}");
    }
    // Records of a batch that is partly deleted are no answer.
    delete_records(&node, &[(0, 5)]).await.expect("deleted");
    for (timestamp_ms, offset) in [(15, 5), (16, 6), (20, 6), (25, 6), (FAR, 102)] {
        let at = Position::TimestampMs(timestamp_ms);
        let found = tuples(&list_offsets(&node, &[0], at).await);
        assert_eq!(found, [(0, offset, 5, 103)], "{timestamp_ms}");
    }
}

#[tokio::test]
async fn batches_that_were_refused_do_not_mislead_a_search_by_time() {
    const FAR: i64 = 1 << 50;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    node.produce_at("orders", 0, &[FAR, 5]).await;
    for batch in 1..=5 {
        // The log holds it, and it has no offset.
        let late = ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            expected_offset: Some(0),
            records: vec![Record {
                timestamp_ms: 100,
                ..record("late")
            }],
            ..Default::default()
        };
        let refused = node.produce().produce(late).await;
        let status = refused.expect_err("another offset is next");
        let reason = ErrorReason::ExpectedOffsetMismatch;
        assert_refused(&status, Code::FailedPrecondition, reason);
        // Offset batch + 1.
        node.produce_at("orders", 0, &[batch * 10]).await;
    }
    delete_records(&node, &[(0, 1)]).await.expect("deleted");
    for (timestamp_ms, offset) in [(5, 1), (6, 2), (41, 6), (50, 6), (51, 7), (100, 7)] {
        let at = Position::TimestampMs(timestamp_ms);
        let found = tuples(&list_offsets(&node, &[0], at).await);
        assert_eq!(found, [(0, offset, 1, 7)], "{timestamp_ms}");
    }
}

#[tokio::test]
async fn deleted_records_are_gone_for_good_and_offsets_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 2).await;
    node.produce_values("orders", &["a", "b", "c"]).await;
    node.produce_values("orders", &["d"]).await;
    node.produce_at("orders", 1, &[1, 2]).await;

    // In the middle of a batch too.
    let deleted = delete_records(&node, &[(0, 1)]).await.expect("deleted");
    assert_eq!(tuples(&deleted), [(0, 1, 1, 4)]);
    assert_eq!(node.values("orders", 0, 1).await, ["b", "c", "d"]);
    let deleted = delete_records(&node, &[(1, -1), (0, 3)]).await;
    let mut deleted = tuples(&deleted.expect("deleted"));
    deleted.sort_unstable();
    assert_eq!(deleted, [(0, 3, 3, 4), (1, 2, 2, 2)]);
    let deleted = delete_records(&node, &[(0, 0)]).await.expect("no error");
    assert_eq!(tuples(&deleted), [(0, 3, 3, 4)], "it never goes back");
    for beyond in [5, -2] {
        let refused = delete_records(&node, &[(1, 1), (0, beyond)]).await;
        let status = refused.expect_err("there is no such offset");
        assert_refused(&status, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
    }
    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        assert_eq!(node.values("orders", 0, 3).await, ["d"]);
        let request = GetTopicRequest {
            name: "orders".to_owned(),
        };
        let topic = node.topics().get_topic(request).await.expect("there");
        let partitions = topic.into_inner().topic.expect("given").partitions;
        let bounds: Vec<_> = partitions
            .iter()
            .map(|p| (p.log_start_offset, p.end_offset))
            .collect();
        assert_eq!(bounds, [(3, 4), (2, 2)]);
    }
    node.produce_at("orders", 1, &[3]).await;
    assert_eq!(node.values("orders", 1, 2).await, ["x"]);
}

#[tokio::test]
async fn a_search_by_time_finds_what_is_left_while_records_are_deleted() {
    const RECORDS: i64 = 60;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for offset in 0..RECORDS {
        node.produce_at("orders", 0, &[1000 + offset]).await;
    }
    let deleting = async {
        for before_offset in 1..=RECORDS {
            let deleted = delete_records(&node, &[(0, before_offset)]).await;
            deleted.expect("deleted");
        }
    };
    let searching = async {
        let mut found = 0;
        while found < RECORDS {
            let at = Position::TimestampMs(0);
            let offsets = list_offsets(&node, &[0], at).await;
            assert!(offsets[0].offset >= found, "deleted records stay deleted");
            found = offsets[0].offset;
        }
    };
    tokio::join!(deleting, searching);
}
