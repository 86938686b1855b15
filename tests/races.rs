//! Calls that compete: for a name, for a number of partitions, and with the end of a topic.

mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use kelda_proto::v1::{
    AddPartitionsRequest, CreateTopicRequest, DeleteTopicRequest, ErrorReason, ListTopicsRequest,
    ProduceRequest, TopicConfig, UpdateTopicRequest, produce_stream_request::Append,
};
use prost_types::FieldMask;
use support::{
    TestNode,
    appender::{Appender, hello, outcome},
    assert_refused, config, record,
    wait::soon,
};
use tonic::Code;

/// Far below what a call may wait for the catalog to be carried out.
const QUICK: Duration = Duration::from_secs(10);

fn append(id: u64) -> Append {
    Append {
        correlation_id: id,
        partition: Some(0),
        records: vec![record(&id.to_string())],
        ..Default::default()
    }
}

async fn delete(node: &TestNode) {
    let request = DeleteTopicRequest {
        name: "orders".to_owned(),
    };
    node.topics().delete_topic(request).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_calls_that_create_or_delete_a_topic_at_the_same_time_exactly_one_succeeds() {
    let node = TestNode::ephemeral().await;
    for _ in 0..5 {
        let creating = (0..8).map(|number| {
            let mut service = node.topics();
            tokio::spawn(async move {
                let request = CreateTopicRequest {
                    name: "orders".to_owned(),
                    partition_count: number + 1,
                    ..Default::default()
                };
                service.create_topic(request).await
            })
        });
        let creating: Vec<_> = creating.collect();
        let mut created = Vec::new();
        for call in creating {
            match soon("an answer", call).await.expect("no panic") {
                Ok(response) => created.push(response.into_inner().topic.expect("given")),
                Err(status) => {
                    assert_refused(&status, Code::AlreadyExists, ErrorReason::TopicExists);
                }
            }
        }
        assert_eq!(created.len(), 1);
        let listed = node
            .topics()
            .list_topics(ListTopicsRequest::default())
            .await;
        let listed = listed.expect("listed").into_inner().topics;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].id, created[0].id);
        assert_eq!(listed[0].partition_count, created[0].partition_count);

        let deleting: Vec<_> = (0..4)
            .map(|_| {
                let mut service = node.topics();
                let request = DeleteTopicRequest {
                    name: "orders".to_owned(),
                };
                tokio::spawn(async move { service.delete_topic(request).await })
            })
            .collect();
        let mut deleted = 0;
        for call in deleting {
            match soon("an answer", call).await.expect("no panic") {
                Ok(_) => deleted += 1,
                Err(status) => {
                    assert_refused(&status, Code::NotFound, ErrorReason::UnknownTopic);
                }
            }
        }
        assert_eq!(deleted, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_add_partitions_at_the_same_time_do_not_add_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 1).await;
    let adding: Vec<_> = (2..=6)
        .map(|partition_count| {
            let mut service = node.topics();
            let request = AddPartitionsRequest {
                name: "orders".to_owned(),
                partition_count,
            };
            tokio::spawn(async move { service.add_partitions(request).await })
        })
        .collect();
    let mut most = 1;
    for (partition_count, call) in (2..).zip(adding) {
        match soon("an answer", call).await.expect("no panic") {
            Ok(_) => most = most.max(partition_count),
            // Somebody else was first: either there are as many by now, or the number changed under way.
            Err(status) => {
                assert_refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
            }
        }
    }
    assert!(most > 1, "the first one succeeds");
    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        let listed = node
            .topics()
            .list_topics(ListTopicsRequest::default())
            .await;
        let listed = listed.expect("listed").into_inner().topics;
        assert_eq!(listed[0].partition_count, most);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_updates_of_different_fields_at_the_same_time_all_hold() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    for round in 1..=20 {
        let expected = TopicConfig {
            retention_ms: Some(round),
            retention_bytes: Some(round),
            record_bytes_max: i32::try_from(round).ok(),
            batch_bytes_max: i32::try_from(round).ok(),
        };
        let updating: Vec<_> = [
            "retention_ms",
            "retention_bytes",
            "record_bytes_max",
            "batch_bytes_max",
        ]
        .into_iter()
        .map(|field| {
            let mut service = node.topics();
            let request = UpdateTopicRequest {
                name: "orders".to_owned(),
                config: Some(expected),
                update_mask: Some(FieldMask {
                    paths: vec![field.to_owned()],
                }),
                replication_factor: 0,
            };
            tokio::spawn(async move { service.update_topic(request).await })
        })
        .collect();
        for call in updating {
            let updated = soon("an answer", call).await.expect("no panic");
            updated.expect("updated");
        }
        let listed = node
            .topics()
            .list_topics(ListTopicsRequest::default())
            .await;
        let listed = listed.expect("listed").into_inner().topics;
        assert_eq!(listed[0].config, Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_data_of_a_deleted_topic_to_go() {
    const PARTITIONS: i32 = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    for restarted in [false, true] {
        node.create_topic("orders", PARTITIONS).await;
        let value = "x".repeat(64 << 10);
        let producing = (0..PARTITIONS).map(|partition| {
            let mut service = node.produce();
            let request = ProduceRequest {
                topic: "orders".to_owned(),
                partition: Some(partition),
                records: vec![record(&value)],
                ..Default::default()
            };
            async move { service.produce(request).await.expect("produced") }
        });
        join_all(producing).await;
        delete(&node).await;
        let started = Instant::now();
        if restarted {
            // What is left is deleted while the node serves.
            node = node.restart(config(Some(directory.path()))).await;
        }
        for _ in 0..5 {
            node.create_topic("orders", 1).await;
            node.produce_values("orders", &["new"]).await;
            assert_eq!(node.values("orders", 0, 0).await, ["new"]);
            delete(&node).await;
        }
        let elapsed = started.elapsed();
        assert!(elapsed < QUICK, "{elapsed:?}");
    }
}

#[tokio::test]
async fn appends_that_are_under_way_when_their_topic_is_deleted_are_all_answered() {
    let node = TestNode::ephemeral().await;
    for _ in 0..5 {
        node.create_topic("orders", 1).await;
        let opened = Appender::open(&node, hello("orders")).await;
        let mut stream = opened.expect("opened");
        let deleting = async {
            // Not before the first ack, so that the stream is at work.
            let first = stream.ack_of(append(0)).await;
            assert!(outcome(first).is_ok());
            for id in 1..=100 {
                stream.send(append(id)).await;
            }
            delete(&node).await;
            stream.send(append(101)).await;
            stream.close();
            let mut acknowledged = 1;
            let mut refused = None;
            while let Some(ack) = stream.ack().await.expect("it ends with OK") {
                acknowledged += 1;
                let last = ack.correlation_id == 101;
                match outcome(ack) {
                    Ok(_) => assert!(!last, "the topic is gone"),
                    Err(reason) if last => refused = Some(reason),
                    // Whether it was written before the end is not known.
                    Err(reason) => assert!(
                        matches!(reason, ErrorReason::UnknownTopic | ErrorReason::NotReady),
                        "{reason:?}"
                    ),
                }
            }
            (acknowledged, refused)
        };
        let ended = soon("all acks", deleting).await;
        assert_eq!(ended, (102, Some(ErrorReason::UnknownTopic)));
        // The name is free, and nothing of the old topic comes back.
        node.create_topic("orders", 1).await;
        assert!(node.values("orders", 0, 0).await.is_empty());
        delete(&node).await;
    }
}

#[tokio::test]
async fn appends_that_expect_their_offsets_can_be_pipelined_until_somebody_else_has_taken_them() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let opened = Appender::open(&node, hello("orders")).await;
    let mut stream = opened.expect("opened");
    let expecting = |id: u64| Append {
        expected_offset: Some(id.cast_signed()),
        ..append(id)
    };
    for id in 0..20 {
        stream.send(expecting(id)).await;
    }
    for _ in 0..20 {
        let ack = stream.ack().await.expect("open").expect("an ack");
        let id = ack.correlation_id.cast_signed();
        let response = outcome(ack).expect("nobody else appended");
        assert_eq!(response.partitions[0].base_offset, id);
    }
    let of_somebody_else = ["of somebody else"; 20];
    assert_eq!(node.produce_values("orders", &of_somebody_else).await, 20);
    for id in 20..40 {
        stream.send(expecting(id)).await;
    }
    for _ in 20..40 {
        let ack = stream.ack().await.expect("open").expect("an ack");
        assert_eq!(outcome(ack), Err(ErrorReason::ExpectedOffsetMismatch));
    }
    assert_eq!(node.values("orders", 0, 0).await.len(), 40);
}
