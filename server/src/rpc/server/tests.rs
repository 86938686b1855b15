//! Connections, protocols and the stop, with health as the only service.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::rpc::{BindError, health::HealthService};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

struct Fixture {
    server: Server,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
}

fn start(options: Options) -> Fixture {
    let metrics = Metrics::new("1");
    let methods = Methods::from_descriptors(&reflection::DESCRIPTORS).unwrap();
    let stack = ClientStack::new(methods, Arc::clone(&metrics), options.stack);
    let stopping = CancellationToken::new();
    let (ready, readiness) = watch::channel(true);
    let health = HealthService::server(vec![], readiness, stopping.clone());
    let service = Dispatch::new(&stack, health, axum::Router::new());
    let listener = Listener::bind(anywhere(), "--port").unwrap();
    let server = Server::serve(
        listener,
        &service,
        "test",
        Arc::clone(&metrics),
        options,
        stopping,
    );
    Fixture {
        server: server.unwrap(),
        metrics,
        ready,
    }
}

async fn channel(server: &Server) -> Channel {
    let address = format!("http://{}", server.address());
    let endpoint = Channel::from_shared(address).unwrap();
    endpoint.connect().await.unwrap()
}

async fn connect(server: &Server) -> HealthClient<Channel> {
    HealthClient::new(channel(server).await)
}

fn node() -> HealthCheckRequest {
    HealthCheckRequest::default()
}

/// Sends one HTTP/1.1 request and reads everything until the server closes.
async fn http1(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.unwrap().unwrap();
    answer
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes
        .windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

#[tokio::test]
async fn many_connections_are_served_on_all_workers() {
    let options = Options {
        workers: 3,
        ..Options::default()
    };
    let Fixture {
        server, metrics, ..
    } = start(options);
    for _ in 0..7 {
        let answer = connect(&server).await.check(node()).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let text = metrics.render();
    let line = "kelda_rpc_duration_seconds_count{rpc_method=\"grpc.health.v1.Health/Check\",\
                rpc_response_status_code=\"OK\"} 7";
    assert!(text.lines().any(|l| l == line), "{text}");
    assert!(server.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_browser_may_call_with_grpc_web_over_http_1() {
    let Fixture { server, .. } = start(Options::default());
    let call = b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        origin: http://page\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n\
        \0\0\0\0\0";
    let answer = http1(&server, call).await;
    assert!(contains(&answer, "HTTP/1.1 200 OK"));
    assert!(contains(&answer, "access-control-allow-origin: *"));
    assert!(
        contains(&answer, "grpc-status-details-bin"),
        "it is exposed"
    );
    assert!(
        contains(&answer, "grpc-status:0"),
        "trailers are in the body"
    );

    let preflight =
        b"OPTIONS /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        origin: http://page\r\naccess-control-request-method: POST\r\n\r\n";
    let answer = http1(&server, preflight).await;
    assert!(contains(&answer, "access-control-allow-methods: POST"));
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_counted() {
    let options = Options {
        connections_max: 1,
        ..Options::default()
    };
    let Fixture {
        server, metrics, ..
    } = start(options);
    let mut first = connect(&server).await;
    first.check(node()).await.unwrap();
    assert!(http1(&server, b"").await.is_empty());
    let text = metrics.render();
    assert!(
        text.contains("kelda_shed_total{kind=\"connection\"} 1"),
        "{text}"
    );
    first.check(node()).await.unwrap();
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_stop_ends_streams_and_frees_the_port() {
    let Fixture { server, ready, .. } = start(Options::default());
    let address = server.address();
    let mut client = connect(&server).await;
    let mut states = client.watch(node()).await.unwrap().into_inner();
    let first = states.next().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    ready.send_replace(false);
    let second = states.next().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert!(server.shutdown(PATIENCE).await, "nothing had to be cut off");
    assert!(states.next().await.is_none());
    Listener::bind(address, "--port").unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_never_ends() {
    let Fixture { server, .. } = start(Options::default());
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    // Half a call: the handler waits for the rest of the request.
    let half = b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\n\
        content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n\0";
    silent.write_all(half).await.unwrap();
    // Whoever connects later is seen later, so by then the half call has been accepted.
    connect(&server).await.check(node()).await.unwrap();
    let stopped = timeout(PATIENCE, server.shutdown(Duration::from_millis(50)));
    stopped.await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(PATIENCE, silent.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "its connection is closed");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let Fixture { server, .. } = start(Options::default());
    let mut client = tonic::client::Grpc::new(channel(&server).await);
    client.ready().await.unwrap();
    let path = ::http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Other");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let answer = client.unary(tonic::Request::new(node()), path, codec).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    server.shutdown(PATIENCE).await;
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_flag() {
    let taken = Listener::bind(anywhere(), "--port").unwrap();
    let error = Listener::bind(taken.address(), "--port").unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("--port"), "{error}");
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    let error = Listener::bind(elsewhere, "--port").unwrap_err();
    assert!(error.to_string().contains("--address"), "{error}");
}
