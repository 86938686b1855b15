//! Partitions that have nothing to do fall quiet, and go on as soon as they are asked, whoever died meanwhile.

use std::net::SocketAddr;

use kelda_proto::v1::{
    CreateTopicRequest, GetTopicRequest, Partition, TopicConfig,
    topic_service_client::TopicServiceClient,
};

use super::ask::{self, TOPIC};
use crate::support::{
    cluster::{Cluster, Settings, Workload},
    connect, pages,
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
    quiet(cluster, f64::from(PARTITIONS) * TOPICS.len() as f64).await;
}

async fn quiet(cluster: &mut Cluster, all: f64) {
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

/// The one partition as a node sees it, without waking it.
async fn partition(address: SocketAddr) -> Option<Partition> {
    let name = TOPIC.to_owned();
    let mut topics = TopicServiceClient::new(connect(address).await);
    let topic = topics.get_topic(GetTopicRequest { name }).await.ok()?;
    topic.into_inner().topic?.partitions.pop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_too_old_while_all_partitions_are_quiet() {
    // Nobody looks at quiet partitions, but for what becomes too old meanwhile.
    let mut cluster = Cluster::start_with(&[&["--retention-interval", "5s"]; 3]).await;
    let address = cluster.addresses()[0];
    let request = CreateTopicRequest {
        name: TOPIC.to_owned(),
        replication_factor: 3,
        config: Some(TopicConfig {
            // Longer than it takes to fall quiet.
            retention_ms: Some(15_000),
            ..TopicConfig::default()
        }),
        ..CreateTopicRequest::default()
    };
    let mut topics = TopicServiceClient::new(connect(address).await);
    topics.create_topic(request).await.expect("created");
    ask::produce(address, "old soon")
        .await
        .expect("acknowledged");
    quiet(&mut cluster, 1.0).await;
    let before = partition(address).await.expect("known");
    assert_eq!((before.log_start_offset, before.end_offset), (0, 1));
    for address in cluster.addresses() {
        eventually("the record is deleted", async || {
            let partition = partition(address).await?;
            (partition.log_start_offset == 1).then_some(())
        })
        .await;
    }
}
