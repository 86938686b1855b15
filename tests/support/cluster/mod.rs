//! Real nodes in processes of their own, which tests kill, pause, cut off and start again, and a load to do it under.
//!
//! - [`Cluster`] starts nodes of the binary `kelda` and cleans up behind them; if its test fails it keeps their
//!   directory and shows the ends of their logs.
//! - [`Node`] is one of them.
//! - [`Proxy`] stands between nodes, or between a client and a node, and cuts and delays what passes.
//! - [`Workload`] writes and reads through any node that answers, and records it for the checker.
#![allow(unused_imports, reason = "each test binary uses some of it")]

mod binary;
mod node;
mod ports;
mod proxy;
mod workload;

pub(crate) use node::{Node, Options};
pub(crate) use ports::Ports;
pub(crate) use proxy::{Direction, Proxy};
pub(crate) use workload::{Settings, Verdict, Workload};

use std::{
    net::SocketAddr,
    ops::{Index, IndexMut},
};

use kelda_proto::v1::{CreateTopicRequest, topic_service_client::TopicServiceClient};
use tempfile::TempDir;

use super::wait::eventually;

/// Nodes, all of which end with it.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    /// Has the directories and logs of the nodes.
    directory: Option<TempDir>,
}

impl Cluster {
    /// One node that knows of no cluster.
    pub(crate) async fn single() -> Self {
        let mut cluster = Self::empty();
        cluster.add(Options::new("node1", &Ports::client()));
        cluster.nodes[0].start();
        cluster.ready().await;
        cluster
    }

    /// Nodes named node1 and so on, of which the first is the others' seed.
    pub(crate) async fn start(count: usize) -> Self {
        let mut cluster = Self::empty();
        for number in 1..=count {
            let seeds = cluster.nodes.first().and_then(Node::cluster_address);
            let mut options = Options::new(&format!("node{number}"), &Ports::cluster());
            options.seeds = seeds.into_iter().map(|seed| seed.to_string()).collect();
            cluster.add(options);
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.ready().await;
        cluster
    }

    /// No nodes yet, for tests that choose their flags.
    pub(crate) fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            directory: Some(tempfile::tempdir().expect("a directory")),
        }
    }

    /// Adds a node, which is still to be started.
    pub(crate) fn add(&mut self, options: Options) {
        let directory = self.directory.as_ref().expect("it is there until the end");
        self.nodes.push(Node::new(directory.path(), options));
    }

    pub(crate) fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Where clients reach the nodes, whether they run or not.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// Waits until all nodes that run can serve and agree on how many they are.
    pub(crate) async fn ready(&mut self) {
        let running: Vec<bool> = self.nodes.iter_mut().map(Node::runs).collect();
        let count = running.iter().filter(|runs| **runs).count();
        for (node, runs) in self.nodes.iter_mut().zip(running) {
            if runs {
                node.ready(count).await;
            }
        }
    }

    /// Creates a topic through the first node.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32, replicas: i32) {
        let channel = workload::channel(self.nodes[0].address());
        eventually("the topic is created", || {
            let request = CreateTopicRequest {
                name: name.to_owned(),
                partition_count: partitions,
                replication_factor: replicas,
                ..Default::default()
            };
            let mut service = TopicServiceClient::new(channel.clone());
            async move {
                match service.create_topic(request).await {
                    Ok(_) => Some(()),
                    Err(status) if status.code() == tonic::Code::AlreadyExists => Some(()),
                    Err(status) if status.code() == tonic::Code::Unavailable => None,
                    Err(status) => panic!("the topic is refused: {status:?}"),
                }
            }
        })
        .await;
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, at: usize) -> &Node {
        &self.nodes[at]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.end();
        }
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            eprintln!("{}", node.log_end());
        }
        if let Some(directory) = self.directory.take() {
            eprintln!(
                "directories and logs are kept in {}",
                directory.keep().display()
            );
        }
    }
}
