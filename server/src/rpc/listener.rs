//! Takes connections and deals them out to the workers in turn.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::telemetry::{Metrics, Shed};

/// Why a port can not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("port {} is in use: choose another with {flag}, or stop what uses it", address.port())]
    InUse {
        /// Where.
        address: SocketAddr,
        /// The flag that says so.
        flag: &'static str,
    },
    /// The address is not this machine's.
    #[error("{} is not an address of this machine: choose another with --address", .0.ip())]
    NotHere(SocketAddr),
    /// The port is reserved.
    #[error("port {} needs privileges: choose one above 1023 with {flag}", address.port())]
    NotAllowed {
        /// Where.
        address: SocketAddr,
        /// The flag that says so.
        flag: &'static str,
    },
    /// Something else.
    #[error("can not listen on {address}, as --address and {flag} say: {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
        /// The flag that says so.
        flag: &'static str,
    },
}

/// A connection on its way to its worker, which puts it on its own runtime.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A port that is listened on. Taken before anything else is started, so that a port in use is found first.
#[derive(Debug)]
pub struct Listener {
    inner: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`, whose port `flag` is for; port 0 takes a free one.
    pub fn bind(address: SocketAddr, flag: &'static str) -> Result<Self, BindError> {
        let listen = || {
            let inner = std::net::TcpListener::bind(address)?;
            inner.set_nonblocking(true)?;
            let address = inner.local_addr()?;
            Ok(Self { inner, address })
        };
        listen().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, flag },
            io::ErrorKind::AddrNotAvailable => BindError::NotHere(address),
            io::ErrorKind::PermissionDenied => BindError::NotAllowed { address, flag },
            _ => BindError::Other {
                address,
                source,
                flag,
            },
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts it on the current runtime.
    pub(super) fn start(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.inner)
    }
}

/// Accepts until it is dropped. Connections beyond the limit are closed at once.
pub(super) async fn accept(
    listener: TcpListener,
    workers: Vec<mpsc::Sender<Accepted>>,
    connections_max: usize,
    metrics: Arc<Metrics>,
) {
    let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    for worker in workers.iter().cycle() {
        let stream = next(&listener).await;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            metrics.rpc().shed(Shed::Connection);
            continue;
        };
        // Batches are written whole; waiting to fill a packet would only delay acks.
        let stream = stream.set_nodelay(true).and_then(|()| stream.into_std());
        match stream {
            Ok(stream) => {
                // A worker that is gone is one that has stopped, and then this is about to be dropped.
                let _ = worker.send(Accepted { stream, permit }).await;
            }
            Err(error) => tracing::debug!(%error, "connection lost while it was accepted"),
        }
    }
}

/// The next connection, however many fail.
async fn next(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return stream,
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: trying again at once would only burn a core.
                tracing::warn!(%error, "connections can not be accepted now");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
