//! Producer sessions: repeats are harmless, whatever happened in between.

mod support;

use kelda_proto::v1::{
    Acks, ErrorReason, PartitionAck, ProduceRequest, ProducerSession,
    produce_stream_request::{Append, Hello},
};
use support::{
    TestNode,
    appender::{Appender, hello, outcome},
    assert_refused, config, record,
};
use tonic::{Code, Status};

fn request(sequence: i64, values: &[&str]) -> ProduceRequest {
    ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        records: values.iter().map(|value| record(value)).collect(),
        session: Some(ProducerSession {
            id: "till 7".to_owned(),
            epoch: 1,
            sequence,
        }),
        ..Default::default()
    }
}

async fn produce(node: &TestNode, request: ProduceRequest) -> Result<PartitionAck, Status> {
    let response = node.produce().produce(request).await?;
    let mut partitions = response.into_inner().partitions;
    assert_eq!(partitions.len(), 1);
    Ok(partitions.remove(0))
}

fn of_session() -> Hello {
    Hello {
        session_id: "till 7".to_owned(),
        session_epoch: 1,
        ..hello("orders")
    }
}

#[tokio::test]
async fn a_repeat_is_answered_with_its_first_offset_even_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 1).await;
    node.produce_values("orders", &["somebody else"]).await;
    let first = produce(&node, request(0, &["a", "b"])).await.expect("new");
    assert_eq!((first.base_offset, first.duplicate), (1, false));
    let second = produce(&node, request(1, &["c"])).await.expect("new");
    assert_eq!((second.base_offset, second.duplicate), (3, false));
    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        for (sequence, values, before) in [(0, &["a", "b"][..], &first), (1, &["c"][..], &second)] {
            let again = produce(&node, request(sequence, values)).await;
            let again = again.expect("a repeat is no error");
            let expected = PartitionAck {
                duplicate: true,
                ..before.clone()
            };
            assert_eq!(again, expected, "restarted: {restarted}");
        }
    }
    let third = produce(&node, request(2, &["d"])).await.expect("new");
    assert_eq!((third.base_offset, third.duplicate), (4, false));
    let values = node.values("orders", 0, 0).await;
    assert_eq!(values, ["somebody else", "a", "b", "c", "d"]);
}

#[tokio::test]
async fn the_last_32_appends_are_recognised_and_older_ones_are_not_written_again() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for sequence in 0..40 {
        let ack = produce(&node, request(sequence, &["x"]))
            .await
            .expect("new");
        assert_eq!(ack.base_offset, sequence);
    }
    for sequence in 8..40 {
        let ack = produce(&node, request(sequence, &["x"]))
            .await
            .expect("known");
        assert_eq!((ack.base_offset, ack.duplicate), (sequence, true));
    }
    for sequence in [0, 7] {
        let refused = produce(&node, request(sequence, &["x"])).await;
        let metadata = assert_refused(
            &refused.expect_err("its offset is no longer known"),
            Code::FailedPrecondition,
            ErrorReason::SequenceOutOfOrder,
        );
        assert_eq!(metadata["expected_sequence"], "40");
    }
    assert_eq!(node.values("orders", 0, 0).await.len(), 40);
}

#[tokio::test]
async fn a_gap_in_the_sequences_is_refused_with_the_one_that_is_next() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for (sequence, next) in [(1, 0), (5, 0), (0, 1), (2, 1), (1, 2)] {
        match produce(&node, request(sequence, &["x"])).await {
            Ok(ack) => {
                assert_eq!((ack.base_offset, ack.duplicate), (sequence, false));
                assert_eq!(next, sequence + 1);
            }
            Err(status) => {
                let reason = ErrorReason::SequenceOutOfOrder;
                let metadata = assert_refused(&status, Code::FailedPrecondition, reason);
                assert_eq!(metadata["session"], "till 7");
                assert_eq!(metadata["sequence"], sequence.to_string());
                assert_eq!(metadata["expected_sequence"], next.to_string());
            }
        }
    }
    assert_eq!(node.values("orders", 0, 0).await.len(), 2);
}

#[tokio::test]
async fn a_producer_with_a_higher_epoch_takes_over_and_the_lower_one_is_fenced() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let with_epoch = |epoch, sequence| {
        let mut request = request(sequence, &["x"]);
        request.session.as_mut().expect("there is one").epoch = epoch;
        request
    };
    produce(&node, with_epoch(1, 0)).await.expect("new");
    let refused = produce(&node, with_epoch(2, 1)).await;
    let reason = ErrorReason::SequenceOutOfOrder;
    let status = refused.expect_err("a new epoch starts at 0");
    assert_refused(&status, Code::FailedPrecondition, reason);
    let taken_over = produce(&node, with_epoch(2, 0)).await.expect("new");
    assert_eq!((taken_over.base_offset, taken_over.duplicate), (1, false));
    for sequence in [0, 1] {
        let refused = produce(&node, with_epoch(1, sequence)).await;
        let metadata = assert_refused(
            &refused.expect_err("it must stop"),
            Code::FailedPrecondition,
            ErrorReason::ProducerFenced,
        );
        assert_eq!(metadata["session"], "till 7");
        assert_eq!(metadata["epoch"], "1");
        assert_eq!(metadata["current_epoch"], "2");
    }
    assert_eq!(node.values("orders", 0, 0).await.len(), 2);
}

#[tokio::test]
async fn a_repeat_is_a_repeat_although_its_expected_offset_is_taken_by_itself() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let expecting = ProduceRequest {
        expected_offset: Some(0),
        ..request(0, &["x"])
    };
    let first = produce(&node, expecting.clone()).await.expect("new");
    let again = produce(&node, expecting).await.expect("a repeat");
    assert_eq!((first.base_offset, first.duplicate), (0, false));
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    let other = ProduceRequest {
        expected_offset: Some(0),
        ..request(1, &["y"])
    };
    let refused = produce(&node, other).await.expect_err("0 is taken");
    let reason = ErrorReason::ExpectedOffsetMismatch;
    assert_refused(&refused, Code::FailedPrecondition, reason);
    let retried = produce(&node, request(1, &["y"])).await;
    let retried = retried.expect("what was refused does not count as sequence");
    assert_eq!(retried.base_offset, 1);
}

#[tokio::test]
async fn a_session_needs_a_partition_and_acks() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 2).await;
    let mut anywhere = request(0, &["x"]);
    anywhere.partition = None;
    let mut unacknowledged = request(0, &["x"]);
    unacknowledged.set_acks(Acks::None);
    for request in [anywhere, unacknowledged] {
        let refused = produce(&node, request).await.expect_err("it is invalid");
        assert_refused(&refused, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn a_session_goes_on_where_it_was_on_a_new_stream_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 3).await;
    let append = |partition: i32, sequence: i64| Append {
        correlation_id: u64::from(partition.unsigned_abs()) * 100 + sequence.unsigned_abs(),
        partition: Some(partition),
        records: vec![record(&format!("{sequence}"))],
        sequence,
        ..Default::default()
    };
    let mut stream = Appender::open(&node, of_session()).await.expect("opened");
    assert_eq!(stream.welcome.window, 32, "no more than are recognised");
    assert_eq!(stream.welcome.partition_count, 3);
    assert!(stream.welcome.last_sequences.is_empty());
    for sequence in 0..5 {
        stream.send(append(0, sequence)).await;
        stream.send(append(2, sequence)).await;
    }
    for _ in 0..10 {
        let ack = stream.ack().await.expect("open").expect("an ack");
        let sequence = (ack.correlation_id % 100).cast_signed();
        let response = outcome(ack).expect("appended");
        assert_eq!(response.partitions[0].base_offset, sequence);
        assert!(!response.partitions[0].duplicate);
    }
    drop(stream);

    let node = node.restart(config(Some(directory.path()))).await;
    let mut stream = Appender::open(&node, of_session()).await.expect("opened");
    let last_sequences: Vec<_> = stream
        .welcome
        .last_sequences
        .iter()
        .map(|last| (last.partition, last.last_sequence))
        .collect();
    assert_eq!(last_sequences, [(0, 4), (2, 4)], "partition 1 has none");
    let other = Hello {
        session_epoch: 2,
        ..of_session()
    };
    let other = Appender::open(&node, other).await.expect("opened");
    assert!(other.welcome.last_sequences.is_empty(), "of a new epoch");
    let without = Hello {
        without_sequences: true,
        ..of_session()
    };
    let without = Appender::open(&node, without).await.expect("opened");
    assert!(without.welcome.last_sequences.is_empty(), "not asked for");
    for sequence in 3..7 {
        stream.send(append(2, sequence)).await;
    }
    stream.close();
    while let Some(ack) = stream.ack().await.expect("it ends with OK") {
        let sequence = (ack.correlation_id % 100).cast_signed();
        let response = outcome(ack).expect("appended");
        assert_eq!(response.partitions[0].base_offset, sequence);
        assert_eq!(response.partitions[0].duplicate, sequence < 5);
    }
    let values = node.values("orders", 2, 0).await;
    assert_eq!(values, ["0", "1", "2", "3", "4", "5", "6"]);
}
