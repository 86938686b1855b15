//! The network that tests break.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    cluster::{Direction, Proxy},
    wait::soon,
};

/// Long enough for what passes, and short enough to wait for what does not.
const A_WHILE: Duration = Duration::from_millis(100);

/// A server behind a proxy.
async fn behind_a_proxy() -> (TcpListener, Proxy) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("it listens");
    (listener, Proxy::start(address).await)
}

/// Both ends of a connection through the proxy.
async fn connection(listener: &TcpListener, proxy: &Proxy) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await;
    let (server, _) = soon("a connection", listener.accept()).await.expect("one");
    (client.expect("connected"), server)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("written");
}

async fn assert_gets(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    let read = soon("bytes", stream.read_exact(&mut bytes)).await;
    read.expect("it is open");
    assert_eq!(bytes, text.as_bytes());
}

async fn assert_gets_nothing(stream: &mut TcpStream) {
    let read = tokio::time::timeout(A_WHILE, stream.read(&mut [0])).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn everything_passes_in_both_directions_and_so_does_the_end() {
    let (listener, proxy) = behind_a_proxy().await;
    let (client, server) = connection(&listener, &proxy).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let pass = async |mut from: TcpStream, mut to: TcpStream| {
        let write = async {
            from.write_all(&bytes).await.expect("written");
            from.shutdown().await.expect("closed");
        };
        let mut arrived = Vec::new();
        let (read, ()) = tokio::join!(to.read_to_end(&mut arrived), write);
        read.expect("it ends in order");
        assert!(arrived == bytes, "{} bytes", arrived.len());
        (from, to)
    };
    let (client, server) = soon("all bytes", pass(client, server)).await;
    let back = async {
        let (mut server, mut client) = (server, client);
        send(&mut server, "the other side is still open").await;
        assert_gets(&mut client, "the other side is still open").await;
    };
    back.await;
}

#[tokio::test]
async fn what_is_sent_into_a_cut_arrives_when_it_is_healed() {
    let (listener, proxy) = behind_a_proxy().await;
    let (mut client, mut server) = connection(&listener, &proxy).await;
    proxy.cut();
    send(&mut client, "there").await;
    send(&mut server, "back").await;
    assert_gets_nothing(&mut server).await;
    assert_gets_nothing(&mut client).await;
    proxy.heal();
    assert_gets(&mut server, "there").await;
    assert_gets(&mut client, "back").await;
}

#[tokio::test]
async fn one_direction_may_be_cut_alone() {
    let (listener, proxy) = behind_a_proxy().await;
    let (mut client, mut server) = connection(&listener, &proxy).await;
    for cut_first in [true, false] {
        let (cut, open) = (Direction::CUT, Direction::default());
        let (blocked, other) = if cut_first {
            proxy.set(cut, open);
            (&mut server, &mut client)
        } else {
            proxy.set(open, cut);
            (&mut client, &mut server)
        };
        send(blocked, "open").await;
        assert_gets(other, "open").await;
        send(other, "cut").await;
        assert_gets_nothing(blocked).await;
        proxy.heal();
        assert_gets(blocked, "cut").await;
    }
}

#[tokio::test]
async fn nobody_connects_through_a_cut() {
    let (listener, proxy) = behind_a_proxy().await;
    proxy.set(Direction::default(), Direction::CUT);
    let mut client = TcpStream::connect(proxy.address()).await.expect("taken");
    send(&mut client, "hello").await;
    let accepted = tokio::time::timeout(A_WHILE, listener.accept()).await;
    assert!(accepted.is_err(), "{accepted:?}");
    proxy.heal();
    let (mut server, _) = soon("a connection", listener.accept()).await.expect("one");
    assert_gets(&mut server, "hello").await;
}

#[tokio::test]
async fn a_delay_keeps_bytes_on_their_way_without_holding_up_others() {
    let (listener, proxy) = behind_a_proxy().await;
    let (mut client, mut server) = connection(&listener, &proxy).await;
    let delay = Duration::from_millis(200);
    proxy.set(Direction::delayed(delay), Direction::default());
    let started = Instant::now();
    for _ in 0..20 {
        send(&mut client, "x").await;
        tokio::task::yield_now().await;
    }
    assert_gets(&mut server, &"x".repeat(20)).await;
    let took = started.elapsed();
    assert!((delay..delay * 10).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_reset_and_the_end_of_the_proxy_close_all_connections() {
    let (listener, proxy) = behind_a_proxy().await;
    let (mut client, mut server) = connection(&listener, &proxy).await;
    proxy.cut();
    proxy.reset();
    assert_closed(&mut client).await;
    assert_closed(&mut server).await;
    proxy.heal();
    let (mut client, mut server) = connection(&listener, &proxy).await;
    send(&mut client, "again").await;
    assert_gets(&mut server, "again").await;
    drop(proxy);
    assert_closed(&mut client).await;
    assert_closed(&mut server).await;
}

async fn assert_closed(stream: &mut TcpStream) {
    let read = soon("the end", stream.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}
