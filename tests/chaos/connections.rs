//! Clients whose connections to a node break lose nothing and double nothing.

use std::time::Duration;

use kelda_proto::v1::{GetTopicRequest, topic_service_client::TopicServiceClient};

use tonic::transport::Channel;

use crate::support::{
    cluster::{Cluster, Direction, Ports, Proxy, Settings, Workload},
    connect,
    wait::eventually,
};

/// Records between two faults.
const BETWEEN: u64 = 200;

/// How many records a node has.
async fn stored(mut topics: TopicServiceClient<Channel>) -> u64 {
    let request = GetTopicRequest {
        name: "orders".to_owned(),
    };
    let topic = topics.get_topic(request).await.expect("answered");
    let topic = topic.into_inner().topic.expect("it is there");
    let ends = topic
        .partitions
        .iter()
        .map(|partition| partition.end_offset);
    ends.sum::<i64>().cast_unsigned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_requests_and_answers_lose_and_double_nothing() {
    let cluster = Cluster::single().await;
    cluster.create_topic("orders", 2, 1).await;
    let topics = TopicServiceClient::new(connect(cluster[0].address()).await);
    let port = Ports::client();
    let proxy = Proxy::start_on(port.client, cluster[0].address()).await;
    let settings = Settings {
        attempt: Duration::from_millis(500),
        ..Settings::new("orders", 2)
    };
    let workload = Workload::start(settings, vec![proxy.address()]);
    for _ in 0..3 {
        workload.progress(BETWEEN).await;
        proxy.reset();
    }
    let slow = Direction::delayed(Duration::from_millis(30));
    proxy.set(slow, slow);
    workload.progress(BETWEEN).await;
    for _ in 0..3 {
        // Records arrive, and nobody hears of it: each must be sent again, and stored once.
        proxy.set(Direction::default(), Direction::CUT);
        eventually("records arrive", async || {
            let stored = stored(topics.clone()).await;
            (stored > workload.acknowledged()).then_some(())
        })
        .await;
        proxy.reset();
        proxy.heal();
        workload.progress(BETWEEN).await;
    }
    let verdict = workload.finish().await;
    verdict.assert_valid();
    assert!(verdict.repeats > 0, "no answer was lost");
}
