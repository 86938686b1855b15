//! `kelda.v1.ClusterService`.

use kelda_proto::v1::{
    GetStatusRequest, GetStatusResponse, ListNodesRequest, ListNodesResponse,
    cluster_service_server::ClusterService,
};
use tonic::{Request, Response, Status};

use super::status::status;
use crate::broker::Broker;

/// Tells about the cluster.
pub(super) struct Cluster {
    pub(super) broker: Broker,
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let answer = self.broker.status().map_err(|error| status(&error))?;
        Ok(Response::new(answer))
    }

    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let nodes = self.broker.nodes();
        Ok(Response::new(ListNodesResponse { nodes }))
    }
}
