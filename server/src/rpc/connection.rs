//! A client's connection: counted against the limit for as long as it lives, and closed if its client says nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use crate::middleware::ConnectionBytes;

/// Bytes by which a client has shown that it speaks HTTP: the preface of HTTP/2.
const GREETING_BYTES: usize = 24;
/// How long it may take to send them. The timeouts of HTTP begin only behind them.
const GREETING_WAIT: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Connection {
    stream: TcpStream,
    greeting: Option<Greeting>,
    bytes: ConnectionBytes,
    _permit: OwnedSemaphorePermit,
}

struct Greeting {
    bytes_read: usize,
    patience: Pin<Box<Sleep>>,
}

impl Connection {
    /// Must be called on the runtime that will serve it.
    pub(super) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            greeting: Some(Greeting {
                bytes_read: 0,
                patience: Box::pin(sleep(GREETING_WAIT)),
            }),
            bytes: ConnectionBytes::default(),
            _permit: permit,
        }
    }
}

impl Connected for Connection {
    /// Each request gets it among its extensions.
    type ConnectInfo = ConnectionBytes;

    fn connect_info(&self) -> ConnectionBytes {
        self.bytes.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(greeting) = &mut this.greeting {
            greeting.bytes_read += buffer.filled().len() - filled;
            if greeting.bytes_read >= GREETING_BYTES {
                this.greeting = None;
            } else if read.is_pending() && greeting.patience.as_mut().poll(cx).is_ready() {
                let silent = "client sent no request";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, silent)));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::Semaphore,
    };

    use super::*;

    async fn pair() -> (TcpStream, Connection, Arc<Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        let connection = Connection::new(accepted.unwrap().0, permit);
        (client.unwrap(), connection, permits)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_its_greeting_is_given_up() {
        let (mut client, mut connection, permits) = pair().await;
        client.write_all(b"PRI").await.unwrap();
        let mut bytes = Vec::new();
        let error = connection.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(permits.available_permits(), 0);
        drop(connection);
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_greeted_may_be_silent() {
        let (mut client, mut connection, _permits) = pair().await;
        client.write_all(&[b'x'; GREETING_BYTES]).await.unwrap();
        let mut bytes = [0; GREETING_BYTES];
        connection.read_exact(&mut bytes).await.unwrap();
        let more = connection.read_u8();
        let waited = tokio::time::timeout(GREETING_WAIT * 100, more).await;
        assert!(waited.is_err(), "it is still open");
    }
}
