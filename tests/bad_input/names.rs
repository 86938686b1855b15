//! Topics and partitions that are not there, and names that can not be.

use kelda_proto::v1::{self, ErrorReason, produce_stream_request as stream};
use tonic::{Code, Status};

use crate::support::{
    orders::{Orders, TOPIC, good},
    refusals::assert_refusal,
};

/// The outcome of every call that names a topic.
async fn every_call(orders: &Orders, topic: &str) -> Vec<(&'static str, Status)> {
    let node = &orders.node;
    let name = || topic.to_owned();
    let produce = v1::ProduceRequest {
        topic: name(),
        ..good()
    };
    let fetch = v1::FetchRequest {
        topic: name(),
        ..Default::default()
    };
    let consume = v1::ConsumeRequest {
        topic: name(),
        ..Default::default()
    };
    let hello = stream::Hello {
        topic: name(),
        ..Default::default()
    };
    let hello = v1::ProduceStreamRequest {
        message: Some(stream::Message::Hello(hello)),
    };
    let hello = tokio_stream::iter([hello]);
    let mut acks = node
        .produce()
        .produce_stream(hello)
        .await
        .expect("the stream opens")
        .into_inner();
    let list = v1::ListOffsetsRequest {
        topic: name(),
        ..Default::default()
    };
    let trim = v1::DeleteRecordsRequest {
        topic: name(),
        partitions: vec![v1::PartitionTrim::default()],
    };
    let get = v1::GetTopicRequest { name: name() };
    let update = v1::UpdateTopicRequest {
        name: name(),
        ..Default::default()
    };
    let add = v1::AddPartitionsRequest {
        name: name(),
        partition_count: 3,
    };
    let delete = v1::DeleteTopicRequest { name: name() };
    let mut topics = node.topics();
    vec![
        ("Produce", node.produce().produce(produce).await.err()),
        ("Fetch", node.consume().fetch(fetch).await.err()),
        ("Consume", node.consume().consume(consume).await.err()),
        ("ProduceStream", acks.message().await.err()),
        ("ListOffsets", topics.list_offsets(list).await.err()),
        ("DeleteRecords", topics.delete_records(trim).await.err()),
        ("GetTopic", topics.get_topic(get).await.err()),
        ("UpdateTopic", topics.update_topic(update).await.err()),
        ("AddPartitions", topics.add_partitions(add).await.err()),
        ("DeleteTopic", topics.delete_topic(delete).await.err()),
    ]
    .into_iter()
    .map(|(call, status)| (call, status.unwrap_or_else(|| panic!("{call} must fail"))))
    .collect()
}

#[tokio::test]
async fn an_unknown_topic_is_named_by_every_call() {
    let mut orders = Orders::start().await;
    for topic in ["payments", "Orders", ""] {
        for (call, status) in every_call(&orders, topic).await {
            println!("{call}");
            assert_refusal(
                &status,
                Code::NotFound,
                ErrorReason::UnknownTopic,
                &[("topic", topic)],
                "create it first",
            );
        }
    }
    orders.check().await;
}

#[tokio::test]
async fn a_name_of_any_length_fits_into_a_refusal() {
    let mut orders = Orders::start().await;
    let long = "ä\n".repeat(100_000);
    for (call, status) in every_call(&orders, &long).await {
        assert_eq!(status.code(), Code::NotFound, "{call}");
        assert!(status.message().len() <= 512, "{call}");
    }
    orders.check().await;
}

#[tokio::test]
async fn an_unknown_partition_is_named_by_every_call() {
    let mut orders = Orders::start().await;
    for partition in [-1, 2, i32::MAX, i32::MIN] {
        let produce = v1::ProduceRequest {
            partition: Some(partition),
            ..good()
        };
        let fetch = v1::FetchRequest {
            topic: TOPIC.to_owned(),
            partition,
            ..Default::default()
        };
        let consume = v1::ConsumeRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![v1::PartitionStart {
                partition,
                start: None,
            }],
            ..Default::default()
        };
        let list = v1::ListOffsetsRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![0, partition],
            ..Default::default()
        };
        // The partition that is there must keep its records.
        let trims = [0, partition].map(|partition| v1::PartitionTrim {
            partition,
            before_offset: -1,
        });
        let trim = v1::DeleteRecordsRequest {
            topic: TOPIC.to_owned(),
            partitions: trims.into(),
        };
        let node = &orders.node;
        let number = partition.to_string();
        for status in [
            node.produce().produce(produce).await.err(),
            node.consume().fetch(fetch).await.err(),
            node.consume().consume(consume).await.err(),
            node.topics().list_offsets(list).await.err(),
            node.topics().delete_records(trim).await.err(),
        ] {
            assert_refusal(
                &status.expect("it must be refused"),
                Code::NotFound,
                ErrorReason::UnknownPartition,
                &[
                    ("topic", TOPIC),
                    ("partition", &number),
                    ("partition_count", "2"),
                ],
                "choose one below",
            );
        }
    }
    orders.check().await;
}

#[tokio::test]
async fn a_name_that_can_not_be_is_refused() {
    let mut orders = Orders::start().await;
    let too_long = "x".repeat(250);
    for name in [
        "", ".", "..", "a b", "a/b", "../a", "ä", "a\0", "a\n", "a:b", &too_long,
    ] {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let status = orders.node.topics().create_topic(request).await;
        assert_refusal(
            &status.expect_err("it must be refused"),
            Code::InvalidArgument,
            ErrorReason::InvalidTopicName,
            &[("topic", name)],
            "must match [a-zA-Z0-9._-]{1,249}",
        );
    }
    let listed = orders
        .node
        .topics()
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .expect("listed")
        .into_inner();
    let names: Vec<_> = listed.topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, [TOPIC], "nothing was created");
    orders.check().await;
}

#[tokio::test]
async fn a_topic_is_not_created_over_another() {
    let mut orders = Orders::start().await;
    for validate_only in [true, false] {
        let request = v1::CreateTopicRequest {
            name: TOPIC.to_owned(),
            validate_only,
            ..Default::default()
        };
        let status = orders.node.topics().create_topic(request).await;
        assert_refusal(
            &status.expect_err("it must be refused"),
            Code::AlreadyExists,
            ErrorReason::TopicExists,
            &[("topic", TOPIC)],
            "choose another name",
        );
    }
    orders.check().await;
}
