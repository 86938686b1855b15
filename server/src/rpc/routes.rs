//! Finds the service of a call by its name.
//!
//! Every generated service has the same response and the same boxed future, so a match is all it takes: no further
//! box, no clone of a table, and no path parameters that nobody reads.

use std::{
    convert::Infallible,
    future,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use kelda_proto::{
    limits::REQUEST_BYTES_MAX,
    v1::{
        cluster_service_server::{self, ClusterServiceServer},
        consume_service_server::{self, ConsumeServiceServer},
        produce_service_server::{self, ProduceServiceServer},
        topic_service_server::{self, TopicServiceServer},
    },
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::health_server::{self, HealthServer};
use tower::Service;

use super::{
    cluster::Cluster,
    consume::Consume,
    health::HealthService,
    produce::Produce,
    reflection::{self, Boxed},
    status::unimplemented,
    topics::Topics,
};
use crate::{broker::Broker, middleware::ReceiveBody};

/// Names of reflection's services.
const REFLECTION_V1: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// All gRPC services of a node. A clone costs one reference.
#[derive(Clone)]
pub(super) struct Routes {
    services: Arc<Services>,
}

struct Services {
    produce: ProduceServiceServer<Produce>,
    consume: ConsumeServiceServer<Consume>,
    topics: TopicServiceServer<Topics>,
    cluster: ClusterServiceServer<Cluster>,
    health: HealthServer<HealthService>,
    reflection_v1: Boxed,
    reflection_v1alpha: Boxed,
}

impl Routes {
    pub(super) fn new(broker: Broker, stopping: &CancellationToken) -> Self {
        let names = vec![
            produce_service_server::SERVICE_NAME,
            consume_service_server::SERVICE_NAME,
            topic_service_server::SERVICE_NAME,
            cluster_service_server::SERVICE_NAME,
        ];
        let (reflection_v1, reflection_v1alpha) =
            reflection::services().expect("the descriptors were compiled by our own build");
        let produce = Produce {
            broker: broker.clone(),
            stopping: stopping.clone(),
        };
        let consume = Consume {
            broker: broker.clone(),
            stopping: stopping.clone(),
        };
        let topics = Topics {
            broker: broker.clone(),
        };
        let health = HealthService::server(names, broker.readiness(), stopping.clone());
        let cluster = Cluster {
            broker,
            stopping: stopping.clone(),
        };
        Self {
            services: Arc::new(Services {
                produce: ProduceServiceServer::new(produce)
                    .max_decoding_message_size(REQUEST_BYTES_MAX),
                consume: ConsumeServiceServer::new(consume),
                topics: TopicServiceServer::new(topics),
                cluster: ClusterServiceServer::new(cluster),
                health,
                reflection_v1,
                reflection_v1alpha,
            }),
        }
    }
}

impl Service<Request<ReceiveBody<Body>>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReceiveBody<Body>>) -> Self::Future {
        let services = &self.services;
        match service_name(request.uri().path()) {
            produce_service_server::SERVICE_NAME => services.produce.clone().call(request),
            consume_service_server::SERVICE_NAME => services.consume.clone().call(request),
            topic_service_server::SERVICE_NAME => services.topics.clone().call(request),
            cluster_service_server::SERVICE_NAME => services.cluster.clone().call(request),
            health_server::SERVICE_NAME => services.health.clone().call(request),
            REFLECTION_V1 => services.reflection_v1.clone().call(request),
            REFLECTION_V1ALPHA => services.reflection_v1alpha.clone().call(request),
            _ => Box::pin(future::ready(Ok(unimplemented().into_http()))),
        }
    }
}

/// The service in `/package.Service/Method`; empty if there is none.
fn service_name(path: &str) -> &str {
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .map_or("", |(service, _method)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_found_in_the_path() {
        assert_eq!(service_name("/a.B/C"), "a.B");
        for path in ["", "/", "a.B/C", "/a.B"] {
            assert_eq!(service_name(path), "", "{path}");
        }
    }

    #[test]
    fn the_names_of_reflection_are_those_of_its_descriptors() {
        let methods = crate::middleware::Methods::from_descriptors(&reflection::DESCRIPTORS);
        let methods = methods.unwrap();
        for service in [REFLECTION_V1, REFLECTION_V1ALPHA] {
            let path = format!("/{service}/ServerReflectionInfo");
            assert!(methods.get(&path).streaming, "{path}");
        }
    }
}
