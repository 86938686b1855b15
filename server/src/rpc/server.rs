//! Serves connections with a number of workers: threads with a runtime each, on which a connection stays.
//!
//! A connection's requests, its HTTP/2 state and its timers then never move between threads. That was measured at
//! about twice the rate of unary calls on one runtime for all threads.

use std::{
    convert::Infallible, io, net::SocketAddr, num::NonZeroUsize, sync::Arc, thread, time::Duration,
};

use ::http::{Request, Response};
use tokio::{
    net::TcpStream,
    runtime,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport};
use tower::{Service, ServiceExt};

use super::{
    connection::Connection,
    dispatch::Dispatch,
    http::{self, Pages},
    listener::{self, Accepted, Listener},
    peer::PeerApi,
    reflection,
    routes::Routes,
};
use crate::{
    broker::Broker,
    middleware::{
        Methods, PeerIdentity,
        stacks::{ClientConfig, ClientStack, PeerStack},
    },
    telemetry::Metrics,
};

/// Connections that may wait for a worker to look at them.
const ACCEPTED_MAX: usize = 64;
/// Threads a worker may use for what would block it, and how long they stay without work.
const BLOCKING_THREADS_MAX: usize = 4;
const BLOCKING_THREAD_KEEP: Duration = Duration::from_secs(2);

/// Connections of other nodes at a time: some for each node of a large cluster.
const PEER_CONNECTIONS_MAX: usize = 1000;

/// How a node serves its clients.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads. Default: one a core. Fewer leave more to storage.
    pub workers: usize,
    /// Connections at a time. Default 10,000; each needs a file descriptor.
    pub connections_max: usize,
    /// Layers.
    pub stack: ClientConfig,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            connections_max: 10_000,
            stack: ClientConfig::default(),
        }
    }
}

/// The system did not give what a server needs: threads, or a place in its list of events.
#[derive(Debug, thiserror::Error)]
#[error("can not start to serve: {0}: raise the limits of this process or lower --workers")]
pub struct StartError(#[from] io::Error);

/// A server that runs. Dropped without [`Server::shutdown`], it closes its connections at once.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
    workers: Vec<Worker>,
    stopping: CancellationToken,
    killed: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Serves a broker to clients. Must be called on the runtime that is to accept connections.
    pub fn start(
        listener: Listener,
        broker: Broker,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Result<Self, StartError> {
        let methods = Methods::from_descriptors(&reflection::DESCRIPTORS)
            .expect("the descriptors were compiled by our own build");
        let stack = ClientStack::new(methods, Arc::clone(&metrics), options.stack);
        let stopping = CancellationToken::new();
        let pages = http::router(Pages {
            broker: broker.clone(),
            metrics: Arc::clone(&metrics),
        });
        let service = Dispatch::new(&stack, Routes::new(broker, &stopping), pages);
        Self::serve(listener, &service, "rpc", metrics, options, stopping)
    }

    /// Serves the other nodes of the cluster. Must be called on the runtime that is to accept connections.
    pub fn start_peers(
        listener: Listener,
        api: PeerApi,
        identity: PeerIdentity,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let methods = Methods::from_descriptors(&reflection::DESCRIPTORS)
            .expect("the descriptors were compiled by our own build");
        let stack = PeerStack::new(methods, Arc::clone(&metrics), identity);
        let options = Options {
            workers: 1,
            connections_max: PEER_CONNECTIONS_MAX,
            ..Options::default()
        };
        let stopping = api.stopping();
        let service = stack.service(api.service());
        let service =
            ServiceExt::<Request<Body>>::map_response(service, |response: Response<_>| {
                response.map(Body::new)
            });
        Self::serve(listener, &service, "peer", metrics, options, stopping)
    }

    /// Serves anything. Whoever is behind `service` should end its streams when `stopping` is cancelled, which
    /// [`Server::shutdown`] does.
    fn serve<S>(
        listener: Listener,
        service: &S,
        name: &'static str,
        metrics: Arc<Metrics>,
        options: Options,
        stopping: CancellationToken,
    ) -> Result<Self, StartError>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let address = listener.address();
        let listener = listener.start()?;
        let killed = CancellationToken::new();
        // If a later worker can not be started, those before it must not stay.
        let kill_on_failure = killed.clone().drop_guard();
        let mut senders = Vec::new();
        let mut workers = Vec::new();
        for number in 0..options.workers.max(1) {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            let worker = Worker::start(
                format!("kelda-{name}-{number}"),
                service.clone(),
                accepted,
                stopping.clone(),
                killed.clone(),
            );
            workers.push(worker?);
            senders.push(sender);
        }
        let accept = listener::accept(listener, senders, options.connections_max, metrics);
        let killed = kill_on_failure.disarm();
        Ok(Self {
            address,
            acceptor: tokio::spawn(accept),
            workers,
            stopping,
            killed,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: takes no more connections, ends streams, lets calls finish for at most `drain_max`, then closes what is
    /// left. Returns whether everything had ended by itself.
    pub async fn shutdown(mut self, drain_max: Duration) -> bool {
        self.acceptor.abort();
        // It answers with its cancellation; after that the port is free.
        let _ = (&mut self.acceptor).await;
        self.stopping.cancel();
        let ended = futures::future::join_all(self.workers.iter_mut().map(|w| &mut w.ended));
        let drained = tokio::time::timeout(drain_max, ended).await.is_ok();
        self.killed.cancel();
        for worker in &mut self.workers {
            if !drained && !worker.ended.is_terminated() {
                let _ = (&mut worker.ended).await;
            }
        }
        drained
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.killed.cancel();
    }
}

impl Worker {
    fn start<S>(
        name: String,
        service: S,
        accepted: mpsc::Receiver<Accepted>,
        stopping: CancellationToken,
        killed: CancellationToken,
    ) -> io::Result<Self>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_keep_alive(BLOCKING_THREAD_KEEP)
            .build()?;
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async {
                let connections = ReceiverStream::new(accepted).map(|accepted| {
                    let stream = TcpStream::from_std(accepted.stream)?;
                    io::Result::Ok(Connection::new(stream, accepted.permit))
                });
                let stopping = stopping.cancelled_owned();
                let serve =
                    transport().serve_with_incoming_shutdown(service, connections, stopping);
                // Both branches may be dropped at any time: connections are tasks of their own, and the runtime
                // ends them below.
                tokio::select! {
                    served = serve => if let Err(error) = served {
                        tracing::error!(%error, "a worker has failed");
                    },
                    () = killed.cancelled() => {}
                }
            });
            runtime.shutdown_background();
            // Nobody listens if the server was dropped.
            let _ = end.send(());
        })?;
        Ok(Self { ended })
    }
}

/// HTTP/1.1 and HTTP/2 as measured: large windows and frames together make packed batches two to three times as
/// fast, windows alone make them slower.
fn transport() -> transport::Server {
    transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(128 << 10)
        .max_concurrent_streams(1024)
        .http2_max_header_list_size(16 << 10)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests;
