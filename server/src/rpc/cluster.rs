//! `kelda.v1.ClusterService`.

use futures::stream::BoxStream;
use kelda_proto::v1::{
    DrainNodeRequest, DrainNodeResponse, GetAssignmentPlanRequest, GetAssignmentPlanResponse,
    GetStatusRequest, GetStatusResponse, ListNodesRequest, ListNodesResponse, RebalanceRequest,
    RebalanceResponse, RemoveNodeRequest, RemoveNodeResponse, TransferLeadershipRequest,
    TransferLeadershipResponse, WatchClusterRequest, WatchClusterResponse,
    cluster_service_server::ClusterService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{status::status, watch_stream};
use crate::{
    broker::{Broker, Error},
    types::NodeId,
};

/// Tells about the cluster and changes it.
pub(super) struct Cluster {
    pub(super) broker: Broker,
    pub(super) stopping: CancellationToken,
}

fn answer<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| status(&error))
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        answer(self.broker.status())
    }

    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let nodes = self.broker.nodes().await;
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    async fn get_assignment_plan(
        &self,
        request: Request<GetAssignmentPlanRequest>,
    ) -> Result<Response<GetAssignmentPlanResponse>, Status> {
        let Ok(moves_max) = usize::try_from(request.get_ref().moves_max) else {
            let error = Error::invalid("moves_max", "must not be negative");
            return Err(status(&error));
        };
        answer(self.broker.assignment_plan(moves_max).await)
    }

    async fn rebalance(
        &self,
        _request: Request<RebalanceRequest>,
    ) -> Result<Response<RebalanceResponse>, Status> {
        answer(self.broker.rebalance().await)
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        let DrainNodeRequest { node, undo } = request.into_inner();
        let drained = self.broker.drain_node(NodeId(node), undo).await;
        answer(drained.map(|node| DrainNodeResponse { node: Some(node) }))
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let RemoveNodeRequest { node, force } = request.into_inner();
        answer(self.broker.remove_node(NodeId(node), force).await)
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        let TransferLeadershipRequest {
            topic,
            partition,
            node,
        } = request.into_inner();
        let transferred = self.broker.transfer(&topic, partition, NodeId(node)).await;
        answer(transferred.map(|()| TransferLeadershipResponse {}))
    }

    type WatchClusterStream = BoxStream<'static, Result<WatchClusterResponse, Status>>;

    async fn watch_cluster(
        &self,
        request: Request<WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        answer(watch_stream::events(
            &self.broker,
            self.stopping.clone(),
            *request.get_ref(),
        ))
    }
}
