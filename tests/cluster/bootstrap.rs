//! Nodes that found a cluster together: one cluster, whichever of them dies when.

use std::time::Duration;

use kelda_proto::v1::{
    GetStatusRequest, ListNodesRequest, cluster_service_client::ClusterServiceClient,
};

use crate::support::{
    PATIENCE,
    cluster::{Cluster, Options, Ports},
    connect,
    wait::eventually,
};

/// Intervals that make a test quick.
pub(super) const QUICK: [&str; 10] = [
    "--gossip-interval",
    "50ms",
    "--gossip-push-pull-interval",
    "500ms",
    "--gossip-probe-interval",
    "300ms",
    "--gossip-probe-timeout",
    "100ms",
    "--gossip-metadata-interval",
    "50ms",
];

pub(super) fn quick(options: Options) -> Options {
    let arguments = QUICK.map(str::to_owned).into();
    Options {
        arguments,
        ..options
    }
}

/// Three nodes that name each other, still to be started.
fn three() -> Cluster {
    three_that_name(3, [&[0, 1, 2]; 3])
}

/// Three nodes with the seeds of each, of which so many are to found.
fn three_that_name(expect: usize, seeds_of: [&[usize]; 3]) -> Cluster {
    let mut cluster = Cluster::empty();
    let ports = [(); 3].map(|()| Ports::cluster());
    let seed = |at: &usize| {
        let port = ports[*at].cluster.expect("of a cluster");
        format!("127.0.0.1:{port}")
    };
    for (at, seeds) in seeds_of.into_iter().enumerate() {
        let mut options = quick(Options::new(&format!("node{}", at + 1), &ports[at]));
        options.seeds = seeds.iter().map(seed).collect();
        let expect = ["--bootstrap-expect".to_owned(), expect.to_string()];
        options.arguments.extend(expect);
        cluster.add(options);
    }
    cluster
}

/// Waits until all nodes are of one cluster that has had so many nodes, and returns its id.
async fn one_cluster(cluster: &mut Cluster, nodes: usize) -> String {
    let mut id = String::new();
    for node in cluster.nodes() {
        let status = node.ready(nodes).await;
        assert!(id.is_empty() || id == status.cluster_id, "two clusters");
        id = status.cluster_id;
    }
    id
}

fn foundings(cluster: &Cluster, at: usize) -> usize {
    cluster[at].log().matches("founding a cluster").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_come_is_waited_for_and_named_once() {
    let mut cluster = three();
    cluster[1].start();
    cluster[2].start();
    for at in [1, 2] {
        let log = || std::future::ready(cluster[at].log());
        eventually("it says what it waits for", async || {
            log().await.contains("--bootstrap-expect").then_some(())
        })
        .await;
        assert!(!cluster[at].directory().join("kelda.marker").exists());
    }
    cluster[0].start();
    one_cluster(&mut cluster, 3).await;
    let founded: Vec<usize> = (0..3).map(|at| foundings(&cluster, at)).collect();
    assert_eq!(founded, [1, 0, 0], "the smallest name founds");
    for at in [1, 2] {
        let log = cluster[at].log();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("--bootstrap-expect"))
            .collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("node2, node3"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_cluster_whichever_node_dies_at_whichever_step() {
    for step in ["kelda.joining", "kelda.marker"] {
        for victim in 0..3 {
            let mut cluster = three();
            for node in cluster.nodes() {
                node.start();
            }
            let file = cluster[victim].directory().join(step);
            let marker = cluster[victim].directory().join("kelda.marker");
            eventually("it takes its step", async || {
                (file.exists() || marker.exists()).then_some(())
            })
            .await;
            cluster[victim].kill();
            cluster[victim].start();
            // Three nodes and no more: none has joined twice.
            one_cluster(&mut cluster, 3).await;
            let founded: usize = (0..3).map(|at| foundings(&cluster, at)).sum();
            assert_eq!(founded, 1, "{step} of node {victim}");
        }
    }
}

/// Stops the founder in order. Whether another node leads then.
async fn led_without_founder(cluster: &mut Cluster) -> bool {
    assert!(cluster[0].terminate().await.success());
    let channel = connect(cluster[1].address()).await;
    let mut service = ClusterServiceClient::new(channel);
    let status = service.get_status(GetStatusRequest {}).await;
    status.expect("answered").into_inner().catalog_leader > 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_was_wiped_joins_the_cluster_that_it_founded() {
    let mut cluster = three();
    for node in cluster.nodes() {
        node.start();
    }
    let id = one_cluster(&mut cluster, 3).await;
    // Until the others vote too, the cluster is nowhere but in the founder's directory.
    let mut look_again = Duration::from_millis(250);
    while !led_without_founder(&mut cluster).await {
        assert!(look_again < PATIENCE, "nobody but the founder votes");
        cluster[0].start();
        cluster.ready().await;
        // Nothing else shows who votes, and looking is what disturbs them.
        tokio::time::sleep(look_again).await;
        look_again *= 2;
    }
    for at in [1, 2] {
        cluster[at].kill();
    }
    cluster[0].wipe();
    cluster[0].start();
    eventually("it waits for the others", async || {
        let log = cluster[0].log();
        log.contains("--bootstrap-expect").then_some(())
    })
    .await;
    cluster[1].start();
    cluster[2].start();
    assert_eq!(one_cluster(&mut cluster, 4).await, id);
    assert_eq!(foundings(&cluster, 0), 1, "not a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_agreed_to_a_founder_waits_for_it_and_says_what_to_do() {
    // One more than are expected, and nobody names them all.
    let mut cluster = three_that_name(2, [&[0, 2], &[1, 2], &[1, 2]]);
    // In the way of the marker: node2 has the consent of node3 and ends before it has founded.
    let obstacle = cluster[1].directory().join("kelda.marker.new");
    std::fs::create_dir_all(&obstacle).expect("created");
    cluster[1].start();
    cluster[2].start();
    assert!(!cluster[1].ended().await.success());
    let agreed = cluster[2].directory().join("kelda.founder");
    assert_eq!(
        std::fs::read_to_string(&agreed).expect("written"),
        "node2\n"
    );
    // One with a smaller name comes, and node3 does not remember but by what it wrote.
    cluster[2].kill();
    cluster[0].start();
    cluster[2].start();
    eventually("it refuses another founder", async || {
        let log = cluster[2].log();
        let refuses =
            log.contains("agreed that node2") && log.contains("delete its data directory");
        refuses.then_some(())
    })
    .await;
    assert!(!cluster[0].directory().join("kelda.marker").exists());
    cluster[0].kill();
    std::fs::remove_dir(&obstacle).expect("removed");
    cluster[1].start();
    for at in [1, 2] {
        cluster[at].ready(2).await;
    }
    assert!(!agreed.exists(), "it has a cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_expectations_are_refused_by_name() {
    let mut cluster = Cluster::empty();
    let ports = [Ports::cluster(), Ports::cluster()];
    let seed = |ports: &Ports| format!("127.0.0.1:{}", ports.cluster.expect("of a cluster"));
    for (number, expect) in [(1, 2), (2, 3)] {
        let own = &ports[number - 1];
        let mut options = quick(Options::new(&format!("node{number}"), own));
        options.seeds = ports.iter().map(seed).collect();
        options
            .arguments
            .extend(["--bootstrap-expect".to_owned(), expect.to_string()]);
        cluster.add(options);
    }
    cluster[0].start();
    cluster[1].start();
    eventually("one of them says what is wrong", async || {
        let says = |at: usize| cluster[at].log().contains("give all the same");
        (says(0) || says(1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_between_joining_and_its_marker_is_no_second_node() {
    let mut cluster = Cluster::empty();
    cluster.add(Options::new("node1", &Ports::cluster()));
    let mut options = Options::new("node2", &Ports::cluster());
    options.seeds = vec![cluster[0].cluster_address().expect("one").to_string()];
    cluster.add(options);
    cluster[0].start();
    cluster[0].ready(1).await;
    // In the way of the marker: the node ends where it would write it.
    let obstacle = cluster[1].directory().join("kelda.marker.new");
    std::fs::create_dir_all(&obstacle).expect("created");
    for _ in 0..2 {
        cluster[1].start();
        let ended = cluster[1].ended().await;
        assert!(!ended.success());
        let log = cluster[1].log();
        assert!(
            log.contains("joined") && log.contains("kelda.marker"),
            "{log}"
        );
    }
    std::fs::remove_dir(&obstacle).expect("removed");
    cluster[1].start();
    one_cluster(&mut cluster, 2).await;
    let channel = connect(cluster[0].address()).await;
    let mut service = ClusterServiceClient::new(channel);
    let nodes = service.list_nodes(ListNodesRequest {}).await;
    let nodes = nodes.expect("answered").into_inner().nodes;
    let ids: Vec<u64> = nodes.into_iter().map(|node| node.id).collect();
    assert_eq!(ids, [1, 2]);
    assert!(!cluster[1].directory().join("kelda.joining").exists());
}
