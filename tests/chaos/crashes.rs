//! A node in a process of its own that is killed while clients write and read loses nothing.

use crate::support::cluster::{Cluster, Settings, Workload};

/// Records between two faults.
const BETWEEN: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_three_times_under_load_loses_nothing() {
    let mut cluster = Cluster::single().await;
    cluster.create_topic("orders", 3, 1).await;
    let workload = Workload::start(Settings::new("orders", 3), cluster.addresses());
    for _ in 0..3 {
        workload.progress(BETWEEN).await;
        cluster[0].kill();
        cluster[0].start();
        cluster.ready().await;
    }
    workload.progress(BETWEEN).await;
    let verdict = workload.finish().await;
    println!("{:#}", verdict.json());
    verdict.assert_valid();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_paused_and_stopped_in_order_under_load_loses_nothing() {
    let mut cluster = Cluster::single().await;
    cluster.create_topic("orders", 1, 1).await;
    let workload = Workload::start(Settings::new("orders", 1), cluster.addresses());
    workload.progress(BETWEEN).await;
    cluster[0].pause();
    let before = workload.acknowledged();
    // The fault is this long: longer than an attempt of a client takes, so that all of them notice.
    tokio::time::sleep(Settings::new("orders", 1).attempt * 2).await;
    assert!(workload.acknowledged() - before < 50, "it does not run");
    cluster[0].resume();
    workload.progress(BETWEEN).await;
    let status = cluster[0].terminate().await;
    assert!(status.success(), "{status}");
    cluster[0].start();
    cluster.ready().await;
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
}
