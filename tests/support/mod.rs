//! A real node in this process, reached over real gRPC.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod appender;
pub(crate) mod checker;
pub(crate) mod cluster;
pub(crate) mod orders;
pub(crate) mod pages;
pub(crate) mod panics;
pub(crate) mod process;
pub(crate) mod reader;
pub(crate) mod refusals;
pub(crate) mod wait;

use std::{net::SocketAddr, path::Path, time::Duration};

use kelda_proto::v1::{
    self, cluster_service_client::ClusterServiceClient,
    consume_service_client::ConsumeServiceClient, produce_service_client::ProduceServiceClient,
    topic_service_client::TopicServiceClient,
};
use kelda_server::{config::Config, node::Node};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node and a channel to it.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) channel: Channel,
}

/// The configuration of a node in `directory`, or in memory.
pub(crate) fn config(directory: Option<&Path>) -> Config {
    Config {
        port: 0,
        workers: 2,
        data_dir: directory.map(Path::to_owned).unwrap_or_default(),
        ephemeral: directory.is_none(),
        free_floor_bytes: 1 << 20,
        ..Config::default()
    }
}

impl TestNode {
    pub(crate) async fn start(config: Config) -> Self {
        panics::watch();
        let node = Node::start(config).await.expect("the node starts");
        let channel = connect(node.address()).await;
        Self { node, channel }
    }

    pub(crate) async fn ephemeral() -> Self {
        Self::start(config(None)).await
    }

    /// Stops the node and starts it again with another configuration, most often the same one.
    pub(crate) async fn restart(self, config: Config) -> Self {
        self.node.shutdown().await;
        Self::start(config).await
    }

    pub(crate) fn produce(&self) -> ProduceServiceClient<Channel> {
        ProduceServiceClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    pub(crate) fn consume(&self) -> ConsumeServiceClient<Channel> {
        consume_service(&self.channel)
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn create_topic(&self, name: &str, partition_count: i32) -> v1::Topic {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partition_count,
            ..Default::default()
        };
        let response = self
            .topics()
            .create_topic(request)
            .await
            .expect("the topic is created");
        response.into_inner().topic.expect("the answer has a topic")
    }

    /// Produces values without keys to partition 0 and answers the first offset.
    pub(crate) async fn produce_values(&self, topic: &str, values: &[&str]) -> i64 {
        let request = v1::ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(0),
            records: values.iter().map(|value| record(value)).collect(),
            ..Default::default()
        };
        let response = self
            .produce()
            .produce(request)
            .await
            .expect("produced")
            .into_inner();
        response.partitions[0].base_offset
    }

    /// Produces one batch of records with these timestamps.
    pub(crate) async fn produce_at(&self, topic: &str, partition: i32, times: &[i64]) {
        let at = |timestamp_ms: &i64| v1::Record {
            timestamp_ms: *timestamp_ms,
            ..record("x")
        };
        let request = v1::ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records: times.iter().map(at).collect(),
            ..Default::default()
        };
        self.produce().produce(request).await.expect("produced");
    }

    /// All values of a partition from an offset.
    pub(crate) async fn values(&self, topic: &str, partition: i32, mut offset: i64) -> Vec<String> {
        let mut values = Vec::new();
        loop {
            let request = v1::FetchRequest {
                topic: topic.to_owned(),
                partition,
                offset,
                max_bytes: 1 << 20,
                ..Default::default()
            };
            let fetched = self
                .consume()
                .fetch(request)
                .await
                .expect("fetched")
                .into_inner();
            if fetched.next_offset == offset {
                return values;
            }
            for consumed in fetched.records {
                assert_eq!(consumed.offset, offset, "offsets are without gaps");
                offset += 1;
                let value = consumed
                    .record
                    .and_then(|record| record.value)
                    .unwrap_or_default();
                values.push(String::from_utf8_lossy(&value).into_owned());
            }
            assert_eq!(offset, fetched.next_offset);
        }
    }
}

pub(crate) fn consume_service(channel: &Channel) -> ConsumeServiceClient<Channel> {
    ConsumeServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20)
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint
        .connect()
        .await
        .expect("the node accepts connections")
}

pub(crate) fn record(value: &str) -> v1::Record {
    v1::Record {
        value: Some(value.to_owned().into()),
        ..Default::default()
    }
}

/// Asserts code and reason of a refusal and returns the metadata of its ErrorInfo.
pub(crate) fn assert_refused(
    status: &Status,
    code: Code,
    reason: v1::ErrorReason,
) -> std::collections::HashMap<String, String> {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status
        .get_details_error_info()
        .expect("every status has an ErrorInfo");
    assert_eq!(info.domain, "kelda");
    let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    assert_eq!(info.reason, name, "{status:?}");
    info.metadata
}
