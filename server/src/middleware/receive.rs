//! Bytes on their way in: what has come of requests takes room, of its connection and of the node, and is refused
//! where there is none left.
//!
//! Room is taken by what has come, not by what a message announces, or a few announcements that nothing follows would
//! keep everybody else out. Nothing waits for room: requests that are half here could wait for each other for ever.
//!
//! A unary request keeps its room until its [`Received`] is dropped, which is among its extensions: a handler may hold
//! on to it until something else bounds the bytes. A stream gives back the room of its messages when it is read
//! further, for its handler is done with them then.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;
use tower_layer::Layer;

use super::{Methods, shed::overloaded};
use crate::telemetry::{Metrics, Shed};

/// Bytes of each request that need no room: about what a call costs anyway, so the limits on calls and streams bound
/// them. Small requests touch no number that others share, and health and other small calls are answered while large
/// ones have taken all there is.
const FREE_BYTES: usize = 4 << 10;
/// Bytes before each gRPC message: a flag and the length.
const PREFIX_BYTES: usize = 5;

/// How many bytes of requests may be on their way in.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveConfig {
    /// In the node as a whole. Default 256 MiB.
    pub node_bytes_max: usize,
    /// On a connection. Default 64 MiB.
    pub connection_bytes_max: usize,
}

impl Default for ReceiveConfig {
    fn default() -> Self {
        Self {
            node_bytes_max: 256 << 20,
            connection_bytes_max: 64 << 20,
        }
    }
}

/// The room that a connection's requests have taken. Whoever serves the connection puts it among the extensions of
/// each of them.
#[derive(Clone, Debug, Default)]
pub struct ConnectionBytes(Arc<AtomicUsize>);

/// The room of one request; given back when the last reference is dropped.
#[derive(Debug)]
pub struct Received {
    node: Arc<Node>,
    connection: ConnectionBytes,
    /// How much it is. Only the request's body changes it.
    bytes: AtomicUsize,
}

/// Makes [`LimitReceived`]; all that it makes share the room of the node.
#[derive(Clone, Debug)]
pub(super) struct ReceiveLayer {
    methods: Arc<Methods>,
    node: Arc<Node>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LimitReceived<S> {
    inner: S,
    layer: ReceiveLayer,
}

#[derive(Debug)]
struct Node {
    config: ReceiveConfig,
    metrics: Arc<Metrics>,
    bytes: AtomicUsize,
}

/// Finds where messages end in what comes of a stream.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the message that has begun, its prefix included.
    begun: usize,
    /// Bytes that its prefix has announced and that have not come.
    missing: usize,
}

impl ReceiveLayer {
    pub(super) fn new(methods: Arc<Methods>, metrics: Arc<Metrics>, config: ReceiveConfig) -> Self {
        let node = Node {
            config,
            metrics,
            bytes: AtomicUsize::new(0),
        };
        Self {
            methods,
            node: Arc::new(node),
        }
    }
}

impl Received {
    /// Takes or gives back room until there is as much as `held` bytes need.
    fn fit(&self, held: usize) -> Result<(), Status> {
        let has = self.bytes.load(Relaxed);
        let needs = held.saturating_sub(FREE_BYTES);
        if needs > has {
            self.take(needs - has)?;
        } else if needs < has {
            self.give_back(has - needs);
        }
        self.bytes.store(needs, Relaxed);
        Ok(())
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        let Self {
            node, connection, ..
        } = self;
        let refused = |whose, limit| {
            node.metrics.rpc().shed(Shed::Request);
            Err(overloaded(whose, limit, "bytes of requests").into_status())
        };
        if !take(&connection.0, bytes, node.config.connection_bytes_max) {
            return refused("connection", node.config.connection_bytes_max);
        }
        if !take(&node.bytes, bytes, node.config.node_bytes_max) {
            connection.0.fetch_sub(bytes, Relaxed);
            return refused("node", node.config.node_bytes_max);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.node.bytes.fetch_sub(bytes, Relaxed);
        self.connection.0.fetch_sub(bytes, Relaxed);
    }
}

/// Adds to what is taken unless that would be more than there may be. What another takes at the same moment may be
/// refused though it would just fit.
fn take(taken: &AtomicUsize, bytes: usize, bytes_max: usize) -> bool {
    let fits = taken.fetch_add(bytes, Relaxed) + bytes <= bytes_max;
    if !fits {
        taken.fetch_sub(bytes, Relaxed);
    }
    fits
}

impl Drop for Received {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.give_back(bytes);
        }
    }
}

impl Messages {
    /// Sees what comes next.
    fn see(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let in_prefix = self.begun < PREFIX_BYTES;
            let wanted = if in_prefix {
                PREFIX_BYTES - self.begun
            } else {
                self.missing
            };
            let (seen, rest) = data.split_at(wanted.min(data.len()));
            data = rest;
            if in_prefix {
                self.prefix[self.begun..][..seen.len()].copy_from_slice(seen);
                let [_flag, length @ ..] = self.prefix;
                self.missing = u32::from_be_bytes(length) as usize;
            } else {
                self.missing -= seen.len();
            }
            self.begun += seen.len();
            if self.begun >= PREFIX_BYTES && self.missing == 0 {
                self.begun = 0;
            }
        }
    }
}

impl<S> Layer<S> for ReceiveLayer {
    type Service = LimitReceived<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitReceived {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, Q> Service<Request<Q>> for LimitReceived<S>
where
    S: Service<Request<ReceiveBody<Q>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let ReceiveLayer { methods, node } = &self.layer;
        let streaming = methods.get(request.uri().path()).streaming;
        let connection = request.extensions().get::<ConnectionBytes>();
        let received = Arc::new(Received {
            node: Arc::clone(node),
            connection: connection.cloned().unwrap_or_default(),
            bytes: AtomicUsize::new(0),
        });
        request.extensions_mut().insert(Arc::clone(&received));
        self.inner.call(request.map(|inner| ReceiveBody {
            inner,
            received,
            held: 0,
            messages: streaming.then(Messages::default),
        }))
    }
}

pin_project! {
    /// Body of a request behind [`LimitReceived`].
    pub struct ReceiveBody<Q> {
        #[pin]
        inner: Q,
        received: Arc<Received>,
        // Bytes that have come and that nobody is known to be done with.
        held: usize,
        // Of streams only.
        messages: Option<Messages>,
    }
}

impl<Q: Body<Data = Bytes, Error = Status>> Body for ReceiveBody<Q> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if let Some(messages) = this.messages
            && *this.held != messages.begun
        {
            *this.held = messages.begun;
            this.received.fit(*this.held)?;
        }
        let frame = ready!(this.inner.poll_frame(cx)?);
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            *this.held += data.len();
            if let Some(messages) = this.messages {
                messages.see(data);
            }
            this.received.fit(*this.held)?;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
