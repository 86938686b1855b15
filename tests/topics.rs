//! Topics: their life and their configuration.

mod support;

use kelda_proto::v1::{
    AddPartitionsRequest, CreateTopicRequest, DeleteTopicRequest, ErrorReason, GetTopicRequest,
    ListTopicsRequest, ProduceRequest, Topic, TopicConfig, UpdateTopicRequest,
};
use prost_types::FieldMask;
use support::{TestNode, assert_refused, config, record};
use tonic::{Code, Status};

fn create(name: &str) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

async fn get(node: &TestNode, name: &str) -> Result<Topic, Status> {
    let request = GetTopicRequest {
        name: name.to_owned(),
    };
    let response = node.topics().get_topic(request).await?;
    Ok(response.into_inner().topic.expect("a topic"))
}

async fn update(
    node: &TestNode,
    config: TopicConfig,
    mask: &[&str],
) -> Result<TopicConfig, Status> {
    let request = UpdateTopicRequest {
        name: "orders".to_owned(),
        config: Some(config),
        update_mask: Some(FieldMask {
            paths: mask.iter().map(|path| (*path).to_owned()).collect(),
        }),
        replication_factor: 0,
    };
    let response = node.topics().update_topic(request).await?;
    let topic = response.into_inner().topic.expect("a topic");
    assert!(topic.partitions.is_empty(), "without its partitions");
    Ok(topic.config.expect("with its configuration"))
}

async fn delete(node: &TestNode, name: &str) {
    let request = DeleteTopicRequest {
        name: name.to_owned(),
    };
    node.topics().delete_topic(request).await.expect("deleted");
}

#[tokio::test]
async fn a_new_topic_has_leaders_and_every_default_filled_in_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    let created = node.topics().create_topic(create("plain")).await;
    let plain = created.expect("created").into_inner().topic.expect("given");
    assert_eq!((plain.partition_count, plain.replication_factor), (1, 1));
    let defaults = TopicConfig {
        retention_ms: Some(604_800_000),
        retention_bytes: Some(-1),
        record_bytes_max: Some(1 << 20),
        batch_bytes_max: Some(1_114_112),
    };
    assert_eq!(plain.config, Some(defaults));
    let created_s = plain.create_time.expect("given").seconds;
    assert!(created_s > 1_700_000_000, "{created_s}");

    let request = CreateTopicRequest {
        partition_count: 3,
        replication_factor: 1,
        config: Some(TopicConfig {
            retention_ms: Some(-1),
            batch_bytes_max: Some(8 << 20),
            ..Default::default()
        }),
        ..create("orders")
    };
    let created = node.topics().create_topic(request).await;
    let orders = created.expect("created").into_inner().topic.expect("given");
    assert_ne!(orders.id, plain.id);
    let config_of_orders = TopicConfig {
        retention_ms: Some(-1),
        batch_bytes_max: Some(8 << 20),
        ..defaults
    };
    assert_eq!(orders.config, Some(config_of_orders));
    for (number, partition) in (0..).zip(&orders.partitions) {
        assert_eq!(partition.partition, number);
        assert_eq!(partition.leader, 1, "it waits until there is a leader");
        assert_eq!(partition.replicas, [1]);
        assert_eq!((partition.log_start_offset, partition.end_offset), (0, 0));
    }
    assert_eq!(orders.partitions.len(), 3);

    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        assert_eq!(get(&node, "orders").await.expect("there"), orders);
        assert_eq!(get(&node, "plain").await.expect("there"), plain);
        let again = node.topics().create_topic(create("orders")).await;
        let refused = again.expect_err("it exists");
        let metadata = assert_refused(&refused, Code::AlreadyExists, ErrorReason::TopicExists);
        assert_eq!(metadata["topic"], "orders");
    }
}

#[tokio::test]
async fn partitions_tell_how_much_they_hold() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 2).await;
    node.produce_at("orders", 1, &[1, 2, 3]).await;
    let partitions = get(&node, "orders").await.expect("there").partitions;
    assert_eq!((partitions[0].end_offset, partitions[1].end_offset), (0, 3));
    assert_eq!(partitions[0].size_bytes, 0);
    assert!(partitions[1].size_bytes > 0);
}

#[tokio::test]
async fn what_is_only_validated_is_not_created() {
    let node = TestNode::ephemeral().await;
    let request = CreateTopicRequest {
        partition_count: 4,
        validate_only: true,
        ..create("orders")
    };
    let checked = node.topics().create_topic(request.clone()).await;
    let checked = checked.expect("valid").into_inner().topic.expect("given");
    assert_eq!(
        (checked.name.as_str(), checked.partition_count),
        ("orders", 4)
    );
    assert!(checked.config.expect("given").retention_ms.is_some());
    let refused = get(&node, "orders").await.expect_err("not created");
    assert_refused(&refused, Code::NotFound, ErrorReason::UnknownTopic);

    node.create_topic("orders", 1).await;
    let refused = node.topics().create_topic(request).await;
    let status = refused.expect_err("it exists");
    assert_refused(&status, Code::AlreadyExists, ErrorReason::TopicExists);
    let invalid = CreateTopicRequest {
        replication_factor: 2,
        validate_only: true,
        ..create("others")
    };
    let refused = node.topics().create_topic(invalid).await;
    let status = refused.expect_err("2 replicas are no majority");
    assert_refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    let too_many = CreateTopicRequest {
        replication_factor: 3,
        validate_only: true,
        ..create("others")
    };
    let refused = node.topics().create_topic(too_many).await;
    let status = refused.expect_err("there is one node");
    assert_refused(&status, Code::InvalidArgument, ErrorReason::NotEnoughNodes);
}

#[tokio::test]
async fn topics_are_listed_by_name_prefix_and_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    for name in ["b.2", "a", "b.1", "c", "b.3", "B", "b"] {
        node.create_topic(name, 1).await;
    }
    let pages = async |node: &TestNode, prefix: &str, page_size| {
        let mut pages = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListTopicsRequest {
                prefix: prefix.to_owned(),
                page_size,
                page_token,
            };
            let page = node.topics().list_topics(request).await;
            let page = page.expect("listed").into_inner();
            for topic in &page.topics {
                assert!(topic.partitions.is_empty() && topic.partition_count == 1);
            }
            let names = page.topics.into_iter().map(|topic| topic.name);
            pages.push(names.collect::<Vec<_>>());
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return pages;
            }
        }
    };
    for restarted in [false, true] {
        if restarted {
            node = node.restart(config(Some(directory.path()))).await;
        }
        let all = ["B", "a", "b", "b.1", "b.2", "b.3", "c"];
        assert_eq!(pages(&node, "", 0).await, [all]);
        let of_three = [&all[..3], &all[3..6], &all[6..]];
        assert_eq!(pages(&node, "", 3).await, of_three);
        assert_eq!(pages(&node, "", 7).await, [all], "no empty last page");
        assert_eq!(pages(&node, "b.", 2).await, [&all[3..5], &all[5..6]]);
        assert_eq!(pages(&node, "nothing", 2).await, [[""; 0]]);
    }
    let negative = ListTopicsRequest {
        page_size: -1,
        ..Default::default()
    };
    let refused = node.topics().list_topics(negative).await;
    let status = refused.expect_err("a page has no negative size");
    assert_refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_and_what_it_changed_is_in_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 1).await;
    let defaults = get(&node, "orders").await.expect("there").config;
    let defaults = defaults.expect("given");
    let mut expected = defaults;

    let given = TopicConfig {
        retention_ms: Some(5000),
        record_bytes_max: Some(100),
        ..Default::default()
    };
    expected.retention_ms = Some(5000);
    let seen = update(&node, given, &["retention_ms"]).await;
    assert_eq!(seen.expect("updated"), expected);
    expected.record_bytes_max = Some(100);
    let seen = update(&node, given, &[]).await.expect("updated");
    assert_eq!(
        seen, expected,
        "without a mask: the fields that are present"
    );
    expected.retention_ms = defaults.retention_ms;
    let seen = update(&node, TopicConfig::default(), &["retention_ms"]).await;
    assert_eq!(seen.expect("updated"), expected, "back to its default");

    for (bad, mask) in [
        (TopicConfig::default(), &["retention"][..]),
        (
            TopicConfig {
                retention_bytes: Some(0),
                ..Default::default()
            },
            &[][..],
        ),
    ] {
        let refused = update(&node, bad, mask).await.expect_err("invalid");
        assert_refused(&refused, Code::InvalidArgument, ErrorReason::InvalidField);
    }

    let too_large = async |node: &TestNode| {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            records: vec![record("small"), record(&"x".repeat(100))],
            ..Default::default()
        };
        let refused = node.produce().produce(request).await;
        let status = refused.expect_err("the limit is in force");
        let reason = ErrorReason::RecordTooLarge;
        let metadata = assert_refused(&status, Code::InvalidArgument, reason);
        assert_eq!(metadata["record_index"], "1");
        assert_eq!(metadata["limit_bytes"], "100");
    };
    too_large(&node).await;
    let node = node.restart(config(Some(directory.path()))).await;
    let after = get(&node, "orders").await.expect("there");
    assert_eq!(after.config, Some(expected));
    too_large(&node).await;
}

#[tokio::test]
async fn the_name_of_a_deleted_topic_is_free_at_once_and_nothing_of_it_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    let mut before = 0;
    for round in 0..3 {
        let topic = node.create_topic("orders", 2).await;
        assert!(topic.id > before, "ids are never reused");
        before = topic.id;
        let value = format!("of round {round}");
        assert_eq!(node.produce_values("orders", &[&value]).await, 0);
        assert_eq!(node.values("orders", 0, 0).await, [value]);
        if round == 1 {
            node = node.restart(config(Some(directory.path()))).await;
            assert_eq!(get(&node, "orders").await.expect("there").id, topic.id);
        }
        if round < 2 {
            delete(&node, "orders").await;
            let refused = get(&node, "orders").await.expect_err("deleted");
            assert_refused(&refused, Code::NotFound, ErrorReason::UnknownTopic);
        }
    }
    let node = node.restart(config(Some(directory.path()))).await;
    assert_eq!(get(&node, "orders").await.expect("there").id, before);
    assert_eq!(node.values("orders", 0, 0).await, ["of round 2"]);
}

#[tokio::test]
async fn added_partitions_are_empty_and_those_before_keep_their_records() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 2).await;
    node.produce_values("orders", &["a"]).await;
    let add = |partition_count| AddPartitionsRequest {
        name: "orders".to_owned(),
        partition_count,
    };
    let added = node.topics().add_partitions(add(5)).await;
    let topic = added.expect("added").into_inner().topic.expect("given");
    assert_eq!((topic.partition_count, topic.partitions.len()), (5, 5));
    let ends: Vec<_> = topic.partitions.iter().map(|p| p.end_offset).collect();
    assert_eq!(ends, [1, 0, 0, 0, 0]);
    for partition_count in [5, 4, 0, -1, 10_001] {
        let refused = node.topics().add_partitions(add(partition_count)).await;
        let status = refused.expect_err("not more, or too many");
        assert_refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    node.produce_at("orders", 4, &[1, 2]).await;
    let node = node.restart(config(Some(directory.path()))).await;
    assert_eq!(
        get(&node, "orders").await.expect("there").partition_count,
        5
    );
    assert_eq!(node.values("orders", 0, 0).await, ["a"]);
    assert_eq!(node.values("orders", 4, 0).await.len(), 2);
}
