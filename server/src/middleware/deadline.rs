//! Deadlines: a call that has no time left is answered with DEADLINE_EXCEEDED, whatever its handler is doing.
//!
//! The client says how much time there is in `grpc-timeout`. A unary call that does not say gets a default, and
//! nobody gets more than the maximum. A stream has a deadline only if its client set one, and then it covers the
//! whole stream. A timeout that is not well-formed is refused as INVALID_ARGUMENT: to take it for none, or for some
//! other, would be a guess about how long somebody wants to wait.
//!
//! tonic's own handling of the header stays inert: it looks at the handler first, and by then this layer, which
//! started its clock earlier, has answered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use kelda_proto::v1::ErrorReason;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::Service;
use tower_layer::Layer;

use super::{Methods, reply::Reply};

/// When a call must be answered; among the request's extensions. Whoever forwards the call passes on what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub std::time::Instant);

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineConfig {
    /// For unary calls whose client does not say. Default 75 s: a fetch may wait for 60 s.
    pub default: Duration,
    /// For unary calls at most, whatever the client says. Default 10 min.
    pub max: Duration,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(75),
            max: Duration::from_secs(600),
        }
    }
}

/// Makes [`EnforceDeadline`].
#[derive(Clone, Debug)]
pub(super) struct DeadlineLayer {
    pub(super) methods: Arc<Methods>,
    pub(super) config: DeadlineConfig,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct EnforceDeadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

/// `grpc-timeout` is not well-formed.
#[derive(Debug, PartialEq, Eq)]
struct MalformedTimeout;

/// Reads `grpc-timeout`: one to eight digits and a unit.
fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, MalformedTimeout> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let (unit, digits) = value.as_bytes().split_last().ok_or(MalformedTimeout)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedTimeout);
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(MalformedTimeout),
    }))
}

fn malformed() -> Reply {
    let rule = "must be one to eight digits and a unit of H, M, S, m, u, n";
    Reply::new(
        ErrorReason::InvalidField,
        format!("header grpc-timeout {rule}"),
    )
    .with_violation("grpc-timeout", rule)
}

fn exceeded() -> Reply {
    Reply::new(
        ErrorReason::DeadlineExceeded,
        "the deadline passed: allow more time, or ask for less",
    )
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = EnforceDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EnforceDeadline {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for EnforceDeadline<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<DeadlineBody<B>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let streaming = self.layer.methods.get(request.uri().path()).streaming;
        let Ok(asked) = parse_timeout(request.headers()) else {
            return DeadlineFuture::Refused;
        };
        let config = &self.layer.config;
        let timeout = if streaming {
            asked
        } else {
            Some(asked.unwrap_or(config.default).min(config.max))
        };
        // A client may ask for more than a clock can tell: that is no deadline.
        let at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if let Some(at) = at {
            request.extensions_mut().insert(Deadline(at.into_std()));
        }
        DeadlineFuture::Running {
            inner: self.inner.call(request),
            sleep: at.map(tokio::time::sleep_until),
            streaming,
        }
    }
}

pin_project! {
    /// Response of [`EnforceDeadline`].
    #[project = DeadlineFutureProj]
    pub enum DeadlineFuture<F> {
        /// The timeout was malformed.
        Refused,
        /// The handler is at work.
        Running {
            #[pin]
            inner: F,
            #[pin]
            sleep: Option<Sleep>,
            streaming: bool,
        },
    }
}

impl<F, B, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<DeadlineBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, mut sleep, streaming) = match self.project() {
            DeadlineFutureProj::Refused => {
                return Poll::Ready(Ok(malformed().into_response()));
            }
            DeadlineFutureProj::Running {
                inner,
                sleep,
                streaming,
            } => (inner, sleep, *streaming),
        };
        // The handler first: an answer that is there is better than the news that it is late, and a handler that
        // never waits never touches the timer.
        if let Poll::Ready(response) = inner.poll(cx) {
            let at = sleep.as_ref().as_pin_ref().map(|sleep| sleep.deadline());
            let rest = at.filter(|_| streaming).map(tokio::time::sleep_until);
            return Poll::Ready(response.map(|response| {
                response.map(|inner| DeadlineBody {
                    inner,
                    rest: rest.map(Box::pin),
                    ended: false,
                })
            }));
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => ready!(sleep.poll(cx)),
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(exceeded().into_response()))
    }
}

pin_project! {
    /// Body of a response of [`EnforceDeadline`].
    #[derive(Default)]
    pub struct DeadlineBody<B> {
        #[pin]
        inner: B,
        // What is left of a stream's deadline. Boxed, as hardly any stream has one.
        rest: Option<Pin<Box<Sleep>>>,
        ended: bool,
    }
}

impl<B: Body> Body for DeadlineBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        // The clock first: a stream that always has something to say would never look at it.
        if let Some(rest) = this.rest
            && rest.as_mut().poll(cx).is_ready()
        {
            *this.ended = true;
            let trailers = exceeded().into_response::<()>().into_parts().0.headers;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Some(_) => SizeHint::default(),
            None => self.inner.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, StreamBody};
    use proptest::prelude::*;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower_test::mock;

    use super::{super::methods::tests::methods, *};

    const FETCH: &str = "/kelda.v1.ConsumeService/Fetch";
    const CONSUME: &str = "/kelda.v1.ConsumeService/Consume";

    type Answer = Response<Empty<Bytes>>;
    type Service<B> = mock::Spawn<EnforceDeadline<mock::Mock<Request<()>, Response<B>>>>;

    fn service<B>() -> (Service<B>, mock::Handle<Request<()>, Response<B>>) {
        let layer = DeadlineLayer {
            methods: methods(),
            config: DeadlineConfig {
                default: Duration::from_secs(5),
                max: Duration::from_secs(60),
            },
        };
        mock::spawn_with(move |inner| layer.layer(inner))
    }

    fn request(path: &str, timeout: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(path);
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        request.body(()).unwrap()
    }

    fn reason(headers: &HeaderMap) -> (Code, String) {
        let status = Status::from_header_map(headers).unwrap();
        let info = status.get_details_error_info().unwrap();
        (status.code(), info.reason)
    }

    /// How long a call waits for a handler that never answers.
    async fn waited(path: &str, timeout: Option<&str>) -> Duration {
        let (mut service, mut handle) = service::<Empty<Bytes>>();
        assert!(service.poll_ready().is_ready());
        let began = Instant::now();
        let answer = service.call(request(path, timeout));
        let (request, _unanswered) = handle.next_request().await.unwrap();
        let Deadline(deadline) = *request.extensions().get().unwrap();
        let answer: Response<DeadlineBody<_>> = answer.await.unwrap();
        assert!(began.into_std() < deadline && deadline <= Instant::now().into_std());
        assert_eq!(
            reason(answer.headers()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned())
        );
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_unary_call_waits_as_long_as_its_client_or_the_configuration_says() {
        let close = |waited: Duration, expected: u64| {
            let expected = Duration::from_millis(expected);
            assert!(waited >= expected && waited < expected + Duration::from_millis(5));
        };
        close(waited(FETCH, Some("20m")).await, 20);
        close(waited(FETCH, None).await, 5_000);
        close(waited(FETCH, Some("99999999H")).await, 60_000);
        close(waited("/a.B/C", Some("2S")).await, 2_000);
    }

    #[tokio::test]
    async fn an_answer_in_time_passes() {
        let (mut service, mut handle) = service::<Empty<Bytes>>();
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(FETCH, Some("1H")));
        let send = handle.next_request().await.unwrap().1;
        send.send_response(Answer::default());
        assert!(answer.await.unwrap().headers().is_empty());
    }

    #[tokio::test]
    async fn a_malformed_timeout_never_reaches_the_handler() {
        let (mut service, _handle) = service::<Empty<Bytes>>();
        for timeout in [
            "",
            "5",
            "S",
            "123456789S",
            "-1S",
            "1.5S",
            "5s",
            " 5S",
            "5 S",
        ] {
            assert!(service.poll_ready().is_ready());
            let answer = service.call(request(FETCH, Some(timeout))).await.unwrap();
            assert_eq!(
                reason(answer.headers()),
                (Code::InvalidArgument, "INVALID_FIELD".to_owned()),
                "{timeout:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_timeout_has_no_deadline() {
        let (mut service, mut handle) = service::<Empty<Bytes>>();
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(CONSUME, None));
        let (request, send) = handle.next_request().await.unwrap();
        assert!(request.extensions().get::<Deadline>().is_none());
        tokio::time::advance(Duration::from_secs(3600)).await;
        send.send_response(Answer::default());
        assert!(answer.await.unwrap().headers().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_with_a_timeout_ends_with_a_status_when_it_passes() {
        type Frames = Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send>>;
        #[derive(Default)]
        struct Busy(Option<StreamBody<Frames>>);
        impl Body for Busy {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                Pin::new(self.0.as_mut().unwrap()).poll_frame(cx)
            }
        }
        let (mut service, mut handle) = service::<Busy>();
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request(CONSUME, Some("100m")));
        let frames: Frames = Box::pin(futures::stream::unfold((), |()| async {
            tokio::time::advance(Duration::from_millis(1)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
        }));
        let send = handle.next_request().await.unwrap().1;
        send.send_response(Response::new(Busy(Some(StreamBody::new(frames)))));
        let body = answer.await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(
            reason(body.trailers().unwrap()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned())
        );
        assert!(body.to_bytes().len() >= 90);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in proptest::collection::vec(0x20u8..0x7f, 0..12)) {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_bytes(&value).unwrap());
            let _ = parse_timeout(&headers);
        }

        #[test]
        fn a_well_formed_timeout_is_read(number in 0u64..100_000_000, unit in 0usize..6) {
            let (unit, nanos) = [
                ("H", 3_600_000_000_000u128),
                ("M", 60_000_000_000),
                ("S", 1_000_000_000),
                ("m", 1_000_000),
                ("u", 1_000),
                ("n", 1),
            ][unit];
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", format!("{number}{unit}").parse().unwrap());
            let read = parse_timeout(&headers).unwrap().unwrap();
            prop_assert_eq!(read.as_nanos(), u128::from(number) * nanos);
        }
    }
}
