//! Partitions that have nothing to do fall quiet, and go on as soon as they are asked, whoever died meanwhile.

use std::net::SocketAddr;

use crate::support::{
    cluster::{Cluster, Settings, Workload},
    pages,
    wait::eventually,
};

const TOPICS: [&str; 3] = ["one", "two", "three"];
const PARTITIONS: i32 = 2;
/// Records that show that all partitions of a topic go on.
const SOME: u64 = 100;

async fn start() -> Cluster {
    let cluster = Cluster::start(3).await;
    for topic in TOPICS {
        cluster.create_topic(topic, PARTITIONS, 3).await;
    }
    cluster
}

fn running(cluster: &mut Cluster) -> Vec<SocketAddr> {
    let nodes = cluster.nodes().iter_mut();
    let running = nodes.filter_map(|node| node.runs().then(|| node.address()));
    running.collect()
}

/// Waits until all partitions are quiet on each node that runs.
async fn all_quiet(cluster: &mut Cluster) {
    let all = f64::from(PARTITIONS) * TOPICS.len() as f64;
    for address in running(cluster) {
        eventually("all partitions are quiet", async || {
            let quiet = pages::metric(address, "kelda_quiesced_partitions").await?;
            (quiet.to_bits() == all.to_bits()).then_some(())
        })
        .await;
    }
}

async fn use_all_of(topic: &str, cluster: &mut Cluster) {
    let workload = Workload::start(Settings::new(topic, PARTITIONS), running(cluster));
    workload.progress(SOME).await;
    workload.finish().await.assert_valid();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_partitions_go_on_when_they_are_asked() {
    let mut cluster = start().await;
    for topic in TOPICS {
        all_quiet(&mut cluster).await;
        use_all_of(topic, &mut cluster).await;
    }
    all_quiet(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_partitions_survive_the_death_and_the_return_of_their_leaders() {
    let mut cluster = start().await;
    for (killed, topic) in TOPICS.into_iter().enumerate() {
        all_quiet(&mut cluster).await;
        cluster[killed].kill();
        use_all_of(topic, &mut cluster).await;
        // They fall quiet without the dead one, too.
        all_quiet(&mut cluster).await;
        cluster[killed].start();
        cluster.ready().await;
    }
    all_quiet(&mut cluster).await;
}
