//! TCP for memberlist, with what it lacks: a limit on connections, and a look at what each announces before memberlist
//! makes room for it. Its decoder believes a length that a stranger sends, up to 4 GiB and before any key is asked
//! for, and never gives up on a header that is cut short.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use memberlist::{
    agnostic_lite::RuntimeLite,
    net::stream_layer::{Listener, PromisedStream, StreamLayer},
    proto::{ProtoReader, ProtoWriter},
    tokio::TokioRuntime,
    transport::Connection,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{announcement::ANNOUNCEMENT_BYTES_MAX, gate::NAMES_MAX};

/// Connections that are served at a time; further ones are closed.
const CONNECTIONS_MAX: usize = 64;

/// Longest message that is read.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

// The longest that honest nodes send is the list of all nodes: what each tells, its name and its address.
const _: () = assert!(NAMES_MAX * (ANNOUNCEMENT_BYTES_MAX + 256) < MESSAGE_BYTES_MAX as usize);

/// First bytes of what memberlist sends.
const COMPOUND: u8 = 1;
const PLAIN: std::ops::RangeInclusive<u8> = 2..=11;
const LABELLED: u8 = 12;
const CHECKSUMMED: u8 = 13;
const ENCRYPTED: u8 = 15;

/// See the module.
pub(super) struct Tcp;

/// A port that is listened on.
pub(super) struct Incoming {
    inner: TcpListener,
    address: SocketAddr,
    permits: Arc<Semaphore>,
}

/// A connection.
pub(super) struct Stream {
    reader: Reader<OwnedReadHalf>,
    writer: Writer,
    local: SocketAddr,
    peer: SocketAddr,
}

/// The half of a connection that is read. Of each connection memberlist reads one message.
pub(super) struct Reader<R> {
    inner: R,
    /// What was read ahead.
    ahead: Vec<u8>,
    checked: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

/// The half of a connection that is written.
pub(super) struct Writer(OwnedWriteHalf);

impl Stream {
    fn new(stream: TcpStream, permit: Option<OwnedSemaphorePermit>) -> io::Result<Self> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: Reader::new(reader, permit),
            writer: Writer(writer),
            local,
            peer,
        })
    }
}

impl StreamLayer for Tcp {
    type Runtime = TokioRuntime;
    type Listener = Incoming;
    type Stream = Stream;
    type Options = ();

    async fn new((): ()) -> io::Result<Self> {
        Ok(Self)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        Stream::new(TcpStream::connect(address).await?, None)
    }

    async fn bind(&self, address: SocketAddr) -> io::Result<Incoming> {
        let inner = TcpListener::bind(address).await?;
        let address = inner.local_addr()?;
        Ok(Incoming {
            inner,
            address,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        })
    }

    fn is_secure() -> bool {
        false
    }
}

impl Listener for Incoming {
    type Stream = Stream;

    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let (stream, peer) = self.inner.accept().await?;
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                continue;
            };
            // One that is gone already is no reason to pause, as memberlist does after an error.
            if let Ok(stream) = Stream::new(stream, Some(permit)) {
                return Ok((stream, peer));
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn shutdown(&self) -> io::Result<()> {
        Ok(())
    }
}

impl PromisedStream for Stream {
    type Instant = <TokioRuntime as RuntimeLite>::Instant;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

impl Connection for Stream {
    type Reader = Reader<OwnedReadHalf>;
    type Writer = Writer;

    fn split(self) -> (Self::Reader, Self::Writer) {
        (self.reader, self.writer)
    }

    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        self.reader.read(buffer)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<()>> + Send {
        self.reader.read_exact(buffer)
    }

    fn peek(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        self.reader.peek(buffer)
    }

    fn peek_exact(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<()>> + Send {
        self.reader.peek_exact(buffer)
    }

    fn write_all(&mut self, payload: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        self.writer.write_all(payload)
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        self.writer.flush()
    }

    fn close(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        self.writer.close()
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: AsyncRead + Unpin + Send + Sync> Reader<R> {
    fn new(inner: R, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            inner,
            ahead: Vec::new(),
            checked: false,
            _permit: permit,
        }
    }

    /// Reads ahead until so many bytes are there.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        let had = self.ahead.len();
        if had < length {
            self.ahead.resize(length, 0);
            self.inner.read_exact(&mut self.ahead[had..]).await?;
        }
        Ok(())
    }

    /// Checks the header of the message, once.
    async fn check(&mut self) -> io::Result<()> {
        if self.checked {
            return Ok(());
        }
        self.fill(2).await?;
        let at = match self.ahead[0] {
            LABELLED => 2 + usize::from(self.ahead[1]),
            _ => 0,
        };
        self.fill(at + 1).await?;
        let length = match self.ahead[at] {
            COMPOUND | CHECKSUMMED | ENCRYPTED => {
                self.fill(at + 6).await?;
                let length = self.ahead[at + 2..].first_chunk();
                u32::from_be_bytes(*length.expect("four bytes were read"))
            }
            tag if PLAIN.contains(&tag) => self.varint(at + 1).await?,
            _ => return Err(invalid("not a message that nodes send")),
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(invalid("the message is too long"));
        }
        self.checked = true;
        Ok(())
    }

    /// A number of seven bits a byte.
    async fn varint(&mut self, at: usize) -> io::Result<u32> {
        let mut number = 0;
        for place in 0..5 {
            self.fill(at + place + 1).await?;
            let byte = self.ahead[at + place];
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| invalid("the message is too long"));
            }
        }
        Err(invalid("the message is too long"))
    }
}

impl<R: AsyncRead + Unpin + Send + Sync> ProtoReader for Reader<R> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check().await?;
        if self.ahead.is_empty() {
            return self.inner.read(buffer).await;
        }
        let length = buffer.len().min(self.ahead.len());
        buffer[..length].copy_from_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        Ok(length)
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.check().await?;
        let (first, rest) = buffer.split_at_mut(buffer.len().min(self.ahead.len()));
        first.copy_from_slice(&self.ahead[..first.len()]);
        self.ahead.drain(..first.len());
        self.inner.read_exact(rest).await.map(drop)
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check().await?;
        let had = self.ahead.len();
        if had < buffer.len() {
            self.ahead.resize(buffer.len(), 0);
            let read = self.inner.read(&mut self.ahead[had..]).await;
            self.ahead.truncate(had + *read.as_ref().unwrap_or(&0));
            read?;
        }
        let length = buffer.len().min(self.ahead.len());
        buffer[..length].copy_from_slice(&self.ahead[..length]);
        Ok(length)
    }

    async fn peek_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.check().await?;
        self.fill(buffer.len()).await?;
        buffer.copy_from_slice(&self.ahead[..buffer.len()]);
        Ok(())
    }
}

impl ProtoWriter for Writer {
    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    async fn write_all(&mut self, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(payload).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    fn first(bytes: &[u8]) -> io::Result<u8> {
        let mut first = [0];
        let mut reader = Reader::new(bytes, None);
        run(reader.peek_exact(&mut first)).map(|()| first[0])
    }

    #[test]
    fn a_length_that_lies_is_refused_before_room_is_made_for_it() {
        let lengths = [0xffff_ffff_u32, MESSAGE_BYTES_MAX + 1];
        for length in lengths.map(u32::to_be_bytes) {
            for tag in [COMPOUND, CHECKSUMMED, ENCRYPTED] {
                let plain = [&[tag, 0][..], &length].concat();
                assert!(first(&plain).is_err(), "{plain:?}");
                let labelled = [&[LABELLED, 2, b'a', b'b'][..], &plain].concat();
                assert!(first(&labelled).is_err(), "{labelled:?}");
            }
        }
        for tag in PLAIN {
            assert!(first(&[tag, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
            assert!(first(&[tag, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
            assert_eq!(first(&[tag, 0xff, 0x01]).ok(), Some(tag));
        }
        assert!(first(&[14, 0, 0, 0, 0, 0]).is_err(), "compressed");
    }

    #[test]
    fn a_header_that_is_cut_short_is_an_error_at_once() {
        for bytes in [&[][..], &[8], &[8, 0x80], &[12, 5, b'k'], &[15, 0, 0, 0]] {
            let error = first(bytes).expect_err("cut short");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_read_as_it_was_sent(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            steps in proptest::collection::vec((0usize..16, 0u8..3), 0..16),
        ) {
            let length = u8::try_from(body.len()).expect("short");
            let sent = [&[8, length][..], &body].concat();
            let mut reader = Reader::new(&sent[..], None);
            let mut seen = Vec::new();
            run(async {
                for (length, how) in steps {
                    let mut buffer = vec![0; length.min(sent.len() - seen.len())];
                    let peeked = match how {
                        0 => {
                            reader.peek_exact(&mut buffer).await?;
                            buffer.len()
                        }
                        1 => reader.peek(&mut buffer).await?,
                        _ => {
                            reader.read_exact(&mut buffer).await?;
                            seen.extend_from_slice(&buffer);
                            continue;
                        }
                    };
                    let ahead = &sent[seen.len()..];
                    assert_eq!(&buffer[..peeked], &ahead[..peeked]);
                }
                io::Result::Ok(())
            })
            .expect("it is all there");
            prop_assert_eq!(&seen[..], &sent[..seen.len()]);
        }

        #[test]
        fn no_bytes_make_the_check_panic(bytes: Vec<u8>) {
            let _ = first(&bytes);
        }
    }
}
