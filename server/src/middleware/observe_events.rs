//! Counts events by kind and by what became of them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;
use tower_layer::Layer;

use super::events::{Event, Unheard};
use crate::telemetry::{GossipOutcome, Metrics};

/// Makes [`ObserveEvents`].
#[derive(Clone, Debug)]
pub(super) struct ObserveEventsLayer {
    pub(super) metrics: Arc<Metrics>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ObserveEvents<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for ObserveEventsLayer {
    type Service = ObserveEvents<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveEvents {
            inner,
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl<S, Q, R> Service<Q> for ObserveEvents<S>
where
    S: Service<Q, Error = Unheard<R>>,
    Q: Event,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ObserveEventsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, event: Q) -> Self::Future {
        ObserveEventsFuture {
            kind: event.kind(),
            inner: self.inner.call(event),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

pin_project! {
    /// Response of [`ObserveEvents`].
    pub struct ObserveEventsFuture<F> {
        #[pin]
        inner: F,
        kind: &'static str,
        metrics: Arc<Metrics>,
    }
}

impl<F, T, R> Future for ObserveEventsFuture<F>
where
    F: Future<Output = Result<T, Unheard<R>>>,
{
    type Output = Result<T, Unheard<R>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let outcome = match &result {
            Ok(_) => GossipOutcome::Applied,
            Err(Unheard::Refused(_)) => GossipOutcome::Refused,
            Err(Unheard::Shed) => GossipOutcome::Shed,
        };
        this.metrics.gossip().event(this.kind, outcome);
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use tower_test::mock;

    use super::*;

    impl Event for &'static str {
        fn kind(&self) -> &'static str {
            self
        }
    }

    #[tokio::test]
    async fn every_event_is_counted_with_what_became_of_it() {
        let metrics = Metrics::new("1");
        let layer = ObserveEventsLayer {
            metrics: Arc::clone(&metrics),
        };
        // The mock's errors are boxed.
        let typed = |error: tower::BoxError| match *error
            .downcast::<Unheard<u8>>()
            .expect("the error that was sent")
        {
            Unheard::Shed => Unheard::Shed,
            refused => refused,
        };
        let (mut service, mut handle) = mock::spawn_with::<&'static str, (), _, _>(move |inner| {
            layer.layer(tower::util::MapErr::new(inner, typed))
        });
        let results: [Result<(), Unheard<u8>>; 3] =
            [Ok(()), Err(Unheard::Refused(1)), Err(Unheard::Shed)];
        for result in results {
            assert!(service.poll_ready().is_ready());
            let answer = service.call("join");
            let (event, send) = handle.next_request().await.unwrap();
            assert_eq!(event, "join");
            match result {
                Ok(()) => send.send_response(()),
                Err(error) => send.send_error(error),
            }
            let _ = answer.await;
        }
        let text = metrics.render();
        for outcome in ["applied", "refused", "shed"] {
            let line =
                format!("kelda_gossip_events_total{{kind=\"join\",outcome=\"{outcome}\"}} 1");
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
