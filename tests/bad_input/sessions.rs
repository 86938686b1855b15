//! Producer sessions: what is missing, repeated, out of order or fenced.

use kelda_proto::v1::{self, Acks, ErrorReason};
use tonic::Code;

use crate::support::{
    orders::{Orders, good},
    record,
    refusals::{assert_invalid_fields, assert_refusal},
};

fn session(epoch: i32, sequence: i64) -> Option<v1::ProducerSession> {
    Some(v1::ProducerSession {
        id: "loader".to_owned(),
        epoch,
        sequence,
    })
}

fn append(epoch: i32, sequence: i64) -> v1::ProduceRequest {
    v1::ProduceRequest {
        session: session(epoch, sequence),
        records: vec![record(&format!("{epoch}/{sequence}"))],
        ..good()
    }
}

/// Appends the next of the session.
async fn appended(orders: &mut Orders, epoch: i32, sequence: i64) -> v1::PartitionAck {
    let answer = orders.node.produce().produce(append(epoch, sequence)).await;
    let mut answer = answer.expect("appended").into_inner();
    let ack = answer.partitions.pop().expect("one partition");
    assert!(!ack.duplicate);
    assert_eq!(ack.base_offset, orders.end());
    orders.note(&format!("{epoch}/{sequence}"));
    ack
}

async fn assert_out_of_order(orders: &Orders, epoch: i32, sequence: i64, expected: i64) {
    assert_refusal(
        &orders.refused(append(epoch, sequence)).await,
        Code::FailedPrecondition,
        ErrorReason::SequenceOutOfOrder,
        &[
            ("session", "loader"),
            ("sequence", &sequence.to_string()),
            ("expected_sequence", &expected.to_string()),
        ],
        "raise the epoch and start at 0",
    );
}

#[tokio::test]
async fn a_session_that_is_not_complete_is_refused() {
    let mut orders = Orders::start().await;
    let with = |id: &str, epoch, sequence| v1::ProduceRequest {
        session: Some(v1::ProducerSession {
            id: id.to_owned(),
            epoch,
            sequence,
        }),
        ..good()
    };
    let long = "x".repeat(65);
    for (request, field) in [
        (with("", 0, 0), "session.id"),
        (with(&long, 0, 0), "session.id"),
        (with("loader", -1, 0), "session.epoch"),
        (with("loader", 0, -1), "session.sequence"),
        (with("loader", 0, i64::MIN), "session.sequence"),
    ] {
        assert_invalid_fields(&orders.refused(request).await, &[field]);
    }
    let nowhere = v1::ProduceRequest {
        partition: None,
        ..append(0, 0)
    };
    assert_invalid_fields(&orders.refused(nowhere).await, &["partition"]);
    let careless = v1::ProduceRequest {
        acks: Acks::None.into(),
        ..append(0, 0)
    };
    assert_invalid_fields(&orders.refused(careless).await, &["acks"]);
    let unknown = v1::ProduceRequest { acks: 3, ..good() };
    assert_invalid_fields(&orders.refused(unknown).await, &["acks"]);
    appended(&mut orders, 0, 0).await;
    orders.check().await;
}

#[tokio::test]
async fn a_gap_in_the_sequence_is_refused() {
    let mut orders = Orders::start().await;
    assert_out_of_order(&orders, 0, 1, 0).await;
    assert_out_of_order(&orders, 0, i64::MAX, 0).await;
    appended(&mut orders, 0, 0).await;
    assert_out_of_order(&orders, 0, 2, 1).await;
    assert_out_of_order(&orders, 0, i64::MAX, 1).await;
    appended(&mut orders, 0, 1).await;
    orders.check().await;
}

#[tokio::test]
async fn a_repeat_is_acknowledged_with_its_first_offset_and_not_stored_again() {
    let mut orders = Orders::start().await;
    let mut acks = Vec::new();
    for sequence in 0..40 {
        acks.push(appended(&mut orders, 0, sequence).await);
    }
    for sequence in [39, 38, 8] {
        let answer = orders.node.produce().produce(append(0, sequence)).await;
        let answer = answer.expect("acknowledged").into_inner();
        let first = &acks[usize::try_from(sequence).expect("small")];
        let expected = v1::PartitionAck {
            duplicate: true,
            ..first.clone()
        };
        assert_eq!(answer.partitions, [expected]);
    }
    // Of 40 the last 32 are remembered; what may have been stored before is not stored again.
    for sequence in [7, 0] {
        assert_out_of_order(&orders, 0, sequence, 40).await;
    }
    orders.check().await;
}

#[tokio::test]
async fn a_producer_that_was_replaced_is_fenced() {
    let mut orders = Orders::start().await;
    appended(&mut orders, 0, 0).await;
    assert_out_of_order(&orders, 1, 1, 0).await;
    appended(&mut orders, 7, 0).await;
    for (epoch, sequence) in [(0, 1), (0, 0), (6, 0)] {
        assert_refusal(
            &orders.refused(append(epoch, sequence)).await,
            Code::FailedPrecondition,
            ErrorReason::ProducerFenced,
            &[
                ("session", "loader"),
                ("epoch", &epoch.to_string()),
                ("current_epoch", "7"),
            ],
            "stop this producer",
        );
    }
    appended(&mut orders, 7, 1).await;
    orders.check().await;
}
