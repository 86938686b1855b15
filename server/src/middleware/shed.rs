//! Overload: what can not be started at once is refused at once, before it costs anything.
//!
//! A unary call takes one of a number of permits, a stream one of another number, so that neither can starve the
//! other. A permit lives as long as the response body, for that is where a stream lives. Health and reflection need
//! none: they must work when nothing else does.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use kelda_proto::v1::ErrorReason;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;
use tower_layer::Layer;

use super::{Methods, reply::Reply};
use crate::telemetry::{Metrics, Shed};

/// How long a client that was refused should wait: about what a queue that is full takes to drain.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How much may go on at a time, in the node as a whole.
#[derive(Clone, Copy, Debug)]
pub struct ShedConfig {
    /// Unary calls. Default 4096.
    pub calls_max: usize,
    /// Streams. Default 1024.
    pub streams_max: usize,
}

impl Default for ShedConfig {
    fn default() -> Self {
        Self {
            calls_max: 4096,
            streams_max: 1024,
        }
    }
}

/// Makes [`ShedLoad`]; all that it makes share their permits.
#[derive(Clone, Debug)]
pub(super) struct ShedLayer {
    methods: Arc<Methods>,
    metrics: Arc<Metrics>,
    config: ShedConfig,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ShedLoad<S> {
    inner: S,
    layer: ShedLayer,
}

impl ShedLayer {
    pub(super) fn new(methods: Arc<Methods>, metrics: Arc<Metrics>, config: ShedConfig) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            methods,
            metrics,
            calls: semaphore(config.calls_max),
            streams: semaphore(config.streams_max),
            config,
        }
    }

    /// A permit for a call of the method at this path; `None` if it needs none.
    fn permit(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, Box<Reply>> {
        let method = self.methods.get(path);
        if method.exempt {
            return Ok(None);
        }
        let (kind, permits, limit, what) = if method.streaming {
            let limit = self.config.streams_max;
            (Shed::Stream, &self.streams, limit, "streams")
        } else {
            (Shed::Call, &self.calls, self.config.calls_max, "calls")
        };
        match Arc::clone(permits).try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => {
                self.metrics.rpc().shed(kind);
                Err(Box::new(overloaded("node", limit, what)))
            }
        }
    }
}

/// What a client is told for which there is no place.
pub(super) fn overloaded(whose: &str, limit: usize, what: &'static str) -> Reply {
    let message = format!("the {whose} has {limit} {what} in flight: wait and try again");
    Reply::new(ErrorReason::Overloaded, message)
        .with("limit", &limit)
        .with_quota(what)
        .with_retry_after(RETRY_AFTER)
}

impl<S> Layer<S> for ShedLayer {
    type Service = ShedLoad<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ShedLoad {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for ShedLoad<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<PermitBody<B>>;
    type Error = S::Error;
    type Future = ShedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.layer.permit(request.uri().path()) {
            Ok(permit) => ShedFuture::Running {
                inner: self.inner.call(request),
                permit,
            },
            Err(reply) => ShedFuture::Refused { reply: Some(reply) },
        }
    }
}

pin_project! {
    /// Response of [`ShedLoad`].
    #[project = ShedFutureProj]
    pub enum ShedFuture<F> {
        /// There was no permit.
        Refused {
            // Boxed, so that the calls that are not refused carry a pointer only.
            reply: Option<Box<Reply>>,
        },
        /// The handler is at work.
        Running {
            #[pin]
            inner: F,
            permit: Option<OwnedSemaphorePermit>,
        },
    }
}

impl<F, B, E> Future for ShedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<PermitBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ShedFutureProj::Refused { reply } => {
                let reply = reply.take().expect("a future is not polled after its end");
                Poll::Ready(Ok(reply.into_response()))
            }
            ShedFutureProj::Running { inner, permit } => {
                let response = ready!(inner.poll(cx))?;
                let permit = permit.take();
                Poll::Ready(Ok(response.map(|inner| PermitBody { inner, permit })))
            }
        }
    }
}

pin_project! {
    /// Body of a response of [`ShedLoad`].
    #[derive(Default)]
    pub struct PermitBody<B> {
        #[pin]
        inner: B,
        permit: Option<OwnedSemaphorePermit>,
    }
}

impl<B: Body> Body for PermitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if frame.is_none() {
            *this.permit = None;
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
    use bytes::Bytes;
    use http_body_util::Empty;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower_test::mock;

    use super::{super::methods::tests::methods, *};

    const PRODUCE: &str = "/kelda.v1.ProduceService/Produce";
    const CONSUME: &str = "/kelda.v1.ConsumeService/Consume";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";

    type Answer = Response<Empty<Bytes>>;
    type Service = mock::Spawn<ShedLoad<mock::Mock<Request<()>, Answer>>>;

    /// One call and one stream at a time.
    fn service(metrics: &Arc<Metrics>) -> (Service, mock::Handle<Request<()>, Answer>) {
        let config = ShedConfig {
            calls_max: 1,
            streams_max: 1,
        };
        let layer = ShedLayer::new(methods(), Arc::clone(metrics), config);
        mock::spawn_with(move |inner| layer.layer(inner))
    }

    fn request(path: &str) -> Request<()> {
        Request::builder().uri(path).body(()).unwrap()
    }

    /// Calls, and lets the handler answer at once.
    async fn answered(
        service: &mut Service,
        handle: &mut mock::Handle<Request<()>, Answer>,
        path: &str,
    ) -> Response<PermitBody<Empty<Bytes>>> {
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(path));
        let send = handle.next_request().await.unwrap().1;
        send.send_response(Answer::default());
        answer.await.unwrap()
    }

    /// Calls, and expects to be refused without the handler.
    async fn refused(service: &mut Service, path: &str) -> Status {
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(path)).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_call_too_many_is_refused_with_advice_until_a_body_ends() {
        let metrics = Metrics::new("1");
        let (mut service, mut handle) = service(&metrics);
        let first = answered(&mut service, &mut handle, PRODUCE).await;
        let status = refused(&mut service, PRODUCE).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert_eq!(details.error_info().unwrap().metadata["limit"], "1");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        let text = metrics.render();
        assert!(text.contains("kelda_shed_total{kind=\"call\"} 1"), "{text}");
        drop(first);
        answered(&mut service, &mut handle, PRODUCE).await;
    }

    #[tokio::test]
    async fn streams_and_calls_do_not_take_each_others_permits() {
        let metrics = Metrics::new("1");
        let (mut service, mut handle) = service(&metrics);
        let _stream = answered(&mut service, &mut handle, CONSUME).await;
        let _call = answered(&mut service, &mut handle, PRODUCE).await;
        let status = refused(&mut service, CONSUME).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let text = metrics.render();
        assert!(
            text.contains("kelda_shed_total{kind=\"stream\"} 1"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn health_is_never_refused() {
        let (mut service, mut handle) = service(&Metrics::new("1"));
        let _first = answered(&mut service, &mut handle, WATCH).await;
        let _second = answered(&mut service, &mut handle, WATCH).await;
    }

    #[tokio::test]
    async fn a_call_given_up_gives_its_permit_back() {
        let (mut service, mut handle) = service(&Metrics::new("1"));
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(PRODUCE));
        handle.next_request().await.unwrap();
        drop(answer);
        answered(&mut service, &mut handle, PRODUCE).await;
    }
}
