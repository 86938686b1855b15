//! Observes each RPC: a span with the caller's trace as its parent, and rate, errors and duration.
//!
//! An RPC ends with its response body, not with the response's headers: its status is in the trailers, and a stream
//! lives in its body. A body that is dropped before its end was given up by the client, which counts as CANCELLED.
//! The span exists only where debug logging or a tracer wants it; there is never a span per record.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;
use tower_layer::Layer;
use tracing::Span;

use super::{Method, Methods};
use crate::telemetry::{Metrics, trace_context};

/// Makes [`Observe`].
#[derive(Clone, Debug)]
pub(super) struct ObserveLayer {
    pub(super) methods: Arc<Methods>,
    pub(super) metrics: Arc<Metrics>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

/// An RPC that goes on. Counts as cancelled if it is dropped before its status is known.
struct Call {
    metrics: Arc<Metrics>,
    method: Method,
    began: Instant,
    code: Option<&'static str>,
    span: Span,
}

impl Call {
    fn begin(layer: &ObserveLayer, path: &str, headers: &HeaderMap) -> Self {
        let method = layer.methods.get(path).clone();
        let span = tracing::debug_span!(
            "rpc",
            rpc.method = &*method.name,
            rpc.response.status_code = tracing::field::Empty,
            trace_id = tracing::field::Empty,
        );
        trace_context::adopt_parent(&span, headers);
        layer.metrics.rpc().began();
        if method.streaming {
            layer.metrics.rpc().opened(&method.name);
        }
        Self {
            metrics: Arc::clone(&layer.metrics),
            method,
            began: Instant::now(),
            code: None,
            span,
        }
    }

    /// Takes note of the status if these headers or trailers have one.
    fn read_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(code_name(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or("CANCELLED");
        self.span.record("rpc.response.status_code", code);
        if self.method.streaming {
            self.metrics.rpc().closed(&self.method.name);
        }
        let elapsed = self.began.elapsed();
        self.metrics.rpc().ended(&self.method.name, code, elapsed);
    }
}

/// Name of a code that is sent as a number.
fn code_name(number: &[u8]) -> &'static str {
    match number {
        b"0" => "OK",
        b"1" => "CANCELLED",
        b"3" => "INVALID_ARGUMENT",
        b"4" => "DEADLINE_EXCEEDED",
        b"5" => "NOT_FOUND",
        b"6" => "ALREADY_EXISTS",
        b"7" => "PERMISSION_DENIED",
        b"8" => "RESOURCE_EXHAUSTED",
        b"9" => "FAILED_PRECONDITION",
        b"10" => "ABORTED",
        b"11" => "OUT_OF_RANGE",
        b"12" => "UNIMPLEMENTED",
        b"13" => "INTERNAL",
        b"14" => "UNAVAILABLE",
        b"15" => "DATA_LOSS",
        b"16" => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for Observe<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
{
    type Response = Response<ObserveBody<B>>;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let call = Call::begin(&self.layer, request.uri().path(), request.headers());
        let inner = call.span.in_scope(|| self.inner.call(request));
        ObserveFuture {
            inner,
            call: Some(call),
        }
    }
}

pin_project! {
    /// Response of [`Observe`].
    pub struct ObserveFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ObserveBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = {
            let _entered = this.call.as_ref().map(|call| call.span.enter());
            ready!(this.inner.poll(cx))?
        };
        let mut call = this.call.take();
        if let Some(call) = &mut call {
            call.read_status(response.headers());
        }
        Poll::Ready(Ok(response.map(|inner| ObserveBody { inner, call })))
    }
}

pin_project! {
    /// Body of a response of [`Observe`].
    #[derive(Default)]
    pub struct ObserveBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for ObserveBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = {
            let _entered = this.call.as_ref().map(|call| call.span.enter());
            ready!(this.inner.poll_frame(cx))
        };
        if let Some(call) = this.call {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        call.read_status(trailers);
                    }
                }
                Some(Err(_)) => call.code = Some("UNKNOWN"),
                // An end without a status is not one of gRPC's.
                None => call.code = call.code.or(Some("UNKNOWN")),
            }
        }
        if frame.as_ref().is_none_or(|frame| match frame {
            Ok(frame) => frame.is_trailers(),
            Err(_) => true,
        }) {
            // Nothing follows: this is the end, even if the body is kept for longer.
            *this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use tower_test::mock;

    use super::{super::methods::tests::methods, *};

    const PRODUCE: &str = "/kelda.v1.ProduceService/Produce";
    const CONSUME: &str = "/kelda.v1.ConsumeService/Consume";

    type Reply = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;
    type Service = mock::Spawn<Observe<mock::Mock<Request<()>, Reply>>>;

    fn service(metrics: &Arc<Metrics>) -> (Service, mock::Handle<Request<()>, Reply>) {
        let layer = ObserveLayer {
            methods: methods(),
            metrics: Arc::clone(metrics),
        };
        mock::spawn_with(move |inner| layer.layer(inner))
    }

    fn request(path: &str) -> Request<()> {
        Request::builder().uri(path).body(()).unwrap()
    }

    /// A response of one message, then a status.
    fn response(code: &'static str) -> Reply {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static(code),
        )]);
        Response::new(
            Full::new(Bytes::from_static(b"message"))
                .with_trailers(async move { Some(Ok(trailers)) })
                .boxed_unsync(),
        )
    }

    fn assert_shows(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }

    fn ended(method: &str, code: &str, count: u64) -> String {
        format!(
            "kelda_rpc_duration_seconds_count{{rpc_method=\"{method}\",\
             rpc_response_status_code=\"{code}\"}} {count}"
        )
    }

    #[tokio::test]
    async fn the_status_is_read_from_the_trailers_at_the_end_of_the_body() {
        let metrics = Metrics::new("1");
        let (mut service, mut handle) = service(&metrics);
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(PRODUCE));
        assert_shows(&metrics, "kelda_rpc_in_flight 1");
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(response("5"));
        let body = answer.await.unwrap().into_body();
        assert_shows(&metrics, "kelda_rpc_in_flight 1");
        body.collect().await.unwrap();
        assert_shows(&metrics, "kelda_rpc_in_flight 0");
        assert_shows(
            &metrics,
            &ended("kelda.v1.ProduceService/Produce", "NOT_FOUND", 1),
        );
    }

    #[tokio::test]
    async fn the_status_of_an_error_without_a_body_is_read_from_the_headers() {
        let metrics = Metrics::new("1");
        let (mut service, mut handle) = service(&metrics);
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(PRODUCE));
        let mut refusal: Reply = Response::new(Full::new(Bytes::new()).boxed_unsync());
        let status = http::HeaderValue::from_static("8");
        refusal.headers_mut().insert("grpc-status", status);
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(refusal);
        drop(answer.await.unwrap());
        assert_shows(
            &metrics,
            &ended("kelda.v1.ProduceService/Produce", "RESOURCE_EXHAUSTED", 1),
        );
    }

    #[tokio::test]
    async fn a_stream_is_open_until_its_body_is_dropped() {
        let metrics = Metrics::new("1");
        let (mut service, mut handle) = service(&metrics);
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(CONSUME));
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(response("0"));
        let mut body = answer.await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        let open = "kelda_open_streams{rpc_method=\"kelda.v1.ConsumeService/Consume\"}";
        assert_shows(&metrics, &format!("{open} 1"));
        drop(body);
        assert_shows(&metrics, &format!("{open} 0"));
        assert_shows(
            &metrics,
            &ended("kelda.v1.ConsumeService/Consume", "CANCELLED", 1),
        );
    }

    #[tokio::test]
    async fn a_call_given_up_before_its_response_is_cancelled() {
        let metrics = Metrics::new("1");
        let (mut service, _handle) = service(&metrics);
        assert!(service.poll_ready().is_ready());
        drop(service.call(request("/a.B/C")));
        assert_shows(&metrics, &ended("_OTHER", "CANCELLED", 1));
        assert_shows(&metrics, "kelda_rpc_in_flight 0");
    }
}
