//! Tells apart what comes in on the one port: gRPC, gRPC-Web, and HTTP for people and monitors.
//!
//! Plain gRPC, the hot path, passes through nothing that only the others need.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, header};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic_web::GrpcWebService;
use tower::Service;
use tower_http::cors::Cors;

use crate::middleware::{
    ReceiveBody,
    stacks::{Client, ClientStack, grpc_web},
};

type Web<S> = Cors<GrpcWebService<Client<S>>>;
type FutureOf<S> = <S as Service<Request<Body>>>::Future;

/// A gRPC service as it is given to the dispatcher.
pub(super) trait Grpc:
    Service<Request<ReceiveBody<Body>>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Grpc for S where
    S: Service<
            Request<ReceiveBody<Body>>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// See the module. A clone costs one reference: it is made for every request.
pub(super) struct Dispatch<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    grpc: Client<S>,
    web: Web<S>,
    pages: axum::Router,
}

impl<S: Grpc> Dispatch<S> {
    pub(super) fn new(stack: &ClientStack, services: S, pages: axum::Router) -> Self {
        let grpc = stack.service(services);
        Self {
            shared: Arc::new(Shared {
                web: grpc_web(grpc.clone()),
                grpc,
                pages,
            }),
        }
    }
}

impl<S> Clone for Dispatch<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Grpc> Service<Request<Body>> for Dispatch<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = DispatchFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Nothing behind it ever makes a caller wait: what can not be taken is refused with a status.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match kind(&request) {
            Kind::Grpc => DispatchFuture::Grpc {
                inner: self.shared.grpc.clone().call(request),
            },
            Kind::Web => DispatchFuture::Web {
                inner: self.shared.web.clone().call(request),
            },
            Kind::Page => DispatchFuture::Page {
                inner: self.shared.pages.clone().call(request),
            },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Grpc,
    Web,
    Page,
}

fn kind<B>(request: &Request<B>) -> Kind {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
    let preflight = || {
        let asked = header::ACCESS_CONTROL_REQUEST_METHOD;
        request.method() == Method::OPTIONS && request.headers().contains_key(asked)
    };
    if content_type.starts_with(b"application/grpc-web") {
        Kind::Web
    } else if content_type.starts_with(b"application/grpc") {
        Kind::Grpc
    } else if preflight() {
        Kind::Web
    } else {
        Kind::Page
    }
}

pin_project! {
    /// Response of [`Dispatch`].
    #[project = DispatchFutureProj]
    pub(super) enum DispatchFuture<S: Grpc> {
        Grpc { #[pin] inner: FutureOf<Client<S>> },
        Web { #[pin] inner: FutureOf<Web<S>> },
        Page { #[pin] inner: FutureOf<axum::Router> },
    }
}

impl<S: Grpc> Future for DispatchFuture<S> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project() {
            DispatchFutureProj::Grpc { inner } => ready!(inner.poll(cx))?.map(Body::new),
            DispatchFutureProj::Web { inner } => ready!(inner.poll(cx))?,
            DispatchFutureProj::Page { inner } => ready!(inner.poll(cx))?.map(Body::new),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_content_type() {
        let of = |method: Method, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            kind(&request.body(()).unwrap())
        };
        let typed = |value| of(Method::POST, &[("content-type", value)]);
        assert_eq!(typed("application/grpc"), Kind::Grpc);
        assert_eq!(typed("application/grpc+proto"), Kind::Grpc);
        assert_eq!(typed("application/grpc-web+proto"), Kind::Web);
        assert_eq!(typed("application/grpc-web-text"), Kind::Web);
        assert_eq!(typed("application/json"), Kind::Page);
        assert_eq!(of(Method::GET, &[]), Kind::Page);
        assert_eq!(of(Method::OPTIONS, &[]), Kind::Page);
        let preflight = [("access-control-request-method", "POST")];
        assert_eq!(of(Method::OPTIONS, &preflight), Kind::Web);
    }
}
