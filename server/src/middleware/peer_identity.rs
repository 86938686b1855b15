//! Lets only the nodes of this cluster in, and tells the services behind it which one calls.
//!
//! The headers prove nothing: whoever reaches the port can write them. They keep nodes of other clusters, and ones that
//! were configured wrongly, from doing harm.

use std::{
    collections::BTreeSet,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use kelda_proto::v1::ErrorReason;
use pin_project_lite::pin_project;
use tower::Service;
use tower_layer::Layer;

use super::reply::Reply;
use crate::types::NodeId;

/// Id of the caller's cluster.
pub const CLUSTER_HEADER: &str = "kelda-cluster";
/// Id of the calling node.
pub const FROM_HEADER: &str = "kelda-from";
/// Id of the node that is meant.
pub const TO_HEADER: &str = "kelda-to";
/// The one call of a node that does not belong to a cluster yet.
const JOIN_PATH: &str = "/kelda.internal.v1.PeerService/Join";
/// Strangers that are remembered, so that each is logged once.
const STRANGERS_MAX: usize = 100;

/// The node that calls, as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(pub NodeId);

/// Says whether a node is known.
pub type Known = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Whose port it is.
#[derive(Clone)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// This node.
    pub node: NodeId,
    /// The other nodes.
    pub known: Known,
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster_id)
    }
}

/// Makes [`IdentifyPeer`].
#[derive(Clone, Debug)]
pub(super) struct PeerIdentityLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: PeerIdentity,
    strangers: Mutex<BTreeSet<String>>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct IdentifyPeer<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl PeerIdentityLayer {
    /// Lets in whom `identity` knows.
    pub(super) fn new(identity: PeerIdentity) -> Self {
        Self {
            shared: Arc::new(Shared {
                identity,
                strangers: Mutex::default(),
            }),
        }
    }
}

impl<S> Layer<S> for PeerIdentityLayer {
    type Service = IdentifyPeer<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdentifyPeer {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Shared {
    fn identify(&self, headers: &HeaderMap) -> Result<Caller, String> {
        let PeerIdentity {
            cluster_id,
            node,
            known,
        } = &self.identity;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let cluster = text(CLUSTER_HEADER).unwrap_or_default();
        if cluster != cluster_id {
            return Err(format!(
                "caller is of cluster {cluster:?}, this is {cluster_id}: correct its --seeds"
            ));
        }
        let id = |name| text(name).and_then(|id| id.parse().ok()).map(NodeId);
        if id(TO_HEADER) != Some(*node) {
            return Err(format!(
                "call is not for node {node}, which has this address now"
            ));
        }
        match id(FROM_HEADER) {
            Some(from) if known(from) => Ok(Caller(from)),
            Some(from) => Err(format!(
                "node {from} is not of this cluster, or was removed"
            )),
            None => Err("caller does not say which node it is".to_owned()),
        }
    }

    fn log_once(&self, refusal: &str) {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.len() < STRANGERS_MAX && strangers.insert(refusal.to_owned()) {
            tracing::warn!(refusal, "call between nodes refused");
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for IdentifyPeer<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = IdentifyFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        if request.uri().path() == JOIN_PATH {
            return IdentifyFuture::Call {
                future: self.inner.call(request),
            };
        }
        match self.shared.identify(request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                IdentifyFuture::Call {
                    future: self.inner.call(request),
                }
            }
            Err(refusal) => {
                self.shared.log_once(&refusal);
                let reply = Reply::new(ErrorReason::NotAMember, refusal);
                IdentifyFuture::Refused {
                    response: Some(reply.into_response()),
                }
            }
        }
    }
}

pin_project! {
    /// The answer of the service, or the refusal.
    #[project = Project]
    pub enum IdentifyFuture<F, B> {
        /// Let in.
        Call {
            #[pin]
            future: F
        },
        /// Not let in.
        Refused {
            response: Option<Response<B>>
        },
    }
}

impl<F, B, E> Future for IdentifyFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Project::Call { future } => future.poll(cx),
            Project::Refused { response } => {
                let response = response.take();
                Poll::Ready(Ok(
                    response.expect("a future is not polled after it is ready")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tower_test::{assert_request_eq, mock};

    use super::*;

    const PATH: &str = "/kelda.internal.v1.PeerService/Raft";

    fn layer() -> PeerIdentityLayer {
        PeerIdentityLayer::new(PeerIdentity {
            cluster_id: "c1".to_owned(),
            node: NodeId(1),
            known: Arc::new(|node| node == NodeId(2)),
        })
    }

    fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(path).body(()).expect("a request");
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_static(value));
        }
        request
    }

    const GOOD: [(&str, &str); 3] = [(CLUSTER_HEADER, "c1"), (FROM_HEADER, "2"), (TO_HEADER, "1")];

    #[tokio::test]
    async fn a_node_of_the_cluster_is_let_in_and_named() {
        let (mock, mut handle) = mock::pair::<Request<()>, Response<()>>();
        let mut service = layer().layer(mock);
        handle.allow(1);
        std::future::poll_fn(|cx| service.poll_ready(cx))
            .await
            .expect("ready");
        let answer = service.call(request(PATH, &GOOD));
        let (asked, respond) = handle.next_request().await.expect("it came through");
        assert_eq!(asked.extensions().get::<Caller>(), Some(&Caller(NodeId(2))));
        respond.send_response(Response::new(()));
        answer.await.expect("answered");
    }

    #[tokio::test]
    async fn strangers_are_refused_before_the_service_hears_of_them() {
        for (place, value) in [(0, "c2"), (1, "3"), (1, "x"), (2, "2")] {
            let (mock, mut handle) = mock::pair::<Request<()>, Response<()>>();
            let mut service = layer().layer(mock);
            handle.allow(1);
            std::future::poll_fn(|cx| service.poll_ready(cx))
                .await
                .expect("ready");
            let mut headers = GOOD;
            headers[place].1 = value;
            let answer = service
                .call(request(PATH, &headers))
                .await
                .expect("answered");
            // PERMISSION_DENIED
            assert_eq!(answer.headers()["grpc-status"], "7", "{headers:?}");
            drop(service);
            assert!(
                handle.next_request().await.is_none(),
                "nothing came through"
            );
        }
    }

    #[tokio::test]
    async fn only_joining_needs_no_name() {
        let (mock, mut handle) = mock::pair::<String, Response<()>>();
        let named = tower::ServiceExt::map_request(mock, |asked: Request<()>| {
            asked.uri().path().to_owned()
        });
        let mut service = layer().layer(named);
        handle.allow(1);
        std::future::poll_fn(|cx| service.poll_ready(cx))
            .await
            .expect("ready");
        let answer = tokio::spawn(service.call(request(JOIN_PATH, &[])));
        assert_request_eq!(handle, JOIN_PATH.to_owned()).send_response(Response::new(()));
        answer.await.expect("no panic").expect("answered");
    }
}
