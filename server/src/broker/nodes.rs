//! Nodes that come, and changes of the catalog that other nodes ask for.

use std::time::Duration;

use kelda_proto::internal::v1::{
    CatalogCommand, CatalogNode, ChangeCatalogResponse, HeartbeatRequest, JoinRequest,
    JoinResponse, catalog_command as command,
};

use super::Broker;
use crate::{
    consensus::{self, ChangeError},
    machine::catalog::Node,
    peers,
    telemetry::clock,
    types::NodeId,
};

/// How long a node may take to show that it lives.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Broker {
    /// Takes a node into the cluster.
    pub async fn join(&self, asked: JoinRequest) -> JoinResponse {
        let cluster_id = self.shared.catalog.view().cluster_id().to_owned();
        let refuse = |refusal: String, try_again| JoinResponse {
            cluster_id: cluster_id.clone(),
            node_id: 0,
            refusal,
            try_again,
        };
        if !asked.cluster_id.is_empty() && asked.cluster_id != cluster_id {
            return refuse(
                format!("the seeds are of cluster {cluster_id}: correct --seeds or --cluster-id"),
                false,
            );
        }
        let node = asked.node.unwrap_or_default();
        if let Some(namesake) = self.living_namesake(&node).await {
            return refuse(
                format!(
                    "node {} at {} has the name {:?} and lives: choose another --node-id",
                    namesake.id, namesake.raft_address, namesake.name
                ),
                false,
            );
        }
        let command = CatalogCommand {
            time_ms: clock::now_ms(),
            command: Some(command::Command::RegisterNode(command::RegisterNode {
                id: 0,
                name: node.name,
                address: node.address,
                version: node.version,
                raft_address: node.raft_address,
                rack: node.rack,
                token: node.token,
            })),
        };
        match self.shared.catalog.change(&command).await {
            Ok(changed) => JoinResponse {
                cluster_id,
                node_id: changed.node.map_or(0, |node| node.0),
                refusal: String::new(),
                try_again: false,
            },
            Err(ChangeError::Rejected(rejection)) => refuse(rejection.to_string(), false),
            Err(error) => refuse(error.to_string(), true),
        }
    }

    /// A node that has the name of one that wants to join, and lives. One at the same address does not: the other has
    /// its port. Nor does one with the same token: it is this one, which died while it joined.
    async fn living_namesake(&self, new: &CatalogNode) -> Option<Node> {
        let catalog = self.shared.catalog.view();
        let namesakes = catalog.nodes().filter(|node| {
            let is_new = !new.token.is_empty() && node.token == new.token;
            node.name == new.name && node.raft_address != new.raft_address && !is_new
        });
        for namesake in namesakes {
            if namesake.id == self.shared.groups.node() || self.lives(namesake.id).await {
                return Some(namesake.clone());
            }
        }
        None
    }

    async fn lives(&self, node: NodeId) -> bool {
        let Ok(channel) = self.shared.groups.peers().channel(node) else {
            return false;
        };
        let mut client = peers::client(channel);
        let answer = client.heartbeat(HeartbeatRequest {});
        matches!(tokio::time::timeout(ALIVE_TIMEOUT, answer).await, Ok(Ok(_)))
    }

    /// Changes the catalog for another node, if this one leads it.
    pub async fn change_catalog_here(&self, command: &CatalogCommand) -> ChangeCatalogResponse {
        consensus::answer(self.shared.catalog.change_here(command).await)
    }
}
