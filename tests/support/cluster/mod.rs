//! Real nodes in processes of their own, which tests kill, pause, cut off and start again, and a load to do it under.
//!
//! - [`Cluster`] starts nodes of the binary `kelda` and cleans up behind them; if its test fails it keeps their
//!   directory and shows the ends of their logs.
//! - [`Node`] is one of them.
//! - [`Network`] puts each node into a network of its own and cuts what they say to each other.
//! - [`Proxy`] stands between nodes, or between a client and a node, and cuts and delays what passes.
//! - [`Workload`] writes and reads through any node that answers, and records it for the checker.
#![allow(unused_imports, reason = "each test binary uses some of it")]

mod binary;
mod moving;
mod network;
mod node;
pub(crate) mod operator;
mod ports;
mod proxy;
mod workload;

pub(crate) use network::Network;
pub(crate) use node::{Node, Options};
pub(crate) use ports::Ports;
pub(crate) use proxy::{Direction, Proxy};
pub(crate) use workload::{Settings, Verdict, Workload};

use std::{
    net::SocketAddr,
    ops::{Index, IndexMut},
};

use kelda_proto::v1::{
    CreateTopicRequest, GetTopicRequest, ListNodesRequest,
    cluster_service_client::ClusterServiceClient, topic_service_client::TopicServiceClient,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::wait::eventually;

/// Nodes, all of which end with it.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    /// Has the directories and logs of the nodes.
    directory: Option<TempDir>,
    /// Goes when the nodes have ended.
    network: Option<Network>,
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
        Self::start_with(&vec![[]; count]).await
    }

    /// The same with further arguments for each.
    pub(crate) async fn start_with<'a>(arguments: &[impl AsRef<[&'a str]>]) -> Self {
        let nodes = (1..).zip(arguments).map(|(number, arguments)| Options {
            arguments: arguments.as_ref().iter().map(ToString::to_string).collect(),
            ..Options::new(&format!("node{number}"), &Ports::cluster())
        });
        let mut cluster = Self::empty();
        cluster.found(nodes.collect()).await;
        cluster
    }

    /// The same with a network that can be cut; nothing where this user may not make one.
    pub(crate) async fn start_apart(count: usize) -> Option<Self> {
        let network = Network::create(count)?;
        let nodes = (0..count).map(|at| Options {
            host: network.address(at),
            space: Some(network.space(at)),
            ..Options::new(&format!("node{}", at + 1), &Ports::alone())
        });
        let nodes = nodes.collect();
        let mut cluster = Self::empty();
        cluster.network = Some(network);
        cluster.found(nodes).await;
        Some(cluster)
    }

    async fn found(&mut self, nodes: Vec<Options>) {
        for mut options in nodes {
            let seed = self.nodes.first().and_then(Node::cluster_address);
            options.seeds = seed.iter().map(ToString::to_string).collect();
            self.add(options);
        }
        for node in &mut self.nodes {
            node.start();
        }
        self.ready().await;
    }

    /// The network between nodes that were started apart.
    pub(crate) fn network(&mut self) -> &mut Network {
        self.network.as_mut().expect("they were started apart")
    }

    /// No nodes yet, for tests that choose their flags.
    pub(crate) fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            directory: Some(tempfile::tempdir().expect("a directory")),
            network: None,
        }
    }

    /// Adds a node, which is still to be started.
    pub(crate) fn add(&mut self, options: Options) {
        let directory = self.directory.as_ref().expect("it is there until the end");
        self.nodes.push(Node::new(directory.path(), options));
    }

    /// Starts one more node, which the first one is the seed of, and returns its place.
    pub(crate) fn join(&mut self, name: &str) -> usize {
        self.join_with(name, &[])
    }

    /// The same with further arguments.
    pub(crate) fn join_with(&mut self, name: &str, arguments: &[&str]) -> usize {
        let seed = self[0].cluster_address().expect("it is of a cluster");
        self.add(Options {
            seeds: vec![seed.to_string()],
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..Options::new(name, &Ports::cluster())
        });
        let at = self.nodes.len() - 1;
        self[at].start();
        at
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

/// Who leads.
impl Cluster {
    /// Place of the node that leads partition 0 of a topic, as the node at `asked` says, once it is not `not`.
    pub(crate) async fn leader(&self, topic: &str, asked: usize, not: Option<usize>) -> usize {
        let channel = workload::channel(self.nodes[asked].address());
        eventually("partition 0 has a leader", || {
            let (channel, topic) = (channel.clone(), topic.to_owned());
            async move {
                let at = self.leader_now(channel, topic).await;
                at.filter(|at| Some(*at) != not)
            }
        })
        .await
    }

    async fn leader_now(&self, channel: Channel, name: String) -> Option<usize> {
        let mut topics = TopicServiceClient::new(channel.clone());
        let topic = topics.get_topic(GetTopicRequest { name }).await.ok()?;
        let leader = topic.into_inner().topic?.partitions.first()?.leader;
        let mut service = ClusterServiceClient::new(channel);
        let nodes = service.list_nodes(ListNodesRequest {}).await.ok()?;
        let mut nodes = nodes.into_inner().nodes.into_iter();
        let address = nodes.find(|node| node.id == leader)?.address;
        let mut addresses = self.addresses().into_iter();
        addresses.position(|at| at.to_string() == address)
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
        if std::thread::panicking() {
            self.keep();
        }
    }
}

impl Cluster {
    /// Keeps the directories and logs, and shows where they are and how the logs end.
    pub(crate) fn keep(&mut self) {
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
