//! Refuses events that are not valid; what is inside sees only those that were read.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;
use tower_layer::Layer;

use super::events::{Unheard, Validate};

/// Makes [`ValidateEvents`].
#[derive(Clone, Debug)]
pub(super) struct ValidateLayer<V> {
    pub(super) validator: V,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ValidateEvents<S, V> {
    inner: S,
    validator: V,
}

impl<S, V: Clone> Layer<S> for ValidateLayer<V> {
    type Service = ValidateEvents<S, V>;

    fn layer(&self, inner: S) -> Self::Service {
        ValidateEvents {
            inner,
            validator: self.validator.clone(),
        }
    }
}

impl<S, V, Q> Service<Q> for ValidateEvents<S, V>
where
    V: Validate<Q>,
    S: Service<V::Valid>,
    S::Error: Into<Unheard<V::Refusal>>,
{
    type Response = S::Response;
    type Error = Unheard<V::Refusal>;
    type Future = ValidateFuture<S::Future, V::Refusal>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, event: Q) -> Self::Future {
        match self.validator.validate(event) {
            Ok(event) => ValidateFuture::Valid {
                inner: self.inner.call(event),
            },
            Err(refusal) => ValidateFuture::Refused {
                refusal: Some(refusal),
            },
        }
    }
}

pin_project! {
    /// Response of [`ValidateEvents`].
    #[project = ValidateFutureProj]
    pub enum ValidateFuture<F, R> {
        /// It goes on.
        Valid {
            #[pin]
            inner: F,
        },
        /// It does not.
        Refused {
            refusal: Option<R>,
        },
    }
}

impl<F, T, E, R> Future for ValidateFuture<F, R>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Unheard<R>>,
{
    type Output = Result<T, Unheard<R>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ValidateFutureProj::Valid { inner } => inner.poll(cx).map_err(Into::into),
            ValidateFutureProj::Refused { refusal } => {
                let refusal = refusal.take();
                let refusal = refusal.expect("a future is not polled after its end");
                Poll::Ready(Err(Unheard::Refused(refusal)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tower_test::mock;

    use super::{super::events::Overloaded, *};

    /// Takes numbers only.
    #[derive(Clone)]
    struct Numbers;

    impl Validate<&'static str> for Numbers {
        type Valid = u32;
        type Refusal = std::num::ParseIntError;

        fn validate(&self, event: &'static str) -> Result<u32, Self::Refusal> {
            event.parse()
        }
    }

    #[tokio::test]
    async fn what_is_not_valid_goes_no_further_and_the_rest_arrives_as_it_was_read() {
        let layer = ValidateLayer { validator: Numbers };
        let typed = |_: tower::BoxError| Overloaded;
        let (mut service, mut handle) = mock::spawn_with::<u32, &'static str, _, _>(move |inner| {
            layer.layer(tower::util::MapErr::new(inner, typed))
        });
        assert!(service.poll_ready().is_ready());
        let refused = service.call("x").await;
        assert!(matches!(refused, Err(Unheard::Refused(_))), "{refused:?}");
        assert!(service.poll_ready().is_ready());
        let answer = service.call("7");
        let (event, send) = handle.next_request().await.unwrap();
        assert_eq!(event, 7, "the first event that came through");
        send.send_response("taken");
        assert_eq!(answer.await.unwrap(), "taken");
    }
}
