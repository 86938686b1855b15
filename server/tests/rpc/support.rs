//! A node in memory, and clients of it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use kelda_proto::v1::{
    CreateTopicRequest, ProduceRequest, Record, consume_service_client::ConsumeServiceClient,
    produce_service_client::ProduceServiceClient, topic_service_client::TopicServiceClient,
};
use kelda_server::{config::Config, node::Node};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::{ErrorInfo, StatusExt as _};

/// Longer than anything here takes, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a node on a free port.
pub(crate) async fn node() -> Node {
    node_with(|_| ()).await
}

/// Starts a node with another configuration.
pub(crate) async fn node_with(change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config {
        ephemeral: true,
        port: 0,
        ..Config::default()
    };
    change(&mut config);
    Node::start(config).await.unwrap()
}

/// Connects to a node.
pub(crate) async fn channel(node: &Node) -> Channel {
    connect(node.address()).await
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// Creates a topic.
pub(crate) async fn create_topic(channel: &Channel, name: &str, partition_count: i32) {
    let request = CreateTopicRequest {
        name: name.to_owned(),
        partition_count,
        ..CreateTopicRequest::default()
    };
    let mut topics = TopicServiceClient::new(channel.clone());
    topics.create_topic(request).await.unwrap();
}

/// A record without a key.
pub(crate) fn record(value: impl Into<Bytes>) -> Record {
    Record {
        value: Some(value.into()),
        ..Record::default()
    }
}

/// Appends one record to a partition and returns its offset.
pub(crate) async fn produce(channel: &Channel, topic: &str, partition: i32, value: &str) -> i64 {
    let request = ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        records: vec![record(value.to_owned())],
        ..ProduceRequest::default()
    };
    let mut producer = ProduceServiceClient::new(channel.clone());
    let produced = producer.produce(request).await.unwrap().into_inner();
    produced.partitions[0].base_offset
}

/// A client that reads.
pub(crate) fn consumer(channel: &Channel) -> ConsumeServiceClient<Channel> {
    ConsumeServiceClient::new(channel.clone())
}

/// The error's reason and metadata, which every error has.
pub(crate) fn info(status: &Status) -> ErrorInfo {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"))
}
