//! Offsets that are not in the log.

use kelda_proto::v1::{
    self, ErrorReason, OutOfRangePolicy, consume_response::Event, start_position::Position,
};
use tonic::{Code, Status};

use crate::support::{
    orders::{self, Orders, TOPIC, good},
    refusals::{assert_invalid_fields, assert_refusal},
};

/// Four records at [0, 4), of which the first two are deleted.
async fn trimmed() -> Orders {
    let mut orders = Orders::start().await;
    orders.check().await;
    orders.check().await;
    let request = v1::DeleteRecordsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionTrim {
            partition: 0,
            before_offset: 2,
        }],
    };
    let trimmed = orders.node.topics().delete_records(request).await;
    let trimmed = trimmed.expect("deleted").into_inner();
    assert_eq!(trimmed.offsets[0].log_start_offset, 2);
    orders.note_log_start(2);
    orders
}

const OUTSIDE: [i64; 6] = [i64::MIN, -1, 0, 1, 5, i64::MAX];

fn assert_out_of_range(status: &Status, offset: i64) {
    assert_refusal(
        status,
        Code::OutOfRange,
        ErrorReason::OffsetOutOfRange,
        &[
            ("offset", &offset.to_string()),
            ("log_start_offset", "2"),
            ("end_offset", "4"),
        ],
        "use an offset in it",
    );
}

fn at(offset: i64) -> Option<v1::StartPosition> {
    Some(v1::StartPosition {
        position: Some(Position::Offset(offset)),
    })
}

#[tokio::test]
async fn reads_outside_of_the_log_are_refused_with_its_bounds() {
    let mut orders = trimmed().await;
    for offset in OUTSIDE {
        let status = orders.node.consume().fetch(orders::fetch(offset)).await;
        assert_out_of_range(&status.expect_err("refused"), offset);
        let waiting = v1::FetchRequest {
            max_wait_ms: 60_000,
            ..orders::fetch(offset)
        };
        let status = orders.node.consume().fetch(waiting).await;
        assert_out_of_range(&status.expect_err("refused at once"), offset);
        let list = v1::ListOffsetsRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![0],
            position: at(offset),
        };
        let status = orders.node.topics().list_offsets(list).await;
        assert_out_of_range(&status.expect_err("refused"), offset);
    }
    let fetched = orders.node.consume().fetch(orders::fetch(4)).await;
    let fetched = fetched.expect("the end is inside").into_inner();
    assert_eq!((fetched.records.len(), fetched.next_offset), (0, 4));
    orders.check().await;
}

/// The events of a stream without follow.
async fn consumed(
    orders: &Orders,
    offset: i64,
    policy: OutOfRangePolicy,
) -> Result<Vec<Event>, Status> {
    let request = v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionStart {
            partition: 0,
            start: at(offset),
        }],
        on_out_of_range: policy.into(),
        ..Default::default()
    };
    let mut stream = orders.node.consume().consume(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        events.push(message.event.expect("an event"));
    }
    Ok(events)
}

#[tokio::test]
async fn a_stream_outside_of_the_log_fails_or_goes_where_the_policy_says() {
    let mut orders = trimmed().await;
    for offset in OUTSIDE {
        for policy in [OutOfRangePolicy::Unspecified, OutOfRangePolicy::Fail] {
            let failed = consumed(&orders, offset, policy).await;
            assert_out_of_range(&failed.expect_err("refused"), offset);
        }
        for (policy, start) in [
            (OutOfRangePolicy::Earliest, 2),
            (OutOfRangePolicy::Latest, 4),
        ] {
            let events = consumed(&orders, offset, policy).await.expect("a stream");
            assert_gap(&events, offset, start);
        }
    }
    let events = consumed(&orders, 3, OutOfRangePolicy::Latest).await;
    let gaps = events.expect("a stream");
    let gaps = gaps.iter().filter(|event| matches!(event, Event::Gap(_)));
    assert_eq!(gaps.count(), 0, "a valid offset has none");
    orders.check().await;
}

/// Asserts that a stream tells of the gap, and goes on behind it without another.
fn assert_gap(events: &[Event], from: i64, to: i64) {
    let [Event::Started(started), Event::Gap(gap), rest @ ..] = events else {
        panic!("Started and Gap must come first: {events:?}");
    };
    assert_eq!(started.positions[0].next_offset, to);
    assert_eq!((gap.from_offset, gap.to_offset), (from, to));
    let [records @ .., Event::End(end)] = rest else {
        panic!("End must be the last: {events:?}");
    };
    assert_eq!(end.positions[0].next_offset, 4);
    let mut offsets = Vec::new();
    for event in records {
        let Event::Records(records) = event else {
            panic!("only records are left: {events:?}");
        };
        offsets.extend(records.records.iter().map(|record| record.offset));
    }
    assert_eq!(offsets, (to..4).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_is_overtaken_by_deletion_says_so() {
    let orders = Orders::start().await;
    let request = v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionStart::default()],
        follow: true,
        heartbeat_interval_ms: 100,
        ..Default::default()
    };
    let stream = orders.node.consume().consume(request).await;
    let mut stream = stream.expect("a stream").into_inner();
    let delete = v1::DeleteTopicRequest {
        name: TOPIC.to_owned(),
    };
    let deleted = orders.node.topics().delete_topic(delete).await;
    deleted.expect("deleted");
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream that follows does not just end"),
            Err(status) => break status,
        }
    };
    assert_refusal(
        &status,
        Code::NotFound,
        ErrorReason::UnknownTopic,
        &[("topic", TOPIC)],
        "create it first",
    );
}

#[tokio::test]
async fn deleting_outside_of_the_log_deletes_nothing_anywhere() {
    let mut orders = trimmed().await;
    for offset in [i64::MIN, -2, 5, i64::MAX] {
        let trim = |partition, before_offset| v1::PartitionTrim {
            partition,
            before_offset,
        };
        let request = v1::DeleteRecordsRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![trim(1, 0), trim(0, offset)],
        };
        let status = orders.node.topics().delete_records(request).await;
        assert_out_of_range(&status.expect_err("refused"), offset);
    }
    // What is deleted already may be deleted again.
    let request = v1::DeleteRecordsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionTrim {
            partition: 0,
            before_offset: 1,
        }],
    };
    let again = orders.node.topics().delete_records(request).await;
    assert_eq!(again.expect("done").into_inner().offsets[0].offset, 2);
    orders.check().await;
}

#[tokio::test]
async fn any_timestamp_has_an_offset() {
    let mut orders = trimmed().await;
    for (timestamp_ms, expected) in [(i64::MIN, 2), (-1, 2), (0, 2), (i64::MAX, 4)] {
        let request = v1::ListOffsetsRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![0],
            position: Some(v1::StartPosition {
                position: Some(Position::TimestampMs(timestamp_ms)),
            }),
        };
        let found = orders.node.topics().list_offsets(request).await;
        let found = found.expect("found").into_inner().offsets[0].offset;
        assert_eq!(found, expected, "{timestamp_ms}");
    }
    orders.check().await;
}

#[tokio::test]
async fn an_unexpected_offset_keeps_the_records_out() {
    let mut orders = Orders::start().await;
    for expected in [0, 1, 3, i64::MAX] {
        let request = v1::ProduceRequest {
            expected_offset: Some(expected),
            ..good()
        };
        assert_refusal(
            &orders.refused(request).await,
            Code::FailedPrecondition,
            ErrorReason::ExpectedOffsetMismatch,
            &[
                ("expected_offset", &expected.to_string()),
                ("next_offset", "2"),
            ],
            "read what came in between, then decide",
        );
    }
    let negative = v1::ProduceRequest {
        expected_offset: Some(-1),
        ..good()
    };
    assert_invalid_fields(&orders.refused(negative).await, &["expected_offset"]);
    let nowhere = v1::ProduceRequest {
        expected_offset: Some(2),
        partition: None,
        ..good()
    };
    assert_invalid_fields(&orders.refused(nowhere).await, &["partition"]);
    let right = v1::ProduceRequest {
        expected_offset: Some(2),
        ..good()
    };
    orders.node.produce().produce(right).await.expect("it fits");
    orders.note("bad");
    orders.check().await;
}
