//! What an operator sees of a cluster and asks of it when it grows and shrinks.

use kelda_proto::v1::{
    DrainNodeRequest, GetAssignmentPlanRequest, ListNodesRequest, Node, PartitionPlace,
    RemoveNodeRequest, WatchClusterRequest, cluster_service_client::ClusterServiceClient,
    watch_cluster_response::Event,
};
use tonic::{Status, transport::Channel};

use super::Cluster;
use crate::support::{connect, wait::eventually};

/// The stub of a node.
pub(crate) async fn service(cluster: &Cluster, at: usize) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(connect(cluster.addresses()[at]).await)
}

/// All nodes, as one of them says.
pub(crate) async fn nodes(cluster: &Cluster, at: usize) -> Option<Vec<Node>> {
    let mut service = service(cluster, at).await;
    let nodes = service.list_nodes(ListNodesRequest {}).await;
    Some(nodes.ok()?.into_inner().nodes)
}

/// Waits until a node, as another one says, is as it should be.
pub(crate) async fn node_is(
    cluster: &Cluster,
    at: usize,
    id: u64,
    what: &str,
    is: impl Fn(&Node) -> bool,
) {
    eventually(what, async || {
        let nodes = nodes(cluster, at).await?;
        let node = nodes.iter().find(|node| node.id == id)?;
        is(node).then_some(())
    })
    .await;
}

/// Where all partitions are, as a new watcher is told.
pub(crate) async fn places(cluster: &Cluster, at: usize) -> Option<Vec<PartitionPlace>> {
    let mut service = service(cluster, at).await;
    let stream = service.watch_cluster(WatchClusterRequest::default());
    let mut stream = stream.await.ok()?.into_inner();
    let mut places = Vec::new();
    while let Ok(Some(message)) = stream.message().await {
        let Some(Event::State(state)) = message.event else {
            break;
        };
        places.extend(state.partitions);
        if !state.more {
            return Some(places);
        }
    }
    None
}

/// Waits until all partitions have a leader and that many replicas in their groups; returns where they are.
pub(crate) async fn settled(cluster: &Cluster, at: usize, replicas: usize) -> Vec<PartitionPlace> {
    eventually("all partitions have their replicas", async || {
        let places = places(cluster, at).await?;
        let settled =
            |it: &PartitionPlace| it.settled && it.leader != 0 && it.replicas.len() == replicas;
        (!places.is_empty() && places.iter().all(settled)).then_some(places)
    })
    .await
}

/// Empties a node, or takes that back.
pub(crate) async fn drain(cluster: &Cluster, node: u64, undo: bool) -> Result<(), Status> {
    let request = DrainNodeRequest { node, undo };
    let drained = service(cluster, 1).await.drain_node(request).await;
    drained.map(|_| ())
}

/// Takes a node out of the cluster; whether it is out.
pub(crate) async fn remove(cluster: &Cluster, node: u64, force: bool) -> Result<bool, Status> {
    let request = RemoveNodeRequest { node, force };
    let removed = service(cluster, 1).await.remove_node(request).await;
    removed.map(|removed| removed.into_inner().removed)
}

/// Waits until no partition is on its way, and none is to go anywhere.
pub(crate) async fn at_rest(cluster: &Cluster, at: usize) {
    eventually("all is where it belongs", async || {
        let request = GetAssignmentPlanRequest { moves_max: 0 };
        let mut service = service(cluster, at).await;
        let plan = service.get_assignment_plan(request);
        let plan = plan.await.ok()?.into_inner();
        (plan.moving_partition_count == 0 && plan.moves.is_empty()).then_some(())
    })
    .await;
}
