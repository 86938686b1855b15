//! Nodes to choose from.

use std::{net::SocketAddr, time::Duration};

use kelda_proto::v1::{
    consume_service_client::ConsumeServiceClient, produce_service_client::ProduceServiceClient,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Pause before another node is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// A channel that connects when it is used, and again when that is lost.
pub(in crate::support::cluster) fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy()
}

/// Channels to nodes, one of which is used until it fails.
#[derive(Clone)]
pub(super) struct Servers {
    channels: Vec<Channel>,
    current: usize,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Self {
            channels: addresses.iter().copied().map(channel).collect(),
            current: 0,
        }
    }

    /// The same, beginning with another node.
    pub(super) fn from(&self, number: usize) -> Self {
        Self {
            channels: self.channels.clone(),
            current: number % self.channels.len(),
        }
    }

    pub(super) fn produce(&self) -> ProduceServiceClient<Channel> {
        ProduceServiceClient::new(self.channels[self.current].clone())
    }

    pub(super) fn consume(&self) -> ConsumeServiceClient<Channel> {
        ConsumeServiceClient::new(self.channels[self.current].clone())
    }

    /// Goes on to the next node, after a pause.
    pub(super) async fn next(&mut self) {
        self.current = (self.current + 1) % self.channels.len();
        tokio::time::sleep(PAUSE).await;
    }
}

/// The outcome of one attempt of a call.
pub(super) async fn attempt<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the client waits no longer")),
    }
}

/// What a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node has done nothing; the same call may succeed later or elsewhere.
    Retry,
    /// Nobody knows what the node has done.
    Unknown,
    /// The node has done nothing, and says that the call is wrong.
    Wrong,
}

impl Failure {
    pub(super) fn of(status: &Status) -> Self {
        match status.code() {
            // A node may not have heard of the topic yet.
            Code::NotFound | Code::ResourceExhausted => Self::Retry,
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
            | Code::PermissionDenied => Self::Wrong,
            _ => Self::Unknown,
        }
    }
}
