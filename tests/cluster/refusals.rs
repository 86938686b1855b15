//! Nodes that can not be what they are told to be: one clear line each.

use std::process::Stdio;

use kelda_proto::v1::{CreateTopicRequest, ErrorReason, topic_service_client::TopicServiceClient};
use tonic::Code;

use crate::support::{
    assert_refused,
    cluster::{Cluster, Options, Ports},
    connect,
    wait::{eventually, soon},
};

/// What a node says that ends at once, which must be one line.
async fn refusal(cluster: &Cluster, options: &Options) -> String {
    let directory = cluster[0].directory().with_file_name("refused");
    let mut command = options.command();
    command
        .args(["serve", "--log", "off", "--node-id", &options.name])
        .args(["--port", &options.ports.client.to_string()])
        .args(["--cluster-port"])
        .arg(options.ports.cluster.unwrap_or(0).to_string())
        .args(["--seeds", &options.seeds.join(",")])
        .arg("--data-dir")
        .arg(directory)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = soon("the node ends", output).await.expect("no panic");
    let output = output.expect("it starts");
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

/// A node that would join the first one.
fn newcomer(cluster: &Cluster, name: &str) -> Options {
    let seed = cluster[0].cluster_address().expect("it has others");
    Options {
        seeds: vec![seed.to_string()],
        ..Options::new(name, &Ports::cluster())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_the_same_name_is_told_to_choose_another() {
    let mut cluster = Cluster::start(2).await;
    for name in ["node1", "node2"] {
        let said = refusal(&cluster, &newcomer(&cluster, name)).await;
        assert!(said.contains("choose another --node-id"), "{said}");
        assert!(said.contains(&format!("{name:?}")), "{said}");
    }
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_ports_are_in_use_names_the_flag() {
    let mut cluster = Cluster::start(1).await;
    for (flag, port) in [
        ("--port", cluster[0].options.ports.client),
        (
            "--cluster-port",
            cluster[0].options.ports.cluster.unwrap_or_default(),
        ),
    ] {
        let mut options = newcomer(&cluster, "node2");
        if flag == "--port" {
            options.ports.client = port;
        } else {
            options.ports.cluster = Some(port);
        }
        let said = refusal(&cluster, &options).await;
        assert!(said.contains("is in use"), "{said}");
        assert!(
            said.contains(&format!("choose another with {flag}")),
            "{said}"
        );
    }
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_seed_is_not_there_says_so_once_and_joins_when_it_comes() {
    let mut cluster = Cluster::empty();
    cluster.add(Options::new("node1", &Ports::cluster()));
    cluster.add(newcomer(&cluster, "node2"));
    let seed = cluster[0].cluster_address().expect("it has others");
    cluster[1].start();
    let complaints = |cluster: &Cluster| {
        let log = cluster[1].log();
        let lines = log.lines().filter(|line| line.contains("check --seeds"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("it complains", || {
        std::future::ready((!complaints(&cluster).is_empty()).then_some(()))
    })
    .await;
    cluster[0].start();
    cluster[0].ready(2).await;
    cluster[1].ready(2).await;
    let said = complaints(&cluster);
    assert!(said[0].contains(&seed.to_string()), "{said:?}");
    // Another line is for another reason, such as a seed that is just starting.
    let mut reasons = said.iter().filter_map(|line| line.split_once("WARN"));
    let first = reasons.next();
    assert!(
        reasons.all(|other| Some(other.1) != first.map(|it| it.1)),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_replicas_than_nodes_are_refused() {
    let cluster = Cluster::start(3).await;
    let mut topics = TopicServiceClient::new(connect(cluster.addresses()[1]).await);
    let request = CreateTopicRequest {
        name: "orders".to_owned(),
        partition_count: 1,
        replication_factor: 5,
        ..Default::default()
    };
    let refused = topics.create_topic(request).await;
    let refused = refused.expect_err("there are three nodes");
    let reason = ErrorReason::NotEnoughNodes;
    let about = assert_refused(&refused, Code::InvalidArgument, reason);
    assert_eq!(
        (
            about["replication_factor"].as_str(),
            about["nodes"].as_str()
        ),
        ("5", "3")
    );
    let advice = "replication factor 5 needs more nodes than the 3 there are";
    assert!(refused.message().starts_with(advice), "{refused:?}");
}
