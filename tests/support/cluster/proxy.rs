//! A network to break: a TCP port that passes everything on to another, until it is told not to.
//!
//! A direction that is cut behaves as if packets were lost: connections stay, what is on its way waits, and arrives
//! when the direction is healed. A new connection needs both directions.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

const CHUNK_BYTES: usize = 16 << 10;

/// Chunks on their way in one direction of a connection; more wait with their sender.
const CHUNKS_MAX: usize = 64;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Direction {
    /// Nothing passes.
    pub(crate) is_cut: bool,
    /// How long bytes are on their way.
    pub(crate) delay: Duration,
}

impl Direction {
    pub(crate) const CUT: Self = Self {
        is_cut: true,
        delay: Duration::ZERO,
    };

    pub(crate) fn delayed(delay: Duration) -> Self {
        Self {
            is_cut: false,
            delay,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Network {
    /// From who connects to the target, and back.
    directions: [Direction; 2],
    /// How often all connections were closed.
    resets: u64,
}

type Watched = watch::Receiver<Network>;

/// A proxy; it and its connections end when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::start_on(0, target).await
    }

    /// Listens on this port.
    pub(crate) async fn start_on(port: u16, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.expect("a port");
        let (network, watched) = watch::channel(Network::default());
        Self {
            address: listener.local_addr().expect("it listens"),
            network,
            task: tokio::spawn(accept(listener, target, watched)),
        }
    }

    /// Where to connect instead of the target.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes both directions: to the target, and back.
    pub(crate) fn set(&self, to_target: Direction, back: Direction) {
        self.network
            .send_modify(|network| network.directions = [to_target, back]);
    }

    /// Lets nothing pass.
    pub(crate) fn cut(&self) {
        self.set(Direction::CUT, Direction::CUT);
    }

    /// Lets everything pass at once.
    pub(crate) fn heal(&self) {
        self.set(Direction::default(), Direction::default());
    }

    /// Closes all connections.
    pub(crate) fn reset(&self) {
        self.network.send_modify(|network| network.resets += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, network: Watched) {
    // Its tasks end with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(stream, target, network.clone()));
    }
}

async fn connection(stream: TcpStream, target: SocketAddr, mut network: Watched) {
    let resets = network.borrow_and_update().resets;
    let mut closing = network.clone();
    let pass = async {
        let is_open = |network: &Network| !network.directions.iter().any(|one| one.is_cut);
        network.wait_for(is_open).await.ok()?;
        let other = TcpStream::connect(target).await.ok()?;
        // Small messages are on their way at once, as they would be without a proxy.
        stream.set_nodelay(true).ok()?;
        other.set_nodelay(true).ok()?;
        let (reader, writer) = stream.into_split();
        let (other_reader, other_writer) = other.into_split();
        tokio::join!(
            pump(reader, other_writer, network.clone(), 0),
            pump(other_reader, writer, network.clone(), 1),
        );
        Some(())
    };
    // Either way the connection is closed when its ends are dropped here.
    tokio::select! {
        _ = pass => {}
        _ = closing.wait_for(|network| network.resets > resets) => {}
    }
}

/// Passes one direction on until its sender closes it, or its receiver takes no more.
async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut network: Watched,
    direction: usize,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let delays = network.clone();
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = reader.read(&mut chunk).await.unwrap_or(0);
            chunk.truncate(length);
            let delay = delays.borrow().directions[direction].delay;
            let sent = sender.send((Instant::now() + delay, chunk)).await;
            if length == 0 || sent.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            let is_open = |network: &Network| !network.directions[direction].is_cut;
            if network.wait_for(is_open).await.is_err() {
                return;
            }
            let passed = if chunk.is_empty() {
                writer.shutdown().await
            } else {
                writer.write_all(&chunk).await
            };
            if passed.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
