//! Every stack of layers, one layer a line, outermost first.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, ServiceBuilder};
use tower_http::cors::{self, Cors, CorsLayer};

use super::{
    DeadlineConfig, Methods, ReceiveConfig, ShedConfig,
    deadline::{DeadlineLayer, EnforceDeadline},
    decode_errors::{DecodeErrors, DecodeErrorsLayer},
    observe::{Observe, ObserveLayer},
    observe_events::{ObserveEvents, ObserveEventsLayer},
    peer_identity::{IdentifyPeer, PeerIdentity, PeerIdentityLayer},
    receive::{LimitReceived, ReceiveLayer},
    shed::{ShedLayer, ShedLoad},
    shed_events::{ShedEvents, ShedEventsLayer},
    validate::{ValidateEvents, ValidateLayer},
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

/// A service in the stack of nodes.
pub type Peer<S> = Observe<IdentifyPeer<S>>;

/// The stack around what nodes ask each other. It sheds nothing: a shed heartbeat is an election.
#[derive(Clone, Debug)]
pub struct PeerStack {
    observe: ObserveLayer,
    identity: PeerIdentityLayer,
}

impl PeerStack {
    /// Makes the stack of a node.
    pub fn new(methods: Methods, metrics: Arc<Metrics>, identity: PeerIdentity) -> Self {
        Self {
            observe: ObserveLayer {
                methods: Arc::new(methods),
                metrics,
            },
            identity: PeerIdentityLayer::new(identity),
        }
    }

    /// Puts the stack around a service.
    pub fn service<S>(&self, service: S) -> Peer<S> {
        ServiceBuilder::new()
            // Outermost, so that it sees what is refused too.
            .layer(&self.observe)
            // Before the request is read: strangers have nothing to say here.
            .layer(&self.identity)
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
        .max_age(Duration::from_secs(3600));
    cors.layer(GrpcWebLayer::new().layer(stack))
}

/// How many events of gossip may change the view in a second: far more than a cluster in trouble makes.
const GOSSIP_EVENTS_PER_SECOND: u32 = 256;

/// A service in the gossip stack.
pub type Gossip<S, V> = ObserveEvents<ValidateEvents<ShedEvents<S>, V>>;

/// Puts the stack around what takes events that came by gossip. `validator` knows whom to believe. The stack is always
/// ready: an event that is refused or shed is told to the caller, who makes up for it by reading the whole list.
pub fn gossip<S, V: Clone>(service: S, validator: V, metrics: Arc<Metrics>) -> Gossip<S, V> {
    ServiceBuilder::new()
        // Outermost, so that it counts what the other layers refuse too.
        .layer(ObserveEventsLayer { metrics })
        // Before the limit: strangers must not use up what is there for members.
        .layer(ValidateLayer { validator })
        // Innermost: what it counts is what reaches the view.
        .layer(ShedEventsLayer {
            per_second: GOSSIP_EVENTS_PER_SECOND,
        })
        .service(service)
}

#[cfg(test)]
mod tests {
    use tower::{Service as _, ServiceExt as _, service_fn};

    use super::{
        super::{Unheard, Validate},
        *,
    };

    /// Takes odd numbers only.
    #[derive(Clone)]
    struct Odd;

    impl super::super::Event for u64 {
        fn kind(&self) -> &'static str {
            "number"
        }
    }

    impl Validate<u64> for Odd {
        type Valid = u64;
        type Refusal = u64;

        fn validate(&self, event: u64) -> Result<u64, u64> {
            if event % 2 == 1 {
                Ok(event)
            } else {
                Err(event)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_gossip_is_shed_and_strangers_take_no_room() {
        let metrics = Metrics::new("1");
        let view = service_fn(|event: u64| async move { Ok::<_, std::convert::Infallible>(event) });
        let mut stack = gossip(view, Odd, Arc::clone(&metrics));
        for _ in 0..1000 {
            let refused = stack.ready().await.unwrap().call(2).await;
            assert_eq!(refused, Err(Unheard::Refused(2)));
        }
        for _ in 0..GOSSIP_EVENTS_PER_SECOND {
            assert_eq!(stack.ready().await.unwrap().call(1).await, Ok(1));
        }
        assert_eq!(
            stack.ready().await.unwrap().call(1).await,
            Err(Unheard::Shed)
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(stack.ready().await.unwrap().call(3).await, Ok(3));
        let line = "kelda_gossip_events_total{kind=\"number\",outcome=\"shed\"} 1";
        assert!(metrics.render().lines().any(|l| l == line));
    }
}
