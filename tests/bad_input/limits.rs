//! Numbers that are negative or absurd, and enums without such a value.

use kelda_proto::v1::{self, ErrorReason, start_position::Position};
use tonic::Code;

use crate::support::{
    orders::{self, Orders, TOPIC},
    refusals::{assert_invalid_fields, assert_refusal},
};

#[tokio::test]
async fn fetch_names_every_limit_that_is_out_of_bounds() {
    let mut orders = Orders::start().await;
    type Change = fn(&mut v1::FetchRequest, i32);
    let table: [(&str, Change, &[i32]); 4] = [
        (
            "max_wait_ms",
            |request, value| request.max_wait_ms = value,
            &[-1, 60_001, i32::MAX, i32::MIN],
        ),
        (
            "min_bytes",
            |request, value| request.min_bytes = value,
            &[-1, (16 << 20) + 1, i32::MIN],
        ),
        (
            "max_bytes",
            |request, value| request.max_bytes = value,
            &[-1, (16 << 20) + 1, i32::MIN],
        ),
        (
            "format",
            |request, value| request.format = value,
            &[-1, 3, i32::MAX],
        ),
    ];
    for (field, change, values) in table {
        for value in values {
            let mut request = orders::fetch(0);
            change(&mut request, *value);
            let status = orders.node.consume().fetch(request).await;
            assert_invalid_fields(&status.expect_err("refused"), &[field]);
        }
    }
    let all = v1::FetchRequest {
        max_wait_ms: -1,
        min_bytes: -1,
        max_bytes: -1,
        format: -1,
        ..orders::fetch(0)
    };
    let status = orders.node.consume().fetch(all).await;
    let fields = ["max_wait_ms", "min_bytes", "max_bytes", "format"];
    assert_invalid_fields(&status.expect_err("refused"), &fields);
    orders.check().await;
}

#[tokio::test]
async fn consume_names_every_limit_that_is_out_of_bounds() {
    let mut orders = Orders::start().await;
    type Change = fn(&mut v1::ConsumeRequest, i32);
    let start = |value| {
        Some(v1::StartPosition {
            position: Some(Position::Boundary(value)),
        })
    };
    let table: [(&str, Change, &[i32]); 4] = [
        (
            "heartbeat_interval_ms",
            |request, value| request.heartbeat_interval_ms = value,
            &[-1, 1, 99, 60_001, i32::MIN],
        ),
        (
            "max_message_bytes",
            |request, value| request.max_message_bytes = value,
            &[-1, (8 << 20) + 1, i32::MAX],
        ),
        ("format", |request, value| request.format = value, &[-1, 3]),
        (
            "on_out_of_range",
            |request, value| request.on_out_of_range = value,
            &[-1, 4],
        ),
    ];
    let good = || v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        ..Default::default()
    };
    for (field, change, values) in table {
        for value in values {
            let mut request = good();
            change(&mut request, *value);
            let status = orders.node.consume().consume(request).await;
            assert_invalid_fields(&status.expect_err("refused"), &[field]);
        }
    }
    let partition = |partition, start| v1::PartitionStart { partition, start };
    let all = v1::ConsumeRequest {
        start: start(9),
        partitions: vec![partition(0, None), partition(0, start(-1))],
        ..good()
    };
    let status = orders.node.consume().consume(all).await;
    let fields = ["start", "partitions[1]", "partitions[1].start"];
    assert_invalid_fields(&status.expect_err("refused"), &fields);
    orders.check().await;
}

#[tokio::test]
async fn a_topic_needs_sizes_that_can_be() {
    let mut orders = Orders::start().await;
    let good = || v1::CreateTopicRequest {
        name: "other".to_owned(),
        ..Default::default()
    };
    let mut table = Vec::new();
    for partition_count in [-1, 10_001, i32::MAX, i32::MIN] {
        let request = v1::CreateTopicRequest {
            partition_count,
            ..good()
        };
        table.push((request, "partition_count"));
    }
    for replication_factor in [-1, 2, 4, 7, i32::MAX] {
        let request = v1::CreateTopicRequest {
            replication_factor,
            ..good()
        };
        table.push((request, "replication_factor"));
    }
    for (config, field) in bad_configs() {
        let config = Some(config);
        table.push((v1::CreateTopicRequest { config, ..good() }, field));
    }
    for (request, field) in table {
        let status = orders.node.topics().create_topic(request).await;
        assert_invalid_fields(&status.expect_err("refused"), &[field]);
    }
    for replication_factor in [3, 5] {
        let request = v1::CreateTopicRequest {
            replication_factor,
            ..good()
        };
        let status = orders.node.topics().create_topic(request).await;
        assert_refusal(
            &status.expect_err("refused"),
            Code::InvalidArgument,
            ErrorReason::NotEnoughNodes,
            &[
                ("replication_factor", &replication_factor.to_string()),
                ("nodes", "1"),
            ],
            "ask for fewer replicas",
        );
    }
    let name = "other".to_owned();
    let absent = orders
        .node
        .topics()
        .get_topic(v1::GetTopicRequest { name })
        .await;
    assert!(absent.is_err(), "nothing was created");
    orders.check().await;
}

fn bad_configs() -> Vec<(v1::TopicConfig, &'static str)> {
    let mut configs = Vec::new();
    for value in [0, -2, i64::MIN] {
        let config = v1::TopicConfig {
            retention_ms: Some(value),
            ..Default::default()
        };
        configs.push((config, "config.retention_ms"));
        let config = v1::TopicConfig {
            retention_bytes: Some(value),
            ..Default::default()
        };
        configs.push((config, "config.retention_bytes"));
    }
    for value in [0, -1, (1 << 20) + 1, i32::MAX] {
        let config = v1::TopicConfig {
            record_bytes_max: Some(value),
            ..Default::default()
        };
        configs.push((config, "config.record_bytes_max"));
    }
    for value in [0, -1, (8 << 20) + 1, i32::MAX] {
        let config = v1::TopicConfig {
            batch_bytes_max: Some(value),
            ..Default::default()
        };
        configs.push((config, "config.batch_bytes_max"));
    }
    configs
}

#[tokio::test]
async fn a_topic_is_not_changed_to_what_it_could_not_be_created_with() {
    let mut orders = Orders::start().await;
    for (config, field) in bad_configs() {
        let request = v1::UpdateTopicRequest {
            name: TOPIC.to_owned(),
            config: Some(config),
            update_mask: None,
            replication_factor: 0,
        };
        let status = orders.node.topics().update_topic(request).await;
        assert_invalid_fields(&status.expect_err("refused"), &[field]);
    }
    let mut mask = v1::UpdateTopicRequest {
        name: TOPIC.to_owned(),
        ..Default::default()
    };
    mask.update_mask = Some(prost_types::FieldMask {
        paths: vec!["retention_ms".to_owned(), "config.retention_ms".to_owned()],
    });
    let status = orders.node.topics().update_topic(mask).await;
    assert_invalid_fields(&status.expect_err("refused"), &["update_mask"]);
    for partition_count in [-1, 0, 1, 2, 10_001, i32::MAX] {
        let request = v1::AddPartitionsRequest {
            name: TOPIC.to_owned(),
            partition_count,
        };
        let status = orders.node.topics().add_partitions(request).await;
        assert_invalid_fields(&status.expect_err("refused"), &["partition_count"]);
    }
    orders.check().await;
}

#[tokio::test]
async fn lists_are_refused_if_they_are_negative_empty_or_say_a_thing_twice() {
    let mut orders = Orders::start().await;
    let mut topics = orders.node.topics();
    for page_size in [-1, i32::MIN] {
        let request = v1::ListTopicsRequest {
            page_size,
            ..Default::default()
        };
        let status = topics.list_topics(request).await;
        assert_invalid_fields(&status.expect_err("refused"), &["page_size"]);
    }
    let request = v1::ListTopicsRequest {
        page_size: i32::MAX,
        page_token: "\u{0}no token of ours".to_owned(),
        ..Default::default()
    };
    let listed = topics.list_topics(request).await.expect("a name like any");
    assert_eq!(listed.into_inner().topics.len(), 1);
    let trim = |partitions| v1::DeleteRecordsRequest {
        topic: TOPIC.to_owned(),
        partitions,
    };
    let status = topics.delete_records(trim(Vec::new())).await;
    assert_invalid_fields(&status.expect_err("refused"), &["partitions"]);
    let twice = vec![v1::PartitionTrim::default(); 2];
    let status = topics.delete_records(trim(twice)).await;
    assert_invalid_fields(&status.expect_err("refused"), &["partitions[1]"]);
    let twice = v1::ListOffsetsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![1, 0, 1],
        ..Default::default()
    };
    let status = topics.list_offsets(twice).await;
    assert_invalid_fields(&status.expect_err("refused"), &["partitions[2]"]);
    orders.check().await;
}

#[tokio::test]
async fn a_million_mistakes_get_one_short_answer() {
    let mut orders = Orders::start().await;
    let request = v1::ListOffsetsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![0; 1_000_000],
        ..Default::default()
    };
    let status = orders.node.topics().list_offsets(request).await;
    let status = status.expect_err("refused");
    let fields: Vec<_> = (1..=10).map(|at| format!("partitions[{at}]")).collect();
    let fields: Vec<_> = fields.iter().map(String::as_str).collect();
    crate::support::assert_refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    let details = tonic_types::StatusExt::get_details_bad_request(&status);
    let listed = details.expect("fields").field_violations;
    let listed: Vec<_> = listed.iter().map(|found| &*found.field).collect();
    assert_eq!(listed, fields);
    assert!(status.message().len() <= 512);
    orders.check().await;
}
