//! Nodes that come back at other addresses, as in containers: they find each other all the same.

use kelda_proto::v1::{
    ListNodesRequest, ProduceRequest, Record, cluster_service_client::ClusterServiceClient,
    produce_service_client::ProduceServiceClient,
};

use crate::support::{
    cluster::{Cluster, Ports},
    connect,
    wait::eventually,
};

/// Waits until a node has the addresses of all of them as they are now.
async fn knows_where_all_are(cluster: &Cluster, asked: usize) {
    let mut expected: Vec<String> = cluster
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    expected.sort();
    let channel = connect(cluster.addresses()[asked]).await;
    eventually("the catalog has the new addresses", async || {
        let mut service = ClusterServiceClient::new(channel.clone());
        let nodes = service.list_nodes(ListNodesRequest {}).await.ok()?;
        let nodes = nodes.into_inner().nodes.into_iter();
        let mut addresses: Vec<String> = nodes.map(|node| node.address).collect();
        addresses.sort();
        (addresses == expected).then_some(())
    })
    .await;
}

/// Appends a record by way of a node.
async fn append(cluster: &Cluster, asked: usize) -> i64 {
    let mut service = ProduceServiceClient::new(connect(cluster.addresses()[asked]).await);
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        records: vec![Record::default()],
        ..ProduceRequest::default()
    };
    let produced = service.produce(request).await.expect("acknowledged");
    produced.into_inner().partitions[0].base_offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_comes_back_at_other_ports() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 1, 3).await;
    for moved in 0..3 {
        // Its seeds are left as they were: it knows the others by its log.
        cluster[moved].kill();
        cluster[moved].options.ports = Ports::cluster();
        cluster[moved].start();
        cluster.ready().await;
        for asked in 0..3 {
            knows_where_all_are(&cluster, asked).await;
        }
        let offset = i64::try_from(moved).expect("small");
        assert_eq!(append(&cluster, moved).await, offset, "by node {moved}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_come_back_at_other_ports_at_once() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 1, 3).await;
    assert_eq!(append(&cluster, 0).await, 0);
    for node in cluster.nodes() {
        node.kill();
        node.options.ports = Ports::cluster();
    }
    let seed = cluster[0].cluster_address().expect("of a cluster");
    for node in &mut cluster.nodes()[1..] {
        node.options.seeds = vec![seed.to_string()];
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    for asked in 0..3 {
        knows_where_all_are(&cluster, asked).await;
    }
    assert_eq!(
        append(&cluster, 2).await,
        1,
        "what was acknowledged is there"
    );
}
