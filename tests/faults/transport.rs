//! What no gRPC library sends, and deadlines, which most libraries would enforce before the node can.

use std::{collections::HashMap, time::Duration};

use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use kelda_proto::v1::{self, ErrorReason};
use prost::{Message as _, bytes::Bytes};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, TestNode, assert_refused,
    orders::{self, Orders, TOPIC},
    refusals::{assert_invalid_fields, assert_refusal},
};

const FETCH: &str = "/kelda.v1.ConsumeService/Fetch";
const CONSUME: &str = "/kelda.v1.ConsumeService/Consume";
pub(super) const PRODUCE: &str = "/kelda.v1.ProduceService/Produce";
pub(super) const PRODUCE_STREAM: &str = "/kelda.v1.ProduceService/ProduceStream";

/// An HTTP/2 connection that knows nothing of gRPC.
pub(super) async fn plain_connection(node: &TestNode) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(node.node.address()).await;
    let (sender, connection) = h2::client::handshake(stream.expect("connected"))
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(async move {
        // How it ends is for the calls to tell.
        let _ = connection.await;
    });
    sender
}

/// Sends a body of any bytes, or how it begins.
pub(super) async fn begin(
    connection: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    whole: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut sender = connection.clone().ready().await.expect("it is open");
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://kelda{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (response, mut stream) = sender.send_request(request, false).expect("sent");
    stream.send_data(body, whole).expect("sent");
    (response, stream)
}

/// The status that a call ends with.
pub(super) async fn status(response: ResponseFuture) -> Status {
    let response = response.await.expect("a response");
    let status = |headers: &HeaderMap| Status::from_header_map(headers);
    if let Some(status) = status(response.headers()) {
        return status;
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.expect("trailers");
    status(&trailers.expect("trailers")).expect("a status")
}

/// Sends a body of any bytes and answers the status that the call ends with.
async fn call(
    connection: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Status {
    let (response, _stream) = begin(connection, path, headers, body.into(), true).await;
    let answer = timeout(PATIENCE, status(response)).await;
    answer.expect("an answer")
}

/// A gRPC message around an encoded one.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_as_such() {
    let mut orders = Orders::start().await;
    let connection = plain_connection(&orders.node).await;
    let fetch = v1::FetchRequest {
        max_wait_ms: 60_000,
        ..orders::fetch(orders.end())
    };
    let consume = v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        follow: true,
        ..Default::default()
    };
    for (path, message) in [
        (FETCH, fetch.encode_to_vec()),
        (CONSUME, consume.encode_to_vec()),
    ] {
        for soon in ["50m", "50000u", "0n"] {
            let headers = [("grpc-timeout", soon)];
            let status = call(&connection, path, &headers, framed(&message)).await;
            assert_refusal(
                &status,
                Code::DeadlineExceeded,
                ErrorReason::DeadlineExceeded,
                &[],
                "allow more time, or ask for less",
            );
        }
    }
    for malformed in ["", "m", "10", "10x", "-1S", "123456789S"] {
        let headers = [("grpc-timeout", malformed)];
        let status = call(&connection, FETCH, &headers, framed(&fetch.encode_to_vec())).await;
        assert_invalid_fields(&status, &["grpc-timeout"]);
    }
    orders.check().await;
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented() {
    let mut orders = Orders::start().await;
    let connection = plain_connection(&orders.node).await;
    for path in [
        "/kelda.v1.ProduceService/Nothing",
        "/kelda.v1.NoService/Produce",
        "/kelda.v2.ProduceService/Produce",
        "/",
        "/Produce",
        "/kelda.v1.ProduceService/",
    ] {
        let status = call(&connection, path, &[], framed(&[])).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    orders.check().await;
}

#[tokio::test]
async fn a_request_that_is_no_message_is_malformed() {
    let mut orders = Orders::start().await;
    let connection = plain_connection(&orders.node).await;
    let no_utf8 = [0x0a, 2, 0xff, 0xfe];
    let mut cut = framed(&orders::good().encode_to_vec());
    cut.pop();
    let mut flagged = framed(&orders::good().encode_to_vec());
    flagged[0] = 1;
    let mut unknown_flag = flagged.clone();
    unknown_flag[0] = 7;
    let bodies = [
        framed(&[0xff; 100]),
        framed(&no_utf8),
        framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        cut,
        flagged,
        unknown_flag,
        vec![0, 0, 0],
        Vec::new(),
    ];
    for path in [PRODUCE, FETCH, CONSUME] {
        for body in &bodies {
            let status = call(&connection, path, &[], body.clone()).await;
            let metadata = assert_refused(
                &status,
                Code::InvalidArgument,
                ErrorReason::MalformedRecords,
            );
            let keys: Vec<_> = metadata.keys().collect();
            assert_eq!(keys, ["detail"]);
            let message = status.message();
            assert!(message.contains("request can not be decoded"), "{message}");
        }
    }
    // A length that no request may have is refused before anything of it has come.
    let huge = vec![0, 0xff, 0xff, 0xff, 0xff];
    let status = call(&connection, PRODUCE, &[], huge).await;
    let metadata = assert_refused(&status, Code::InvalidArgument, ErrorReason::BatchTooLarge);
    let expected = [
        ("size_bytes".to_owned(), u32::MAX.to_string()),
        ("limit_bytes".to_owned(), (16 << 20).to_string()),
    ];
    assert_eq!(metadata, HashMap::from(expected));
    let body = framed(&orders::good().encode_to_vec());
    let status = call(
        &connection,
        PRODUCE,
        &[("grpc-encoding", "snappy")],
        body.clone(),
    )
    .await;
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    // The same connection still takes what is right.
    let status = call(&connection, PRODUCE, &[], body).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    orders.note("bad");
    orders.check().await;
}

/// Connections' first bytes that are not HTTP, or stop being it.
fn garbage() -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let after = |frames: &[u8]| [PREFACE, SETTINGS, frames].concat();
    let mut random: u64 = 7;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    vec![
        noise.clone(),
        vec![0; 4096],
        b"GET / HTTP/1.1\r\nhost".repeat(5000),
        b"POST /kelda.v1.ProduceService/Produce HTTP/9.9\r\n\r\n".to_vec(),
        // A TLS greeting.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 600]].concat(),
        [PREFACE, &noise].concat(),
        after(&noise),
        // A frame of 16 MiB, of which nothing follows but what is no frame.
        after(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        // Data and a continuation on a stream that was never opened.
        after(&[0, 0, 4, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4]),
        after(&[0, 0, 4, 9, 4, 0, 0, 0, 1, 1, 2, 3, 4]),
        // Headers that are no HPACK.
        after(&[0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
        // A window update of nothing, and settings of an odd length.
        after(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        after(&[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]),
    ]
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let mut orders = Orders::start().await;
    for bytes in garbage() {
        let stream = TcpStream::connect(orders.node.node.address()).await;
        let (mut reader, mut writer) = stream.expect("connected").into_split();
        // It may be closed before all is written.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, reader.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it must be closed: {:?}", &bytes[..20]);
        assert!(answer.len() < 64 << 10, "{} bytes of answer", answer.len());
        orders.check().await;
    }
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let mut orders = Orders::start().await;
    let connection = plain_connection(&orders.node).await;
    let mut sender = connection.clone().ready().await.expect("it is open");
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://kelda{PRODUCE}"))
        .header("content-type", "application/grpc")
        .header("x-large", "x".repeat(100_000))
        .body(())
        .expect("a request");
    let (response, _stream) = sender.send_request(request, true).expect("sent");
    match timeout(Duration::from_secs(10), response).await {
        Ok(Ok(response)) => assert_eq!(response.status(), 431),
        Ok(Err(error)) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
        Err(_) => panic!("it must be refused"),
    }
    orders.check().await;
}
