//! `kelda cluster nodes`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::ListNodesRequest;

use super::Node;
use crate::{
    client::refused,
    failure::Failure,
    output::{OutputOption, Table},
};

/// List the nodes of the cluster
///
/// JSON: an array of objects with id, name, address, version, rack, raft_address, draining, alive,
/// replica_count, leader_count.
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    #[command(flatten)]
    output: OutputOption,
}

impl Nodes {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let response = client
            .cluster_service()
            .list_nodes(ListNodesRequest {})
            .await
            .map_err(refused)?;
        let nodes: Vec<Node> = response
            .into_inner()
            .nodes
            .into_iter()
            .map(Node::from)
            .collect();
        self.output.output.print(&nodes, |nodes| table(nodes))
    }
}

fn table(nodes: &[Node]) -> String {
    let mut table = Table::new([
        "ID", "NAME", "ADDRESS", "VERSION", "RACK", "STATE", "REPLICAS", "LEADS",
    ]);
    for node in nodes {
        table.row([
            node.id.to_string(),
            node.name.clone(),
            node.address.clone(),
            node.version.clone(),
            node.rack.clone(),
            node.state().to_owned(),
            node.replica_count.to_string(),
            node.leader_count.to_string(),
        ]);
    }
    table.render()
}
