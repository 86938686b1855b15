//! `kelda.internal.v1.PeerService`: what the other nodes ask this one.

use std::sync::{Arc, OnceLock};

use futures::stream::BoxStream;
use kelda_proto::internal::v1::{
    ChangeCatalogRequest, ChangeCatalogResponse, ForwardRequest, ForwardResponse,
    GetOverviewRequest, GetOverviewResponse, HandOverRequest, HandOverResponse, HeartbeatRequest,
    HeartbeatResponse, JoinRequest, JoinResponse, LeftOutRequest, LeftOutResponse, RaftRequest,
    RaftResponse, ReadRequest, ReadResponse, ReportRequest, ReportResponse, TrimRequest,
    TrimResponse,
    forward_response::{Outcome, outcome},
    peer_service_server::{PeerService, PeerServiceServer},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert,
    status::{item, status},
};
use crate::{
    broker::{Broker, Error},
    consensus::Groups,
    middleware::Caller,
    peers::MESSAGE_BYTES_MAX,
    types::{GroupId, NodeId},
};

/// Messages of one lane that are carried out at a time; more wait in HTTP/2.
const LANE_MESSAGES_MAX: usize = 256;
/// Answers of one lane that HTTP/2 has not taken yet.
const LANE_ANSWERS: usize = 16;

/// What nodes may ask of this one. Its groups answer as soon as they run, the rest once there is a broker.
#[derive(Clone)]
pub struct PeerApi {
    groups: Groups,
    broker: Arc<OnceLock<Broker>>,
    stopping: CancellationToken,
}

impl PeerApi {
    /// The side of `groups` that other nodes see.
    pub fn new(groups: Groups) -> Self {
        Self {
            groups,
            broker: Arc::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// From now on `broker` answers too. Only the first one counts.
    pub fn set_broker(&self, broker: Broker) {
        let _ = self.broker.set(broker);
    }

    pub(super) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    pub(super) fn service(self) -> PeerServiceServer<Self> {
        PeerServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn broker(&self) -> Result<&Broker, Status> {
        self.broker.get().ok_or_else(|| status(&Error::NotReady))
    }
}

/// The node that calls; the stack has let nobody else in.
fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.map(|caller| caller.0).ok_or_else(|| {
        status(&Error::Internal {
            detail: "call between nodes without a caller".to_owned(),
        })
    })
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let answer = self.broker()?.join(request.into_inner()).await;
        Ok(Response::new(answer))
    }

    async fn change_catalog(
        &self,
        request: Request<ChangeCatalogRequest>,
    ) -> Result<Response<ChangeCatalogResponse>, Status> {
        let command = request.into_inner().command.unwrap_or_default();
        let answer = self.broker()?.change_catalog_here(&command).await;
        Ok(Response::new(answer))
    }

    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ForwardResponse>, Status> {
        let broker = self.broker()?;
        // All are queued before the first is awaited, in their order, and become few entries of the log.
        let mut pending = Vec::new();
        let mut not_led = None;
        for append in request.into_inner().appends {
            let begun = match (&not_led, convert::produce(append)) {
                // None behind one that was not taken is taken either, or they would change places.
                (Some(error), _) => Err(Error::clone(error)),
                (None, Ok(call)) => broker.begin_produce_here(call).await,
                (None, Err(error)) => Err(error),
            };
            if let Err(error @ Error::NotLeader { .. }) = &begun {
                not_led = Some(error.clone());
            }
            pending.push(begun);
        }
        let mut outcomes = Vec::with_capacity(pending.len());
        for begun in pending {
            let produced = match begun {
                Ok(begun) => begun.wait().await,
                Err(error) => Err(error),
            };
            let outcome = match produced {
                Ok(produced) => outcome::Outcome::Produced(convert::produced(produced)),
                Err(error) => outcome::Outcome::Error(item(&error)),
            };
            outcomes.push(Outcome {
                outcome: Some(outcome),
            });
        }
        Ok(Response::new(ForwardResponse { outcomes }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let answer = self.broker()?.read_here(request.get_ref()).await;
        Ok(Response::new(answer.unwrap_or_else(|error| ReadResponse {
            error: Some(item(&error)),
            ..ReadResponse::default()
        })))
    }

    async fn trim(&self, request: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        let answer = self.broker()?.trim_here(request.get_ref()).await;
        Ok(Response::new(answer.unwrap_or_else(|error| TrimResponse {
            error: Some(item(&error)),
            ..TrimResponse::default()
        })))
    }

    async fn left_out(
        &self,
        request: Request<LeftOutRequest>,
    ) -> Result<Response<LeftOutResponse>, Status> {
        let from = caller(&request)?;
        let group = GroupId(request.into_inner().group);
        let left = self.broker()?.left_out_here(group, from).await;
        Ok(Response::new(LeftOutResponse {
            left_index: left.map(|left| left.0),
        }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let from = caller(&request)?;
        let answer = self.broker()?.take_report(from, request.get_ref());
        Ok(Response::new(answer))
    }

    async fn get_overview(
        &self,
        request: Request<GetOverviewRequest>,
    ) -> Result<Response<GetOverviewResponse>, Status> {
        let answer = tokio::select! {
            answer = self.broker()?.overview_for(request.get_ref()) => answer,
            // A wait must not hold up the stop; nothing is lost with it.
            () = self.stopping.cancelled() => return Err(status(&Error::NotReady)),
        };
        Ok(Response::new(answer))
    }

    async fn hand_over(
        &self,
        request: Request<HandOverRequest>,
    ) -> Result<Response<HandOverResponse>, Status> {
        let answer = self.broker()?.hand_over_here(request.get_ref()).await;
        Ok(Response::new(answer.unwrap_or_else(|error| {
            HandOverResponse {
                error: Some(item(&error)),
            }
        })))
    }

    async fn heartbeat(
        &self,
        _: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        Ok(Response::new(HeartbeatResponse {}))
    }

    type RaftStream = BoxStream<'static, Result<RaftResponse, Status>>;

    async fn raft(
        &self,
        request: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<Self::RaftStream>, Status> {
        let from = caller(&request)?;
        let (answers, stream) = mpsc::channel(LANE_ANSWERS);
        let lane = carry_out(from, self.groups.clone(), request.into_inner(), answers);
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            // Dropping the lane drops no message half-way: each is a task of its own.
            tokio::select! {
                () = lane => {}
                () = stopping.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Carries out the messages of a lane as they come. A group has at most one append of each node under way, so they
/// need no order among each other.
async fn carry_out(
    from: NodeId,
    groups: Groups,
    mut messages: Streaming<RaftRequest>,
    answers: mpsc::Sender<Result<RaftResponse, Status>>,
) {
    let room = Arc::new(Semaphore::new(LANE_MESSAGES_MAX));
    while let Ok(Some(message)) = messages.message().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (groups, answers) = (groups.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = groups.receive(from, message).await;
            groups.peers().count_sent();
            // The other side may have gone, and asks again.
            let _ = answers.send(Ok(answer)).await;
            drop(permit);
        });
    }
}
