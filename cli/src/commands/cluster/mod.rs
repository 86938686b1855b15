//! `kelda cluster`: tells about the cluster.

mod nodes;
mod status;

use clap::Subcommand;
use kelda_proto::v1;
use serde::Serialize;

use crate::{client::ClientOptions, failure::Failure};

/// Commands about the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    Status(status::Status),
    Nodes(nodes::Nodes),
}

impl Cluster {
    /// Runs the command.
    pub(crate) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        match self {
            Self::Status(command) => command.run(&client).await,
            Self::Nodes(command) => command.run(&client).await,
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
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        Self {
            id: node.id,
            name: node.name,
            address: node.address,
            version: node.version,
        }
    }
}
