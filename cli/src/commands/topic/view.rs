//! How topics are shown.

use kelda_proto::v1;
use serde::Serialize;

use crate::{
    output::{Table, pairs},
    parse::{duration, size, time},
};

/// A topic as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Topic {
    name: String,
    id: u64,
    partition_count: i32,
    replication_factor: i32,
    config: Config,
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Config {
    retention_ms: Option<i64>,
    retention_bytes: Option<i64>,
    record_bytes_max: Option<i32>,
    batch_bytes_max: Option<i32>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    leader: u64,
    replicas: Vec<u64>,
    log_start_offset: Option<i64>,
    end_offset: Option<i64>,
    size_bytes: Option<i64>,
}

impl From<v1::Topic> for Topic {
    fn from(topic: v1::Topic) -> Self {
        let config = topic.config.unwrap_or_default();
        Self {
            name: topic.name,
            id: topic.id,
            partition_count: topic.partition_count,
            replication_factor: topic.replication_factor,
            config: Config {
                retention_ms: config.retention_ms,
                retention_bytes: config.retention_bytes,
                record_bytes_max: config.record_bytes_max,
                batch_bytes_max: config.batch_bytes_max,
            },
            create_time: topic.create_time.as_ref().map(timestamp),
            partitions: topic.partitions.into_iter().map(Partition::from).collect(),
        }
    }
}

impl From<v1::Partition> for Partition {
    fn from(partition: v1::Partition) -> Self {
        let known = |number: i64| (number >= 0).then_some(number);
        Self {
            partition: partition.partition,
            leader: partition.leader,
            replicas: partition.replicas,
            log_start_offset: known(partition.log_start_offset),
            end_offset: known(partition.end_offset),
            size_bytes: known(partition.size_bytes),
        }
    }
}

impl Topic {
    /// The topic in one sentence behind a verb: `created topic orders (3 partitions, replication factor 1)`.
    pub(crate) fn sentence(&self, verb: &str) -> String {
        let partitions = if self.partition_count == 1 {
            "partition"
        } else {
            "partitions"
        };
        format!(
            "{verb} topic {} ({} {partitions}, replication factor {})",
            self.name, self.partition_count, self.replication_factor
        )
    }

    /// Everything that is known about the topic.
    pub(crate) fn description(&self) -> String {
        let mut text = pairs(&[
            ("topic", self.name.clone()),
            ("id", self.id.to_string()),
            ("partitions", self.partition_count.to_string()),
            ("replication factor", self.replication_factor.to_string()),
            ("retention", self.retention()),
            (
                "retention bytes",
                bytes_or_unlimited(self.config.retention_bytes),
            ),
            (
                "largest record",
                bytes_or_unlimited(self.config.record_bytes_max.map(i64::from)),
            ),
            (
                "largest batch",
                bytes_or_unlimited(self.config.batch_bytes_max.map(i64::from)),
            ),
            ("created", self.create_time.clone().unwrap_or_default()),
        ]);
        let mut table = Table::new([
            "PARTITION",
            "LEADER",
            "REPLICAS",
            "START",
            "END",
            "RECORDS",
            "SIZE",
        ]);
        for partition in &self.partitions {
            table.row(partition.cells());
        }
        text.push('\n');
        text.push_str(&table.render());
        text
    }

    fn retention(&self) -> String {
        self.config
            .retention_ms
            .map(duration::human)
            .unwrap_or_default()
    }
}

impl Partition {
    fn cells(&self) -> [String; 7] {
        let leader = if self.leader == 0 {
            "none".to_owned()
        } else {
            self.leader.to_string()
        };
        let replicas: Vec<String> = self.replicas.iter().map(u64::to_string).collect();
        let unknown = || "-".to_owned();
        let number = |number: Option<i64>| number.map_or_else(unknown, |it| it.to_string());
        let records = || Some(self.end_offset?.saturating_sub(self.log_start_offset?));
        [
            self.partition.to_string(),
            leader,
            replicas.join(","),
            number(self.log_start_offset),
            number(self.end_offset),
            number(records()),
            self.size_bytes.map_or_else(unknown, size::human),
        ]
    }
}

/// Topics in one table.
pub(crate) fn table(topics: &[Topic]) -> String {
    let mut table = Table::new([
        "NAME",
        "PARTITIONS",
        "REPLICATION",
        "RETENTION",
        "RETENTION-BYTES",
        "CREATED",
    ]);
    for topic in topics {
        table.row([
            topic.name.clone(),
            topic.partition_count.to_string(),
            topic.replication_factor.to_string(),
            topic.retention(),
            bytes_or_unlimited(topic.config.retention_bytes),
            topic.create_time.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

fn bytes_or_unlimited(bytes: Option<i64>) -> String {
    match bytes {
        None => String::new(),
        Some(bytes) if bytes < 0 => "unlimited".to_owned(),
        Some(bytes) => size::human(bytes),
    }
}

/// RFC 3339 text of a message's timestamp.
pub(crate) fn timestamp(timestamp: &prost_types::Timestamp) -> String {
    let milliseconds = timestamp.seconds.saturating_mul(1_000);
    time::format(milliseconds.saturating_add(i64::from(timestamp.nanos / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::from(v1::Topic {
            name: "orders".to_owned(),
            id: 4,
            partition_count: 1,
            replication_factor: 1,
            config: Some(v1::TopicConfig {
                retention_ms: Some(604_800_000),
                retention_bytes: Some(-1),
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_000_000_000,
                nanos: 5_000_000,
            }),
            partitions: vec![v1::Partition {
                partition: 0,
                leader: 1,
                replicas: vec![1, 2],
                log_start_offset: 10,
                end_offset: 30,
                size_bytes: 2048,
            }],
        })
    }

    #[test]
    fn a_description_has_the_configuration_and_the_partitions() {
        let text = topic().description();
        assert!(text.contains("retention:           7d\n"), "{text}");
        assert!(text.contains("retention bytes:     unlimited\n"), "{text}");
        assert!(
            text.contains("created:             2001-09-09T01:46:40.005Z\n"),
            "{text}"
        );
        assert!(
            text.ends_with("0           1        1,2        10      30    20        2.00 KiB\n"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_names_of_the_messages() {
        let json = serde_json::to_value(topic()).expect("serialisable");
        assert_eq!(json["config"]["retention_ms"], 604_800_000);
        assert_eq!(json["partitions"][0]["end_offset"], 30);
        assert_eq!(json["create_time"], "2001-09-09T01:46:40.005Z");
    }
}
