//! Every stack of layers, one layer a line, outermost first.

use std::sync::Arc;

use http::HeaderName;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, ServiceBuilder};
use tower_http::cors::{self, Cors, CorsLayer};

use super::{
    DeadlineConfig, Methods, ReceiveConfig, ShedConfig,
    deadline::{DeadlineLayer, EnforceDeadline},
    decode_errors::{DecodeErrors, DecodeErrorsLayer},
    observe::{Observe, ObserveLayer},
    receive::{LimitReceived, ReceiveLayer},
    shed::{ShedLayer, ShedLoad},
};
use crate::telemetry::Metrics;

/// Headers that a script in a browser may read besides those that it may always read.
const EXPOSED_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// What the layers of the client stack are told.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientConfig {
    /// Deadlines.
    pub deadline: DeadlineConfig,
    /// Overload limits.
    pub shed: ShedConfig,
    /// Limits on what is on its way in.
    pub receive: ReceiveConfig,
}

/// A service in the client stack.
pub type Client<S> = Observe<EnforceDeadline<ShedLoad<LimitReceived<DecodeErrors<S>>>>>;

/// The stack around what clients call. Clones share their limits.
#[derive(Clone, Debug)]
pub struct ClientStack {
    observe: ObserveLayer,
    deadline: DeadlineLayer,
    shed: ShedLayer,
    receive: ReceiveLayer,
}

impl ClientStack {
    /// Makes the stack of a node. All its services belong in the one that is made here, or each would have limits of
    /// its own.
    pub fn new(methods: Methods, metrics: Arc<Metrics>, config: ClientConfig) -> Self {
        let methods = Arc::new(methods);
        Self {
            observe: ObserveLayer {
                methods: Arc::clone(&methods),
                metrics: Arc::clone(&metrics),
            },
            deadline: DeadlineLayer {
                methods: Arc::clone(&methods),
                config: config.deadline,
            },
            shed: ShedLayer::new(Arc::clone(&methods), Arc::clone(&metrics), config.shed),
            receive: ReceiveLayer::new(methods, metrics, config.receive),
        }
    }

    /// Puts the stack around a service.
    pub fn service<S>(&self, service: S) -> Client<S> {
        ServiceBuilder::new()
            // Outermost, so that it sees what the other layers refuse too.
            .layer(&self.observe)
            // Outside of the permits: a call that has run out of time must give its permit back.
            .layer(&self.deadline)
            // Before any work, and before the request is read.
            .layer(&self.shed)
            // Behind the permits, which bound what it leaves uncounted.
            .layer(&self.receive)
            // Right around the services: it translates what tonic says in their place.
            .layer(DecodeErrorsLayer)
            .service(service)
    }
}

/// Puts gRPC-Web around a stack, for browsers: outside of it, so that the stack sees plain gRPC only. Plain gRPC
/// does not pass through here.
///
/// Any origin may call. There are no cookies or other credentials that a browser would add by itself, so a page can
/// do no more than any program.
pub fn grpc_web<S>(stack: S) -> Cors<GrpcWebService<S>> {
    let cors = CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([http::Method::POST])
        .allow_headers(cors::Any)
        .expose_headers(EXPOSED_HEADERS)
        .max_age(std::time::Duration::from_secs(3600));
    cors.layer(GrpcWebLayer::new().layer(stack))
}
