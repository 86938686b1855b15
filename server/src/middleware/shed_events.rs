//! Lets so many events through in a second and sheds the rest at once: a queue behind a flood would only grow old.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;
use tower_layer::Layer;

use super::events::Overloaded;

const SECOND: Duration = Duration::from_secs(1);

/// Makes [`ShedEvents`]; each that it makes counts for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShedEventsLayer {
    pub(super) per_second: u32,
}

/// See the module.
#[derive(Debug)]
pub struct ShedEvents<S> {
    inner: S,
    per_second: u32,
    left: u32,
    until: Instant,
}

impl<S> Layer<S> for ShedEventsLayer {
    type Service = ShedEvents<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ShedEvents {
            inner,
            per_second: self.per_second,
            left: self.per_second,
            until: Instant::now() + SECOND,
        }
    }
}

impl<S> ShedEvents<S> {
    /// Whether there is room for one more, which takes it.
    fn take(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.until {
            self.until = now + SECOND;
            self.left = self.per_second;
        }
        let room = self.left > 0;
        self.left = self.left.saturating_sub(1);
        room
    }
}

/// What is inside is a change of memory: it is always ready and never fails.
impl<S, Q> Service<Q> for ShedEvents<S>
where
    S: Service<Q, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Overloaded;
    type Future = ShedEventsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|never| match never {})
    }

    fn call(&mut self, event: Q) -> Self::Future {
        if self.take() {
            ShedEventsFuture::Taken {
                inner: self.inner.call(event),
            }
        } else {
            ShedEventsFuture::Shed
        }
    }
}

pin_project! {
    /// Response of [`ShedEvents`].
    #[project = ShedEventsFutureProj]
    pub enum ShedEventsFuture<F> {
        /// It goes on.
        Taken {
            #[pin]
            inner: F,
        },
        /// There was no room.
        Shed,
    }
}

impl<F, T> Future for ShedEventsFuture<F>
where
    F: Future<Output = Result<T, Infallible>>,
{
    type Output = Result<T, Overloaded>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ShedEventsFutureProj::Taken { inner } => {
                Poll::Ready(ready!(inner.poll(cx)).map_err(|never| match never {}))
            }
            ShedEventsFutureProj::Shed => Poll::Ready(Err(Overloaded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::util::MapErr;
    use tower_test::mock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_events_a_second_pass_and_the_rest_is_shed_at_once() {
        let layer = ShedEventsLayer { per_second: 2 };
        let never = |_: tower::BoxError| -> Infallible { unreachable!("the test sends no errors") };
        let (mut service, mut handle) =
            mock::spawn_with::<u32, u32, _, _>(move |inner| layer.layer(MapErr::new(inner, never)));
        for round in 0..3 {
            for event in 0..2 {
                assert!(service.poll_ready().is_ready());
                let answer = service.call(event);
                let (seen, send) = handle.next_request().await.unwrap();
                assert_eq!(seen, event, "round {round}");
                send.send_response(event);
                assert_eq!(answer.await, Ok(event));
            }
            assert!(service.poll_ready().is_ready(), "it never waits");
            assert_eq!(service.call(9).await, Err(Overloaded));
            tokio::time::advance(SECOND).await;
        }
    }
}
