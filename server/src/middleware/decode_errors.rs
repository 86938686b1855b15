//! Gives the errors of tonic's own decoder the form that the contract promises.
//!
//! tonic answers a request that is too large with OUT_OF_RANGE, and one that is no protobuf with INTERNAL, before
//! any handler sees it and without details. Every status of ours has details, so a status without them is tonic's.
//! Requests of streams are decoded in the handlers, which call [`from_decoder`] themselves.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use kelda_proto::{limits::REQUEST_BYTES_MAX, v1::ErrorReason};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::Service;
use tower_layer::Layer;

use super::reply::Reply;

/// Makes [`DecodeErrors`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeErrorsLayer;

/// See the module.
#[derive(Clone, Debug)]
pub struct DecodeErrors<S> {
    inner: S,
}

/// What the client is told about an error of tonic's decoder, or `None` if the status is not from there.
pub fn from_decoder(status: &Status) -> Option<Reply> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::OutOfRange => {
            let (size_bytes, limit_bytes) = sizes(status.message());
            let limit_bytes = limit_bytes.unwrap_or(REQUEST_BYTES_MAX);
            let message =
                format!("request is larger than {limit_bytes} bytes: send fewer records at once");
            let reply = Reply::new(ErrorReason::BatchTooLarge, message);
            let reply = match size_bytes {
                Some(size_bytes) => reply.with("size_bytes", &size_bytes),
                None => reply,
            };
            Some(reply.with("limit_bytes", &limit_bytes))
        }
        Code::Internal => {
            let message = format!("request can not be decoded: {}", status.message());
            Some(
                Reply::new(ErrorReason::MalformedRecords, message)
                    .with("detail", &status.message()),
            )
        }
        _ => None,
    }
}

/// Size of the request and the limit, which differs by service; tonic tells both in its message only. They are left
/// out if that changes.
fn sizes(message: &str) -> (Option<usize>, Option<usize>) {
    let number_behind = |label| {
        let (_, rest) = message.split_once(label)?;
        rest.split_once(' ')?.0.parse().ok()
    };
    (number_behind("found "), number_behind("limit is: "))
}

impl<S> Layer<S> for DecodeErrorsLayer {
    type Service = DecodeErrors<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DecodeErrors { inner }
    }
}

impl<S, Q, B> Service<Request<Q>> for DecodeErrors<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = DecodeErrorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        DecodeErrorsFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// Response of [`DecodeErrors`].
    pub struct DecodeErrorsFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, B, E> Future for DecodeErrorsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(cx))?;
        // A status among the headers is an error without a body, so the headers are all of it.
        let reply = Status::from_header_map(response.headers())
            .as_ref()
            .and_then(from_decoder);
        Poll::Ready(Ok(reply.map_or(response, Reply::into_response)))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn a_request_that_is_too_large_is_an_invalid_argument_with_both_sizes() {
        let made_by_tonic = Status::out_of_range(
            "Error, decoded message length too large: found 99 bytes, the limit is: 5 bytes",
        );
        let status = from_decoder(&made_by_tonic).unwrap().into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "BATCH_TOO_LARGE");
        assert_eq!(info.metadata["size_bytes"], "99");
        assert_eq!(info.metadata["limit_bytes"], "5");
    }

    #[test]
    fn an_error_with_details_is_left_alone() {
        let ours = Reply::new(ErrorReason::OffsetOutOfRange, "no").into_status();
        assert!(from_decoder(&ours).is_none());
        let ours = Reply::new(ErrorReason::Internal, "no").into_status();
        assert!(from_decoder(&ours).is_none());
    }
}
