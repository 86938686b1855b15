//! A node that has lost the others says so, and who asks it for what it can not do hears why, soon.

use std::{
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use kelda_proto::v1::{
    GetStatusRequest, GetTopicRequest, ListNodesRequest,
    cluster_service_client::ClusterServiceClient, topic_service_client::TopicServiceClient,
};

use super::ask::{self, TOPIC};
use crate::support::{cluster::Cluster, connect, wait::eventually};

/// Runs a command of a user against one node with the patience that it has by default, and checks that it ends in time.
async fn run(cluster: &Cluster, node: usize, arguments: &[&str]) -> Output {
    let mut command = cluster[node].options.command();
    command
        .args(arguments)
        .args(["--server", &cluster.addresses()[node].to_string()])
        .stdin(Stdio::null());
    let started = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("the binary starts");
    assert!(started.elapsed() < Duration::from_secs(20), "{arguments:?}");
    output
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn commands_end_soon_and_say_why(cluster: &Cluster, left: usize) {
    let created = run(cluster, left, &["topic", "create", "other"]).await;
    assert_eq!(created.status.code(), Some(1));
    assert!(
        error(&created).contains("catalog has no leader"),
        "{}",
        error(&created)
    );
    let consumed = run(cluster, left, &["consume", TOPIC]).await;
    assert_eq!(consumed.status.code(), Some(1));
    assert!(
        error(&consumed).contains("has no leader"),
        "{}",
        error(&consumed)
    );
    let health = run(cluster, left, &["cluster", "health"]).await;
    let text = String::from_utf8_lossy(&health.stdout).into_owned();
    let own = &cluster[left].options.name;
    assert!(
        !text.contains(own.as_str()),
        "it does not call itself silent: {text}"
    );
    assert!(
        text.contains("partitions without leader:        2"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_says_so_and_refuses_soon() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 2, 3).await;
    ask::produce(cluster.addresses()[0], "before")
        .await
        .expect("acknowledged");
    let left = cluster.leader(TOPIC, 0, None).await;
    let others = [(left + 1) % 3, (left + 2) % 3];
    for other in others {
        cluster[other].kill();
    }
    let channel = connect(cluster.addresses()[left]).await;
    let mut service = ClusterServiceClient::new(channel.clone());
    let status = eventually("the node has noticed", async || {
        let status = service.clone().get_status(GetStatusRequest {}).await;
        let status = status.ok()?.into_inner();
        (!status.ready).then_some(status)
    })
    .await;
    assert_eq!(status.leaderless_partition_count, 2);
    assert_eq!(status.catalog_leader, 0);
    let topic = TopicServiceClient::new(channel)
        .get_topic(GetTopicRequest {
            name: TOPIC.to_owned(),
        })
        .await;
    let topic = topic
        .expect("it is known")
        .into_inner()
        .topic
        .expect("given");
    assert!(
        topic.partitions.iter().all(|it| it.leader == 0),
        "{topic:?}"
    );

    commands_end_soon_and_say_why(&cluster, left).await;

    for other in others {
        cluster[other].start();
    }
    cluster.ready().await;
    let nodes = service
        .list_nodes(ListNodesRequest {})
        .await
        .expect("answered");
    assert_eq!(nodes.into_inner().nodes.len(), 3);
    ask::produce(cluster.addresses()[left], "after")
        .await
        .expect("acknowledged");
}
