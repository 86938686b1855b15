//! Nodes that are killed under load: what was acknowledged stays, once and in order.

use kelda_proto::v1::{
    GetTopicRequest, ListNodesRequest, cluster_service_client::ClusterServiceClient,
    topic_service_client::TopicServiceClient,
};

use crate::support::{
    cluster::{Cluster, Settings, Workload},
    connect,
    wait::eventually,
};

/// Records between two faults.
const BETWEEN: u64 = 300;

/// Place in the cluster of the node that leads partition 0, as a node that lives says.
async fn leader(cluster: &Cluster, asked: usize) -> usize {
    let address = cluster.addresses()[asked];
    let leader = eventually("partition 0 has a leader", async || {
        let channel = connect(address).await;
        let request = GetTopicRequest {
            name: "orders".to_owned(),
        };
        let topic = TopicServiceClient::new(channel.clone())
            .get_topic(request)
            .await
            .ok()?;
        let leader = topic.into_inner().topic?.partitions.first()?.leader;
        let nodes = ClusterServiceClient::new(channel)
            .list_nodes(ListNodesRequest {})
            .await
            .ok()?;
        let mut nodes = nodes.into_inner().nodes.into_iter();
        nodes
            .find(|node| node.id == leader)
            .map(|node| node.address)
    });
    let leader = leader.await;
    let at = cluster
        .addresses()
        .iter()
        .position(|address| address.to_string() == leader);
    at.expect("the leader is one of them")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_are_killed_under_load_lose_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 3, 3).await;
    let workload = Workload::start(Settings::new("orders", 3), cluster.addresses());
    let mut asked = 0;
    for _ in 0..3 {
        workload.progress(BETWEEN).await;
        let killed = leader(&cluster, asked).await;
        cluster[killed].kill();
        workload.progress(BETWEEN).await;
        cluster[killed].start();
        cluster.ready().await;
        asked = killed;
    }
    workload.progress(BETWEEN).await;
    let verdict = workload.finish().await;
    println!("{:#}", verdict.json());
    verdict.assert_valid();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_at_once_under_load_lose_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 3, 3).await;
    let workload = Workload::start(Settings::new("orders", 3), cluster.addresses());
    for _ in 0..2 {
        workload.progress(BETWEEN).await;
        for node in cluster.nodes() {
            node.kill();
        }
        for node in cluster.nodes() {
            node.start();
        }
        cluster.ready().await;
    }
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_frozen_under_load_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 3, 3).await;
    let workload = Workload::start(Settings::new("orders", 3), cluster.addresses());
    workload.progress(BETWEEN).await;
    let frozen = leader(&cluster, 0).await;
    cluster[frozen].pause();
    workload.progress(BETWEEN).await;
    cluster[frozen].resume();
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
}
