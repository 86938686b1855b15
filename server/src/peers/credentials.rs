//! Who calls, and who is meant: headers of every call between nodes.

use std::{future::Future, sync::Arc};

use tokio::runtime::Handle;
use tonic::{Request, Status, metadata::AsciiMetadataValue, service::Interceptor};

use crate::{
    middleware::{CLUSTER_HEADER, FROM_HEADER, TO_HEADER},
    telemetry::Metrics,
    types::NodeId,
};

/// Puts the headers on every call, and counts it.
#[derive(Clone, Debug)]
pub struct Credentials {
    cluster: Option<AsciiMetadataValue>,
    from: AsciiMetadataValue,
    to: AsciiMetadataValue,
    metrics: Arc<Metrics>,
}

impl Credentials {
    pub(super) fn new(cluster_id: &str, from: NodeId, to: NodeId, metrics: Arc<Metrics>) -> Self {
        Self {
            // An id that is no header would be refused by the other side, as one that is missing is.
            cluster: cluster_id.parse().ok(),
            from: AsciiMetadataValue::from(from.0),
            to: AsciiMetadataValue::from(to.0),
            metrics,
        }
    }

    pub(super) fn count_sent(&self) {
        self.metrics.peer_message_sent();
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        if let Some(cluster) = &self.cluster {
            headers.insert(CLUSTER_HEADER, cluster.clone());
        }
        headers.insert(FROM_HEADER, self.from.clone());
        headers.insert(TO_HEADER, self.to.clone());
        self.count_sent();
        Ok(request)
    }
}

/// Runs connections on one runtime.
#[derive(Clone, Debug)]
pub(super) struct On(pub(super) Handle);

impl<F> hyper::rt::Executor<F> for On
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
