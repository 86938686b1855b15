//! `kelda cluster drain`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::DrainNodeRequest;

use super::{Node, find};
use crate::{client::refused, failure::Failure, output::OutputOption};

/// Move all replicas and leaders off a node; it is empty when cluster nodes shows no replicas
///
/// JSON: as an element of cluster nodes.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Name or id of the node
    node: String,
    /// Take it back: the node gets its share again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    output: OutputOption,
}

impl Drain {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let request = DrainNodeRequest {
            node: find(client, &self.node).await?,
            undo: self.undo,
        };
        let drained = client.cluster_service().drain_node(request).await;
        let node = drained.map_err(refused)?.into_inner().node;
        let node = Node::from(node.unwrap_or_default());
        self.output.output.print(&node, |node| {
            if node.draining {
                let (name, count) = (&node.name, node.replica_count);
                format!("draining node {name}: {count} replicas are to be moved")
            } else {
                format!("node {} takes replicas", node.name)
            }
        })
    }
}
