//! `grpc.health.v1.Health`: every service of a node is as ready as the node itself.
//!
//! It reads the broker's readiness when asked, so nothing runs in the background. As its specification wants, and
//! unlike the ready-made server of tonic-health, Watch answers SERVICE_UNKNOWN for a name it does not know and stays.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::status::unknown_service;

/// Answers for these services, and for the node by the empty name.
pub(super) struct HealthService {
    services: Vec<&'static str>,
    readiness: watch::Receiver<bool>,
    stopping: CancellationToken,
}

impl HealthService {
    pub(super) fn server(
        services: Vec<&'static str>,
        readiness: watch::Receiver<bool>,
        stopping: CancellationToken,
    ) -> HealthServer<Self> {
        HealthServer::new(Self {
            services,
            readiness,
            stopping,
        })
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn serving(ready: bool) -> HealthCheckResponse {
    response(if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            return Err(unknown_service());
        }
        Ok(Response::new(serving(*self.readiness.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The stream ends when the server stops, or its connection would hold the stop up.
        let stopping = self.stopping.clone();
        if !self.knows(&request.get_ref().service) {
            let unknown = stream::once(async { Ok(response(ServingStatus::ServiceUnknown)) });
            let forever = unknown.chain(stream::pending());
            return Ok(Response::new(
                forever.take_until(stopping.cancelled_owned()).boxed(),
            ));
        }
        let mut readiness = self.readiness.clone();
        readiness.mark_changed();
        let watching = (readiness, stopping, None);
        let changes = stream::unfold(watching, |(mut readiness, stopping, told)| async move {
            loop {
                // Both only wait. Changes come first: a node that stops says so before the stream ends.
                tokio::select! {
                    biased;
                    changed = readiness.changed() => changed.ok()?,
                    () = stopping.cancelled() => return None,
                }
                let ready = *readiness.borrow_and_update();
                if told != Some(ready) {
                    return Some((Ok(serving(ready)), (readiness, stopping, Some(ready))));
                }
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "kelda.v1.ProduceService";

    fn service(ready: bool) -> (watch::Sender<bool>, CancellationToken, HealthService) {
        let (sender, readiness) = watch::channel(ready);
        let stopping = CancellationToken::new();
        let service = HealthService {
            services: vec![SERVICE],
            readiness,
            stopping: stopping.clone(),
        };
        (sender, stopping, service)
    }

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.to_owned(),
        })
    }

    #[tokio::test]
    async fn check_follows_the_readiness_of_the_node() {
        let (ready, _stopping, service) = service(false);
        for name in ["", SERVICE] {
            let answer = service.check(request(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::NotServing);
        }
        ready.send_replace(true);
        for name in ["", SERVICE] {
            let answer = service.check(request(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
        let unknown = service.check(request("a.B")).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn watch_tells_the_state_at_once_and_then_each_change_until_the_server_stops() {
        let (ready, stopping, service) = service(true);
        let mut states = service.watch(request(SERVICE)).await.unwrap().into_inner();
        let first = states.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        ready.send_replace(true);
        ready.send_replace(false);
        stopping.cancel();
        let second = states.next().await.unwrap().unwrap();
        assert_eq!(second.status(), ServingStatus::NotServing);
        assert!(states.next().await.is_none());
    }

    #[tokio::test]
    async fn watching_an_unknown_service_says_so_and_stays() {
        let (_ready, stopping, service) = service(true);
        let mut states = service.watch(request("a.B")).await.unwrap().into_inner();
        let first = states.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        assert!(futures::poll!(states.next()).is_pending());
        stopping.cancel();
        assert!(states.next().await.is_none());
    }
}
