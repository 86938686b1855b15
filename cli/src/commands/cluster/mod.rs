//! `kelda cluster`: tells about the cluster, and changes where partitions are.

mod drain;
mod health;
mod moves;
mod nodes;
mod plan;
mod rebalance;
mod remove;
mod status;
mod transfer;
mod watch;

use clap::Subcommand;
use kelda_client::Client;
use kelda_proto::v1::{self, ListNodesRequest};
use serde::Serialize;

use crate::{
    client::{ClientOptions, refused},
    failure::{Exit, Failure},
};

/// Commands about the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    Status(status::Status),
    Nodes(nodes::Nodes),
    Health(health::Health),
    Watch(watch::Watch),
    Plan(plan::Plan),
    Rebalance(rebalance::Rebalance),
    Drain(drain::Drain),
    Remove(remove::Remove),
    Transfer(transfer::Transfer),
}

impl Cluster {
    /// Runs the command.
    pub(crate) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        // It connects by itself: it may wait for a broker.
        if let Self::Health(command) = self {
            return command.run(options).await;
        }
        let client = options.connect().await?;
        match self {
            Self::Status(command) => command.run(&client).await,
            Self::Nodes(command) => command.run(&client).await,
            Self::Health(command) => command.run(options).await,
            Self::Watch(command) => command.run(&client).await,
            Self::Plan(command) => command.run(&client).await,
            Self::Rebalance(command) => command.run(&client).await,
            Self::Drain(command) => command.run(&client).await,
            Self::Remove(command) => command.run(&client, options).await,
            Self::Transfer(command) => command.run(&client).await,
        }
    }
}

/// A node as JSON.
#[derive(Debug, Serialize)]
struct Node {
    id: u64,
    name: String,
    address: String,
    version: String,
    rack: String,
    raft_address: String,
    draining: bool,
    alive: bool,
    replica_count: i32,
    leader_count: i32,
}

impl Node {
    /// In a word.
    fn state(&self) -> &'static str {
        match (self.alive, self.draining) {
            (true, false) => "alive",
            (true, true) => "draining",
            (false, false) => "silent",
            (false, true) => "silent, draining",
        }
    }
}

/// The id of a node that is meant by its name, or else by its id.
async fn find(client: &Client, node: &str) -> Result<u64, Failure> {
    let mut service = client.cluster_service();
    let answer = service.list_nodes(ListNodesRequest {}).await;
    let nodes = answer.map_err(refused)?.into_inner().nodes;
    let named = nodes.iter().find(|it| it.name == node);
    let id = named.map(|it| it.id).or_else(|| node.parse().ok());
    id.ok_or_else(|| {
        let message = format!("there is no node {node}: see kelda cluster nodes");
        Failure::new(Exit::NotFound, message)
    })
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        Self {
            id: node.id,
            name: node.name,
            address: node.address,
            version: node.version,
            rack: node.rack,
            raft_address: node.raft_address,
            draining: node.draining,
            alive: node.alive,
            replica_count: node.replica_count,
            leader_count: node.leader_count,
        }
    }
}
