//! Nodes hear of each other: who lives, and who is of another cluster.

use kelda_proto::v1::{
    GetStatusRequest, ListNodesRequest, cluster_service_client::ClusterServiceClient,
};

use super::bootstrap::{QUICK, quick};
use crate::support::{
    cluster::{Cluster, Options, Ports},
    connect, pages,
    wait::eventually,
};

/// Two nodes, and a third, with these flags.
async fn three(arguments: &[&str]) -> Cluster {
    Cluster::start_with(&[(); 3].map(|()| [&QUICK, arguments].concat())).await
}

/// Waits until a node has heard that these live, and no others.
async fn hears(cluster: &Cluster, asked: usize, alive: &[&str]) {
    let channel = connect(cluster[asked].address()).await;
    let name = format!("node {asked} hears of {alive:?}");
    eventually(&name, async || {
        let mut service = ClusterServiceClient::new(channel.clone());
        let nodes = service.list_nodes(ListNodesRequest {}).await.ok()?;
        let nodes = nodes.into_inner().nodes.into_iter();
        let living = nodes.filter(|node| node.alive).map(|node| node.name);
        let mut living: Vec<String> = living.collect();
        // Ids are given in the order of joining, which is anybody's.
        living.sort_unstable();
        (living == alive).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lives_is_heard_by_all_and_found_again_without_seeds() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    let key = "5e".repeat(32);
    std::fs::write(&file, format!("# the only one\n{key}\n")).expect("written");
    let file = file.to_str().expect("text");
    let mut cluster = three(&["--gossip-key-file", file]).await;
    for at in 0..3 {
        hears(&cluster, at, &["node1", "node2", "node3"]).await;
        let threads = cluster[at].threads();
        let gossip = threads.iter().filter(|name| *name == "gossip").count();
        assert_eq!(gossip, 1, "{threads:?}");
    }
    cluster[2].kill();
    hears(&cluster, 0, &["node1", "node2"]).await;
    hears(&cluster, 1, &["node1", "node2"]).await;
    cluster[2].options.seeds.clear();
    cluster[2].start();
    cluster[2].ready(3).await;
    for at in 0..3 {
        hears(&cluster, at, &["node1", "node2", "node3"]).await;
    }
    // All at once: only the catalog knows where the others are.
    for node in cluster.nodes() {
        node.kill();
        node.options.seeds.clear();
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    for at in 0..3 {
        hears(&cluster, at, &["node1", "node2", "node3"]).await;
    }
    assert!(cluster[1].terminate().await.success());
    hears(&cluster, 0, &["node1", "node3"]).await;
    let channel = connect(cluster[0].address()).await;
    let mut service = ClusterServiceClient::new(channel);
    let status = service.get_status(GetStatusRequest {}).await;
    let node = status.expect("answered").into_inner().node;
    assert!(node.expect("itself").alive);
    let metrics = pages::get(cluster[0].address(), "/metrics").await.text();
    assert!(metrics.contains("kelda_gossip_events_total{"), "{metrics}");
    assert!(metrics.contains("kelda_gossip_refused_total"), "{metrics}");
    for at in 0..3 {
        assert!(!cluster[at].log().contains(&key), "the key is not printed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_and_logged_once() {
    let mut cluster = Cluster::empty();
    for name in ["node1", "other"] {
        cluster.add(quick(Options::new(name, &Ports::cluster())));
    }
    for at in 0..2 {
        cluster[at].start();
        cluster[at].ready(1).await;
    }
    // It is told a seed of another cluster.
    assert!(cluster[1].terminate().await.success());
    let seed = cluster[0].cluster_address().expect("of a cluster");
    cluster[1].options.seeds = vec![seed.to_string()];
    cluster[1].start();
    cluster[1].ready(1).await;
    let refusals = |at: usize| {
        let log = cluster[at].log();
        log.matches("a node was refused in gossip").count()
    };
    eventually("it is refused some times", async || {
        let metrics = pages::get(cluster[0].address(), "/metrics").await.text();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("kelda_gossip_refused_total "));
        let count: u64 = count?.parse().expect("a number");
        (count > 2).then_some(())
    })
    .await;
    assert_eq!(refusals(0), 1);
    hears(&cluster, 0, &["node1"]).await;
    hears(&cluster, 1, &["other"]).await;
}
